// The view of the last hours: acquired and waited, wait and hold time, of a limit or of all: "#statistics/6h".

import { ask } from "./client.js";
import { byId, element, keepRows, shown, write } from "./dom.js";
import { count, now, period } from "./format.js";
import { entry } from "./names.js";
import { createPlot } from "./plots.js";
import { t } from "./texts.js";
import { createTimeAxis } from "./timeaxis.js";

/** The resolution of each window's counters; wait and hold times are kept for each five minutes. */
const WINDOWS = new Map([
  ["1h", { resolution: "1m", text: t("window_1h") }],
  ["6h", { resolution: "5m", text: t("window_6h") }],
  ["24h", { resolution: "5m", text: t("window_24h") }],
]);
const USUAL = "24h";
/** So many intervals are as wide as the plot at least: on a fresh system there are not that many. */
const FEWEST = 12;
/** A point is a minute or more: no need to read them with every poll. */
const REST = 30_000; // ms
const PERCENTILES = ["p50", "p95", "p99"];
const COUNTERS = ["acquired", "released", "denied", "refused", "parked", "handed_over", "lapsed", "cancelled", "skipped", "replaced", "crowded", "overdue", "expired", "reclaimed", "lost"];

const choice = byId("statistics-limit");
let last = null;
let readAt = -Infinity;

const axis = createTimeAxis((isPart) => shown(byId("statistics-whole"), isPart));
const plots = byId("plots");
const box = byId("plots-of-limit");
const measured = PERCENTILES.map((label) => ({ label, kind: "measured" }));
const counts = createPlot(box, [t("acquired"), t("denied"), t("parked")].map((label) => ({ label, kind: "counted" })), axis);
const waits = createPlot(box, measured, axis);
const holds = createPlot(box, measured, axis);

choice.addEventListener("change", () => last && draw());
byId("statistics-whole").addEventListener("click", () => axis.zoom(null));

export const statistics = {
  async read(argument, signal) {
    const asked = WINDOWS.has(argument) ? argument : USUAL;
    if (last?.window === asked && performance.now() - readAt < REST) return last;
    const { resolution } = WINDOWS.get(asked);
    const read = async (path) => (await ask("GET", path, { signal })).data;
    const history = (step) => read(`/stats/history?resolution=${step}&window=${asked}`);
    const times = history("5m");
    const [counted, timed, totals] = await Promise.all([
      resolution === "5m" ? times : history(resolution), times, read(`/stats?window=${asked}`),
    ]);
    readAt = performance.now();
    return { window: asked, counted, timed, totals };
  },
  show(answer) {
    if (answer === last) return;
    if (answer.window !== last?.window) axis.zoom(null);
    last = answer;
    const { window: asked, counted, timed, totals } = answer;
    for (const link of document.querySelectorAll("nav.windows a")) {
      if (link.hash === `#statistics/${asked}`) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    }
    offer(limitsIn([...counted.points, ...timed.points]));
    draw();
    const leftOut = counted.left_out ?? 0;
    write(byId("statistics-left-out"), t("statistics_left_out", { count: count(leftOut) }));
    shown(byId("statistics-left-out"), leftOut > 0);
    write(byId("title-totals"), t("totals", { window: WINDOWS.get(asked).text }));
    const all = Object.entries(totals).filter(([name]) => name.endsWith(":total"));
    keepRows(byId("totals"), all, ([name]) => name, makeTotal);
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
  return names;
}

function offer(names) {
  const chosen = choice.value || "global";
  const limits = [...names.add(chosen)].sort((one, other) => (other === "global") - (one === "global") || one.localeCompare(other));
  keepRows(choice, limits, (limit) => limit, (limit) => Object.assign(element("option", { value: limit }, limit), { show() {} }));
  choice.value = chosen;
}

const isCounted = ({ counters, wait, hold }) =>
  Object.values(counters).some(Boolean) || [wait, hold].some((times) => Object.keys(times).length > 0);

/** Return the intervals of an answer that are over, and when the last one was; the first may be all that there is. */
function overIn({ points, resolution }) {
  const over = points.slice(0, -1);
  if (over.some(isCounted) || !points.some(isCounted)) return { points: over, end: points.at(-1)?.at ?? now() };
  return { points, end: Math.min(points.at(-1).at + resolution, now()) };
}

function draw() {
  const { counted, timed } = last;
  const { points, end } = overIn(counted);
  const some = points.some(isCounted) || timed.points.some(isCounted);
  const none = some ? t("statistics_none_of", { limit: choice.value }) : t("statistics_none");
  shown(plots, some);
  if (some) {
    const first = points[0].at;
    const since = counted.since ?? points.find(isCounted)?.at ?? first;
    axis.setWhole(Math.min(Math.max(first, since), end - FEWEST * counted.resolution), end);
    drawCounts(points, since, end);
    drawTimes(overIn(timed));
  }
  write(byId("statistics-none"), none);
  shown(byId("statistics-none"), !some || [...box.children].every((figure) => figure.hidden));
}

function drawCounts(points, since, end) {
  const { resolution } = last.counted;
  const limit = choice.value;
  const counter = (verb) => countsOf(points, `${verb}:${limit === "global" ? "total" : limit}`, since - resolution);
  const title = t("counts_title", { period: period(resolution) });
  counts.show(title, points.map(({ at }) => at), [counter("acquired"), counter("denied"), counter("parked")], end);
}

function drawTimes({ points, end }) {
  const at = points.map((point) => point.at);
  const percentiles = (times) => PERCENTILES.map((name) => points.map((point) => entry(entry(point[times], choice.value), name) ?? null));
  waits.show(t("wait_title"), at, percentiles("wait"), end);
  holds.show(t("hold_title"), at, percentiles("hold"), end);
}

/** Return a counter's values; null before anybody counted, and for limits that have times and no counters. */
function countsOf(points, name, since) {
  const counted = name.endsWith(":total") || points.some(({ counters }) => Object.hasOwn(counters, name));
  return points.map(({ at, counters }) => (counted && at > since ? (entry(counters, name) ?? 0) : null));
}

function makeTotal([name]) {
  const value = element("dd");
  const verb = name.replace(/:total$/, "");
  const item = element("div", {}, element("dt", {}, COUNTERS.includes(verb) ? t(verb) : verb), value);
  item.show = ([, total]) => write(value, count(total));
  return item;
}
