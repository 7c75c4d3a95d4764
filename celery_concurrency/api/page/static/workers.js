// The view of the workers: who is alive, how its tasks wait, what it holds.

import { limitsCell } from "./cells.js";
import { ask } from "./client.js";
import { byId, element, keepRows, shown, write } from "./dom.js";
import { count, duration, now, time, timeElement } from "./format.js";
import { visible } from "./names.js";
import { t } from "./texts.js";

export const workers = {
  async read(argument, signal) {
    return (await ask("GET", "/workers", { signal })).data;
  },
  show(answer) {
    write(byId("workers-total"), t("total", { count: count(answer.total) }));
    keepRows(byId("workers-notes"), notesOf(answer), (text) => text, noteRow);
    shown(byId("workers-table"), answer.workers.length > 0);
    shown(byId("workers-none"), answer.workers.length === 0);
    keepRows(byId("workers-rows"), answer.workers, (one) => one.name, makeRow);
  },
};

/** Return what is not the same everywhere, or is left out, a line each. */
function notesOf({ workers: listed, total, modes, versions, unread_tokens: unread }) {
  const each = (counts, show) => Object.entries(counts).map(([name, some]) => t("how_many", { name: show(name), count: some })).join(t("comma"));
  const more = total - listed.length;
  return [
    Object.keys(modes).length > 1 ? t("mixed_modes", { each: each(modes, modeName) }) : null,
    Object.keys(versions).length > 1 ? t("mixed_versions", { each: each(versions, String) }) : null,
    more > 0 ? t("more_workers", { count: count(more) }) : null,
    unread > 0 ? t("unread_holders", { count: count(unread) }) : null,
  ].filter((text) => text !== null);
}

function noteRow() {
  const row = element("li");
  row.show = (text) => write(row, text);
  return row;
}

const MODES = new Map([["handoff", t("mode_handoff")], ["retry", t("mode_retry")]]);
const modeName = (mode) => MODES.get(mode) ?? visible(mode ?? t("unknown"));

function makeRow({ name }) {
  const badge = element("span", { class: "badge" });
  const aside = element("span", { class: "aside" });
  const mode = element("td");
  const version = element("bdi");
  const pool = element("span", { class: "aside" });
  const since = timeElement();
  const notKnown = element("span", {}, "–");
  const held = element("a", { href: `#running/${encodeURIComponent(`@${name}`)}` });
  const none = element("span", {}, "0");
  const limits = limitsCell();
  const more = element("span", { class: "aside" });
  limits.append(more);
  const row = element("tr", {}, element("th", { scope: "row" }, visible(name)), element("td", {}, element("div", {}, badge, " ", aside)), mode,
    element("td", {}, version, " ", pool), element("td", {}, since, notKnown),
    element("td", { class: "number" }, held, none), limits);
  row.show = (one) => {
    const [state, text] = stateOf(one);
    badge.dataset.state = state;
    write(badge, text);
    write(aside, moreOf(one));
    write(mode, one.alive === null ? "–" : modeName(one.mode));
    write(version, visible(one.version ?? "–"));
    write(pool, one.pool ? `${visible(one.pool)} ${count(one.concurrency)}` : "");
    shown(since, one.since !== null);
    shown(notKnown, one.since === null);
    if (one.since !== null) since.show(one.since, t("for_duration", { duration: duration(now() - one.since) }));
    held.setAttribute("aria-label", t("tokens_of", { worker: name, count: count(one.tokens) }));
    write(held, count(one.tokens));
    shown(held, one.tokens > 0);
    shown(none, one.tokens === 0);
    limits.show(Object.keys(one.limits));
    write(more, one.more_limits ? t("and_more", { count: count(one.more_limits) }) : "");
  };
  return row;
}

/** Return a worker's state as colours know it, and in words. */
function stateOf({ alive, kind, silent }) {
  if (alive === null) return ["unknown", t(kind === "program" ? "program" : "unknown")];
  return alive ? ["room", t("alive")] : ["over", t("silent", { duration: duration(silent) })];
}

/** Return since when it is so, and what comes next. */
function moreOf({ alive, kind, heard, taken_back_after: after }) {
  if (alive === null) return t(kind === "program" ? "program_why" : "worker_why");
  const texts = [t("last_heard", { time: time(heard) })];
  if (!alive) texts.push(t("taken_back_after", { seconds: Math.round(after) }));
  return texts.join(t("comma"));
}
