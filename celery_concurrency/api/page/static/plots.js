// A plot, drawn by uPlot; a sentence and a table say the same.

import { element, shown, write } from "./dom.js";
import { number, time } from "./format.js";
import { LANGUAGE, t } from "./texts.js";

const HEIGHT = 220; // px
const DASHES = [[], [8, 4], [2, 3]];
/** The steps of an axis that counts. */
const WHOLE = [0, 1, 2, 3, 4, 5, 6].flatMap((power) => [1, 2, 5].map((digit) => digit * 10 ** power));
/** The steps of an axis of time that shows minutes, in s, and how long it is at least where little is known. */
const MINUTES = [60, 300, 600, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400];
const SHORTEST = 900; // s
const BORDERS = ["solid", "dashed", "dotted"];
const dark = matchMedia("(prefers-color-scheme: dark)");
const hours = new Intl.DateTimeFormat(LANGUAGE, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

const stepped = () => ({ paths: window.uPlot.paths.stepped({ align: 1, alignGaps: 1 }) });

/**
 * How a series is drawn: `{paths, points}` of uPlot. Bars are counts, and have an axis of their own; what was
 * counted or measured in an interval is drawn over all of it.
 */
const KINDS = new Map(Object.entries({
  line: () => ({}),
  steps: () => ({ paths: window.uPlot.paths.stepped({ align: 1 }) }),
  counted: stepped,
  measured: stepped,
  bars: () => ({ paths: window.uPlot.paths.bars({ size: [0.9, 12, 2] }), scale: "counts", dash: [], width: 0 }),
  points: () => ({ paths: () => null, points: { show: true, size: 8 } }),
}));

const known = (value) => value !== null && value !== undefined;

/**
 * Return a plot at the end of a parent; its `show` takes a title, times and a list of
 * values for each of the series; and, where they are of intervals, when the last one ends.
 *
 * @param given of each series its name, or `{label, kind}` with one of `KINDS`. A line ends at null, and
 *     goes on over undefined.
 * @param axis that it shares with others (`timeaxis.js`).
 */
export function createPlot(parent, given, axis = OWN_AXIS) {
  const kinds = given.map((one) => one.kind ?? "line");
  const series = given.map((one) => one.label ?? one);
  // What is drawn later is above: bars are below the lines.
  const order = [...given.keys()].sort((one, other) => (kinds[other] === "bars") - (kinds[one] === "bars"));
  const title = element("figcaption");
  const canvas = element("div", { class: "plot", role: "img" });
  const figure = element("figure", { class: "card" });
  const rows = element("tbody");
  const table = element("details", {}, element("summary", {}, t("as_table")),
    element("div", { class: "table", tabindex: "0" }, element("table", {},
      element("thead", {}, element("tr", {}, ...[t("time"), ...series].map((text) => element("th", { scope: "col" }, text)))), rows)));
  figure.append(title, canvas, table);
  parent.append(figure);
  let plot = null;
  let data = null;
  let end = null;

  function drawn() {
    const [at, ...lists] = [data[0], ...order.map((place) => data[place + 1])];
    return end === null ? [at, ...lists] : [[...at, end], ...lists.map((list) => [...list, list.at(-1)])];
  }

  function draw() {
    plot?.destroy();
    plot = new window.uPlot(optionsFor(series, kinds, order, canvas.clientWidth, axis), drawn(), canvas);
  }

  function fillTable() {
    if (!table.open || !data) return;
    const [at, ...lists] = data;
    // The newest first; points without a value are left out.
    const places = at.map((_, place) => place).reverse().filter((place) => lists.some((list) => list[place] || (kinds.includes("steps") && known(list[place]))));
    rows.replaceChildren(...places.map((place) => element("tr", {}, element("th", { scope: "row" }, time(at[place])),
      ...lists.map((list) => element("td", { class: "number" }, number(list[place]))))));
  }

  table.addEventListener("toggle", fillTable);
  dark.addEventListener("change", () => plot && draw());
  new ResizeObserver(() => plot && canvas.clientWidth && plot.setSize({ width: canvas.clientWidth, height: HEIGHT })).observe(canvas);

  return {
    show(text, at, lists, until = null) {
      data = [at, ...lists];
      end = until;
      shown(figure, lists.some((list) => list.some(known)));
      if (figure.hidden) return;
      write(title, text);
      canvas.setAttribute("aria-label", t("plot_label", { title: text, values: latest(series, lists) }));
      if (plot) plot.setData(drawn());
      else draw();
      fillTable();
    },
  };
}

function latest(series, lists) {
  return series.map((name, place) => `${name} ${number(lists[place].findLast(known))}`).join(", ");
}

const fromZero = (_, least, most) => [0, (most || 1) * 1.1];

const atLeast = (_, from, to) => [Math.min(from, to - SHORTEST), to];

const OWN_AXIS = { scale: { range: atLeast }, cursor: { drag: { x: true, y: false } }, hooks: {} };

function optionsFor(series, kinds, order, width, { scale, cursor, hooks }) {
  const whole = kinds.includes("steps") || kinds.includes("counted");
  const line = { stroke: colour("muted"), grid: { stroke: colour("line"), width: 1 }, ticks: { show: false } };
  return {
    width,
    height: HEIGHT,
    scales: { x: scale, y: { range: fromZero }, counts: { range: fromZero } },
    cursor,
    hooks,
    legend: { markers: { width: 2, dash: (_, place) => BORDERS[order[place - 1]] } },
    axes: [
      { ...line, size: 32, incrs: MINUTES, values: (_, ticks) => ticks.map((at) => hours.format(at * 1000)) },
      { ...line, size: 56, values: (_, ticks) => ticks.map(number), ...(whole ? { incrs: WHOLE } : {}) },
      ...(kinds.includes("bars") ? [{ ...line, scale: "counts", side: 1, size: 56, incrs: WHOLE, grid: { show: false }, values: (_, ticks) => ticks.map(number) }] : []),
    ],
    series: [
      { label: t("time"), value: (_, at) => (at ? time(at) : "–") },
      ...order.map((place) => ({
        label: series[place],
        stroke: colour(`series-${place + 1}`),
        // Lines differ without colour too.
        dash: DASHES[place],
        width: 2,
        points: { show: false },
        spanGaps: false,
        value: (_, value) => number(value),
        ...KINDS.get(kinds[place])(),
        ...(kinds[place] === "bars" ? { fill: colour(`series-${place + 1}`) } : {}),
      })),
    ],
  };
}
