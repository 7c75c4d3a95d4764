// The view of the limits: how many run, how many wait, and changing them.

import { cancelAll, desk, editLimit, pause, resume, setAnother } from "./actions.js";
import { adaptiveBadge, allows } from "./adaptive.js";
import { backlogLine, readBacklog } from "./backlog.js";
import { bar, linkOf } from "./cells.js";
import { ask } from "./client.js";
import { coolAnother, coolDown, lift } from "./cooldowns.js";
import { byId, changing, element, keepRows, shown, write } from "./dom.js";
import { count, duration, now as serverNow } from "./format.js";
import { dimensionText, isSettable } from "./limitnames.js";
import { momentsList, resting } from "./moments.js";
import { visible } from "./names.js";
import { showObserved } from "./observed.js";
import { pauseText, readPauses } from "./pauses.js";
import { t } from "./texts.js";

/** How many limits of a dimension are shown at most: there may be thousands of accounts. */
const ROWS = 100;

/** What an answer of /usage leaves out: numbers of each, or true. */
const LEFT_OUT = ["unlisted_limits", "unread_tokens", "uncounted_groups", "statistics_full", "unlisted_observed"];

const table = byId("limits-table");
const filter = byId("limits-filter");
let last = null;

byId("set-another").addEventListener("click", setAnother);
byId("cool-another").addEventListener("click", coolAnother);
filter.addEventListener("input", () => last && showLimits(last));

export const limits = {
  async read(_, signal, asked) {
    const usage = ask("GET", "/usage", { signal });
    await Promise.all([usage, readBacklog(signal), readPauses(asked, signal)]);
    return (await usage).data;
  },
  show(usage) {
    last = usage;
    showLimits(usage);
  },
};

/** Return the groups of limits of an answer of /usage: `[dimension, [limit, ...]]`. */
function groupsOf(usage) {
  const named = (dimension, map) =>
    [dimension, Object.entries(map).map(([name, one]) => ({ ...one, name, limit: `${dimension}:${name}` }))];
  return [
    ["global", [{ ...usage.global, name: t("global"), limit: "global" }]],
    named("platform", usage.platforms),
    named("task_type", usage.task_types),
    named("account", usage.accounts),
    ...Object.entries(usage.dimensions).map(([dimension, map]) => named(dimension, map)),
  ];
}

function showLimits(usage) {
  const wanted = filter.value.trim().toLowerCase();
  const groups = groupsOf(usage);
  let more = 0;
  const kept = [];
  for (const [dimension, all] of groups) {
    const found = all.filter((one) => `${one.limit} ${one.name}`.toLowerCase().includes(wanted));
    more += Math.max(0, found.length - ROWS);
    // If there are too many, those with waiters come first; the others keep their order.
    if (found.length > ROWS) found.sort((one, other) => (other.waiting ?? 0) - (one.waiting ?? 0));
    if (found.length) kept.push({ dimension, rows: found.slice(0, ROWS) });
  }
  keepRows(table, kept, (group) => group.dimension, makeGroup);
  showObserved(usage.observed ?? [], wanted);
  shown(byId("limits-none"), !kept.length);
  shown(byId("limits-more"), more > 0);
  write(byId("limits-more"), t("more_limits", { count: count(more) }));
  const notes = LEFT_OUT.filter((name) => usage[name]).map((name) => t(name, { count: count(usage[name]) }));
  for (const one of usage.misnamed_headers ?? []) {
    const [task, header] = [one.task, one.header].map(visible);
    notes.push(t("misnamed_header", { task, header, tag: one.tag, count: count(one.count) }));
  }
  write(byId("limits-left-out"), notes.join(" "));
  shown(byId("limits-left-out"), notes.length > 0);
}

function makeGroup({ dimension }) {
  const group = element("tbody");
  if (dimension !== "global") {
    group.append(element("tr", { class: "group" }, element("th", { colspan: 4, scope: "rowgroup" }, dimensionText(dimension))));
  }
  group.show = ({ rows }) => keepRows(group, rows, (one) => one.limit, makeRow);
  return group;
}

function makeRow({ limit, name }) {
  let now = null;
  const used = bar("used");
  const state = element("span", { class: "badge" });
  const adapts = adaptiveBadge(limit);
  const usedText = linkOf("running", limit, "");
  const observed = element("span", { class: "aside" });
  const pausedBy = element("div", { class: "aside" });
  const moments = momentsList();
  const backlog = backlogLine(limit);
  const waitsText = linkOf("waiting", limit, "");
  const oldest = element("span", { class: "aside" });
  // For screen readers: "Edit" alone does not say what it edits.
  const named = (button, text) => {
    write(button, text);
    button.setAttribute("aria-label", `${text}: ${visible(limit)}`);
    return button;
  };
  const edit = named(changing("", () => editLimit(limit, now.current)), t("edit"));
  const gate = changing("", () => (now.paused ? resume : pause)(limit));
  const cool = changing("", () => coolDown(limit, resting(now)));
  const warm = named(changing("", () => lift(limit)), t("lift"));
  const empty = named(changing("", () => cancelAll(limit, now.waiting), true), t("cancel_all"));
  const row = element("tr", {},
    element("th", { scope: "row" }, visible(name)),
    element("td", {}, element("div", {}, element("div", { class: "measure" }, used, usedText, state, observed, adapts), pausedBy, moments)),
    element("td", {}, element("div", { class: "measure" }, backlog, waitsText, oldest)),
    element("td", { class: "buttons", "data-change": "" }, edit, gate, cool, warm, empty));
  row.show = (one) => {
    now = { waiting: 0, ...one };
    const [kind, text] = stateOf(now);
    const most = allows(now);
    used.show(most ? now.current / most : 0, kind);
    write(usedText, t(most ? "used_of" : "used_unlimited", { current: count(now.current), max: count(most) }));
    write(state, text);
    state.dataset.state = kind;
    shown(state, text !== "");
    write(observed, now.observed_max ? t("observed_badge", { max: count(now.observed_max) }) : "");
    adapts.show(now);
    write(pausedBy, now.paused ? pauseText(limit) : "");
    moments.show(now);
    backlog.show(now.waiting);
    const places = now.bounds?.most;
    const waits = places ? t("used_of", { current: count(now.waiting), max: count(places) }) : count(now.waiting);
    write(waitsText, now.weight ? t("waits_weight", { waits, weight: now.weight }) : waits);
    waitsText.classList.toggle("zero", now.waiting === 0);
    const since = now.waiting_since ?? null;
    write(oldest, since === null ? "" : t("oldest_wait", { duration: duration(serverNow() - since) }));
    named(gate, now.paused ? t("resume") : t("pause"));
    named(cool, resting(now) ? t("extend") : t("cool_down"));
    const settable = isSettable(limit, desk.config);
    shown(edit, settable);
    shown(gate, settable);
    shown(cool, settable);
    shown(warm, Boolean(now.cooldown));
    shown(empty, now.waiting > 0);
  };
  return row;
}

function stateOf(one) {
  const { current, paused } = one;
  const max = allows(one);
  if (paused) return ["paused", t("paused")];
  if (max && current > max) return ["over", t("over")];
  if (max && current === max) return ["full", t("full")];
  return [max ? "room" : "unlimited", ""];
}
