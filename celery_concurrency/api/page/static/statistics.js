// The view of the last 24 hours: acquired and waited, wait and hold time, of a limit or of all.

import { ask } from "./client.js";
import { byId, element, keepRows, shown, write } from "./dom.js";
import { count } from "./format.js";
import { entry } from "./names.js";
import { createPlot } from "./plots.js";
import { t } from "./texts.js";

const HISTORY = "/stats/history?resolution=5m&window=24h";
/** A point is five minutes: no need to read them with every poll. */
const REST = 30_000; // ms
const PERCENTILES = ["p50", "p95", "p99"];
const COUNTERS = ["acquired", "released", "denied", "refused", "parked", "handed_over", "lapsed", "cancelled", "expired", "reclaimed", "lost"];

const choice = byId("statistics-limit");
let last = null;
let readAt = -Infinity;

const plots = byId("plots");
const counts = createPlot(plots, [t("acquired"), t("denied"), t("parked")]);
const waits = createPlot(plots, PERCENTILES);
const holds = createPlot(plots, PERCENTILES);

choice.addEventListener("change", () => last && draw(last.history));

export const statistics = {
  async read(_, signal) {
    if (last && performance.now() - readAt < REST) return last;
    const [history, totals] = await Promise.all([
      ask("GET", HISTORY, { signal }),
      ask("GET", "/stats?window=24h", { signal }),
    ]);
    readAt = performance.now();
    return { history: history.data, totals: totals.data };
  },
  show(answer) {
    if (answer === last) return;
    last = answer;
    offer(limitsIn(answer.history.points));
    draw(answer.history);
    const leftOut = answer.history.left_out ?? 0;
    write(byId("statistics-left-out"), t("statistics_left_out", { count: count(leftOut) }));
    shown(byId("statistics-left-out"), leftOut > 0);
    const totals = Object.entries(answer.totals).filter(([name]) => name.endsWith(":total"));
    keepRows(byId("totals"), totals, ([name]) => name, makeTotal);
  },
};

function limitsIn(points) {
  const names = new Set(["global"]);
  for (const { counters, wait, hold } of points) {
    for (const name of [...Object.keys(wait), ...Object.keys(hold)]) names.add(name);
    for (const name of Object.keys(counters)) {
      const limit = name.slice(name.indexOf(":") + 1);
      if (limit !== "total") names.add(limit);
    }
  }
  return [...names].sort((one, other) => (other === "global") - (one === "global") || one.localeCompare(other));
}

function offer(limits) {
  const chosen = choice.value || "global";
  keepRows(choice, limits, (limit) => limit, (limit) => Object.assign(element("option", { value: limit }, limit), { show() {} }));
  choice.value = limits.includes(chosen) ? chosen : "global";
}

function draw({ resolution, points }) {
  const limit = choice.value;
  const counter = (verb) => countsOf(points, `${verb}:${limit === "global" ? "total" : limit}`);
  const percentiles = (times) => PERCENTILES.map((name) => points.map((point) => entry(entry(point[times], limit), name) ?? null));
  const at = points.map((point) => point.at);
  const some = points.some(({ counters }) => Object.values(counters).some(Boolean));
  shown(byId("statistics-none"), !some);
  shown(plots, some);
  if (!some) return;
  counts.show(t("counts_title", { minutes: resolution / 60 }), at, [counter("acquired"), counter("denied"), counter("parked")]);
  waits.show(t("wait_title"), at, percentiles("wait"));
  holds.show(t("hold_title"), at, percentiles("hold"));
}

/** Return a counter's values, or nulls: most limits have times and no counters. */
function countsOf(points, name) {
  const counted = name.endsWith(":total") || points.some(({ counters }) => Object.hasOwn(counters, name));
  return points.map(({ counters }) => (counted ? (entry(counters, name) ?? 0) : null));
}

function makeTotal([name]) {
  const value = element("dd");
  const verb = name.replace(/:total$/, "");
  const item = element("div", {}, element("dt", {}, COUNTERS.includes(verb) ? t(verb) : verb), value);
  item.show = ([, total]) => write(value, count(total));
  return item;
}
