// The backlog: how many waited for each limit over the last hour, as a line in a table's cell.

import { ask } from "./client.js";
import { byId } from "./dom.js";
import { count, now } from "./format.js";
import { entry } from "./names.js";
import { t } from "./texts.js";

const HOUR = 3600; // s
/** How long the line is at least, where nothing is known yet of most of the hour. */
const SHORTEST = 900; // s
/** Seconds between two samples, after which no worker was there to make one. */
const GAP = 180;
/** A sample is a minute: no need to read them with every poll. */
const REST = 30_000; // ms
/** How many are as high as the line can be, at least: one that waits for a moment is no mountain. */
const LEAST = 4;
/** The drawing's own units, as in the page's template. */
const [WIDTH, HEIGHT] = [60, 20];

let samples = { at: [], limits: {} };
let readAt = -Infinity;

/** Read the samples again, if they are old. */
export async function readBacklog(signal) {
  if (performance.now() - readAt < REST) return;
  samples = (await ask("GET", "/stats/backlog", { signal })).data;
  readAt = performance.now();
}

/** Return a limit's line; its `show` takes the limit, and how many wait for it now. */
export function backlogLine(limit) {
  const node = byId("backlog-line").content.firstElementChild.cloneNode(true);
  const [title, area, line] = node.children;
  node.show = (waiting) => {
    const stretches = stretchesOf(limit, waiting);
    const most = Math.max(...stretches.flat().map(([, some]) => some));
    const drawn = stretches.map((points) => points.map(([at, some]) => [x(at), y(some / Math.max(most, LEAST))]));
    line.setAttribute("d", drawn.map((points) => `M${points.join("L")}`).join(""));
    area.setAttribute("d", drawn.map((points) => `M${points[0][0]},${HEIGHT}L${points.join("L")}L${points.at(-1)[0]},${HEIGHT}Z`).join(""));
    const text = t("backlog_text", { most: count(most), now: count(waiting) });
    title.textContent = text;
    node.setAttribute("aria-label", text);
  };
  return node;
}

/** Return where a line is drawn without a gap: lists of when, and how many waited. */
function stretchesOf(limit, waiting) {
  const known = entry(samples.limits, limit);
  const stretches = [[]];
  const add = (at, some) => {
    const before = stretches.at(-1).at(-1);
    if (before && at - before[0] > GAP) stretches.push([]);
    if (some !== null) stretches.at(-1).push([at, some]);
  };
  samples.at.forEach((at, number) => add(at, known ? known.at(number) : 0));
  add(now(), waiting);
  return stretches.filter((points) => points.length);
}

function x(at) {
  const length = Math.min(HOUR, Math.max(SHORTEST, now() - (samples.at[0] ?? now())));
  return Math.max(0, WIDTH * (1 - (now() - at) / length)).toFixed(2);
}

// Half of the stroke is above and below.
const y = (share) => (1 + (HEIGHT - 2) * (1 - share)).toFixed(2);
