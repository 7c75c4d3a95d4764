// The view of an adaptive limit: "#adaptive/<limit>", how it stands and how it came there.

import { changing as sending, desk, question } from "./actions.js";
import { seriesOf } from "./adaptiveseries.js";
import { changeLine } from "./changes.js";
import { ask, query } from "./client.js";
import { byId, changing, element, keepRows, shown, write } from "./dom.js";
import { count, now, time, timeElement } from "./format.js";
import { split } from "./limitnames.js";
import { entry as entryIn, visible } from "./names.js";
import { createPlot } from "./plots.js";
import { t } from "./texts.js";

/** A sample is a minute: no need to read a day of them with every poll. */
const REST = 10_000; // ms
/** How many moves are shown at first, and how many more with each click. */
const MOVES = 20;
const MORE = 100;

/** What the limiter itself gives as the reason of a rise. */
const REASONS = new Map([["used in full", t("adaptive_used_in_full")], ["reset", t("adaptive_was_reset")]]);

const box = byId("adaptive-answer");
const lines = element("div");
const back = changing(t("adaptive_reset"), () => reset(last.limit));
const enforce = changing(t("put_in_force"), () => putInForce(last.limit));
const more = byId("adaptive-more");
box.append(lines, back, enforce);
const plots = byId("adaptive-plots");
const steps = { label: t("adaptive_in_force"), kind: "steps" };
// Refusals are counted for some limits; of the others there are the falls.
const counted = createPlot(plots, [steps, t("adaptive_running"), { label: t("refusals"), kind: "bars" }]);
const uncounted = createPlot(plots, [steps, t("adaptive_running"), { label: t("adaptive_falls"), kind: "points" }]);
let last = null;
let most = MOVES;
let readAt = -Infinity;

/** Return how many a limit allows now, as in an answer of /usage; 0 is unlimited. What a pause hides is shown beside it. */
export function allows({ max, adaptive }) {
  if (!adaptive) return max;
  return adaptive.in_force < 0 ? max || adaptive.current : adaptive.in_force;
}

/** Return a place for a link to the view of an adaptive limit; its `show` takes the limit, and leaves it empty if it is none. */
export function adaptiveBadge(limit) {
  const badge = element("a", { class: "badge", "data-state": "adaptive", href: `#adaptive/${encodeURIComponent(limit)}` });
  const place = element("span");
  place.show = ({ adaptive = null }) => {
    if (!adaptive) {
      place.replaceChildren();
      return;
    }
    if (!badge.isConnected) place.append(badge);
    const text = t(adaptive.mode === "observe" ? "adaptive_observed" : "adaptive_range", numbers(adaptive));
    write(badge, text);
    badge.setAttribute("aria-label", `${text}: ${visible(limit)}`);
  };
  return place;
}

const numbers = ({ current, min, max }) => ({ current: count(current), min: count(min), max: count(max) });

export const adaptive = {
  async read(limit, signal) {
    if (last?.limit.limit === limit && performance.now() - readAt < REST) return last;
    const { data } = await ask("GET", query("/adaptive/history", { limit }), { signal });
    readAt = performance.now();
    return data;
  },
  show(answer) {
    if (answer === last) return;
    if (answer.limit.limit !== last?.limit.limit) most = MOVES;
    last = answer;
    const { limit, moves } = answer;
    write(byId("title-adaptive"), t("adaptive_of", { limit: visible(limit.limit) }));
    const texts = sentences(limit);
    lines.replaceChildren(...texts.map((text) => element("p", {}, text)));
    shown(back, limit.current < limit.entry.max);
    shown(enforce, limit.entry.mode === "observe");
    draw(answer);
    shown(byId("adaptive-table"), moves.length > 0);
    shown(byId("adaptive-none"), moves.length === 0);
    listMoves(moves);
  },
};

more.addEventListener("click", () => {
  most += MORE;
  listMoves(last.moves);
});

function listMoves(moves) {
  keepRows(byId("adaptive-rows"), moves.slice(-most).reverse(), ({ at, before, after }) => `${at} ${before} ${after}`, makeRow);
  write(more, t("adaptive_more", { count: count(moves.length - most) }));
  shown(more, moves.length > most);
}

function sentences(limit) {
  const { current, entry, in_force: inForce, moved } = limit;
  const { mode = "enforce", every, decrease } = entry;
  const values = { ...numbers({ ...entry, current }), every: count(every), decrease };
  const other = inForce < 0 ? [t("adaptive_paused")]
    : mode !== "observe" && inForce !== current ? [t("adaptive_capped", { max: count(inForce) })] : [];
  return [
    t(mode === "observe" ? "adaptive_stands_observed" : "adaptive_stands", values),
    ...other,
    ...(moved ? [t("adaptive_since", { since: time(moved) })] : []),
    t("adaptive_rule", values),
  ];
}

function draw(answer) {
  const title = t("adaptive_plot");
  const [at, ...lists] = seriesOf(answer, now());
  const none = [[], lists.map(() => [])];
  // Where it stands now, and nothing else, is no plot.
  const all = at.length > 1 ? [at, lists] : none;
  const isCounted = answer.refusals !== null;
  counted.show(title, ...(isCounted ? all : none));
  uncounted.show(title, ...(isCounted ? none : all));
}

/** Return why it moved, in words: only a refusal lets it fall. */
function reasonOf({ before, after, reason }) {
  if (after < before) return reason ? t("adaptive_refused_as", { reason }) : t("adaptive_refused");
  const [, who] = /^reset by (.*)$/s.exec(reason) ?? [];
  if (who) return t("adaptive_was_reset_by", { name: who });
  return REASONS.get(reason) ?? visible(reason);
}

function makeRow() {
  const when = timeElement();
  const change = element("td", { class: "number" });
  const why = element("td");
  const row = element("tr", {}, element("th", { scope: "row" }, when), change, why);
  row.show = ({ at, before, after, reason }) => {
    when.show(at);
    write(change, `${count(before)} → ${count(after)}`);
    write(why, reasonOf({ before, after, reason }));
  };
  return row;
}

/** Put in force the entry that holds for a limit: its own, or that of its wildcard. */
function putInForce({ limit, entry }) {
  const name = entryIn(desk.config.adaptive, limit) ? limit : `${split(limit)[0]}:*`;
  const send = sending("PUT", "/config", () => ({ adaptive: { [name]: { mode: "enforce" } } }));
  question({
    title: t("enforce_title", { limit: name }),
    label: t("put_in_force"),
    says: () => [t("adaptive_enforce_effect", { limit: name, min: count(entry.min), max: count(entry.max) })],
    act: async (values) => {
      const lines = await send(values);
      readAt = -Infinity;
      return lines;
    },
  });
}

function reset({ limit, current, entry: { max } }) {
  question({
    title: t("adaptive_reset_title", { limit }),
    label: t("adaptive_reset"),
    says: () => [t("adaptive_reset_effect", { limit, max: count(max) })],
    act: async () => {
      const { data } = await ask("DELETE", query("/adaptive", { limit }));
      readAt = -Infinity;
      return [changeLine(limit, count(current), count(data.current))];
    },
  });
}
