// The view of an adaptive limit: "#adaptive/<limit>", how it stands and how it came there.

import { question } from "./actions.js";
import { seriesOf } from "./adaptiveseries.js";
import { ask, query } from "./client.js";
import { byId, changing, element, keepRows, shown, write } from "./dom.js";
import { count, now, time, timeElement } from "./format.js";
import { visible } from "./names.js";
import { createPlot } from "./plots.js";
import { t } from "./texts.js";

/** A sample is a minute: no need to read a day of them with every poll. */
const REST = 10_000; // ms
/** How many moves are shown at most. */
const MOVES = 100;

/** What the limiter itself gives as the reason of a rise. */
const REASONS = new Map([["used in full", t("adaptive_used_in_full")], ["reset", t("adaptive_was_reset")]]);

const box = byId("adaptive-answer");
const lines = element("div");
const back = changing(t("adaptive_reset"), () => reset(last.limit));
box.append(lines, back);
const plots = byId("adaptive-plots");
const steps = { label: t("adaptive_in_force"), kind: "steps" };
// Refusals are counted for some limits; of the others there are the falls.
const counted = createPlot(plots, [steps, t("adaptive_running"), { label: t("refusals"), kind: "bars" }]);
const uncounted = createPlot(plots, [steps, t("adaptive_running"), { label: t("adaptive_falls"), kind: "points" }]);
let last = null;
let readAt = -Infinity;

/** Return how many a limit allows now, as in an answer of /usage, while it is not paused; 0 is unlimited. */
export function allows({ max, adaptive }) {
  if (!adaptive || adaptive.mode === "observe") return max;
  return max ? Math.min(adaptive.current, max) : adaptive.current;
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
    last = answer;
    const { limit, moves } = answer;
    write(byId("title-adaptive"), t("adaptive_of", { limit: visible(limit.limit) }));
    const texts = sentences(limit);
    lines.replaceChildren(...texts.map((text) => element("p", {}, text)));
    shown(back, limit.current < limit.entry.max);
    draw(answer);
    const shownMoves = moves.slice(-MOVES).reverse();
    shown(byId("adaptive-table"), moves.length > 0);
    shown(byId("adaptive-none"), moves.length === 0);
    keepRows(byId("adaptive-rows"), shownMoves, ({ at, before, after }) => `${at} ${before} ${after}`, makeRow);
  },
};

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
  const none = lists.map(() => []);
  const isCounted = answer.refusals !== null;
  counted.show(title, isCounted ? at : [], isCounted ? lists : none);
  uncounted.show(title, isCounted ? [] : at, isCounted ? none : lists);
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

function reset({ limit, entry: { max } }) {
  question({
    title: t("adaptive_reset_title", { limit }),
    label: t("adaptive_reset"),
    says: () => [t("adaptive_reset_effect", { limit, max: count(max) })],
    act: async () => {
      const { message } = await ask("DELETE", query("/adaptive", { limit }));
      readAt = -Infinity;
      return message;
    },
  });
}
