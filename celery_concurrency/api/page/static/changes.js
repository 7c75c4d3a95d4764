// What changed, from what to what, a line each: "platform:douyin: 3 → 1".

import { count } from "./format.js";
import { limitOfField } from "./limitnames.js";
import { entry, visible } from "./names.js";
import { t } from "./texts.js";
import { adaptiveText, maxText, ratesText } from "./values.js";

/** How many changes of the configuration are told at most. */
const MOST = 6;

/** Return in a line what became of something; what it was before is null where that is not known. */
export function changeLine(name, before, after) {
  const known = before === null ? after : `${before} → ${after}`;
  return visible(name) + t("colon") + (before === after ? t("unchanged", { value: after }) : known);
}

/**
 * Return the differences of two configurations: `[{field, before, after}, ...]`.
 *
 * As those of the API's history, but an entry of a map that was not there before is a field of its own.
 */
export function differences(before, after, field = "") {
  const isMap = (value) => value !== null && typeof value === "object" && !Array.isArray(value)
    && typeof value.mode !== "string" && !field.startsWith("adaptive.");
  const sides = [before, after].map((value) => value ?? null);
  if (sides.some(isMap) && sides.every((value) => value === null || isMap(value))) {
    const names = Object.keys({ ...before, ...after });
    return names.flatMap((name) => differences(entry(before, name), entry(after, name), field ? `${field}.${name}` : name));
  }
  return JSON.stringify(before) === JSON.stringify(after) ? [] : [{ field, before, after }];
}

/** Return the lines of differences, all of them. */
export const linesOf = (changes) => changes.flatMap(({ field, before, after }) => (
  field === "paused"
    ? pauseLines(before ?? [], after ?? [])
    : [changeLine(nameOf(field), valueText(field, before), valueText(field, after))]));

/**
 * Return the lines of the first of many differences, and how many there are besides.
 *
 * @param total of how many these are the first.
 */
export function shortLinesOf(changes, total = changes.length) {
  const lines = linesOf(changes.slice(0, MOST));
  return total > MOST ? [...lines, t("more_changes", { count: count(total - MOST) })] : lines;
}

function pauseLines(before, after) {
  const lines = (some, others, from, to) =>
    some.filter((limit) => !others.includes(limit)).map((limit) => changeLine(limit, t(from), t(to)));
  return [...lines(after, before, "open", "paused"), ...lines(before, after, "paused", "open")];
}

/** Return how the page names a field elsewhere. */
const nameOf = (field) => limitOfField(field) ?? field.replace(/^(rates|adaptive|waiting)\./, "$1 ");

function valueText(field, value) {
  if (value === null || value === undefined) return t("not_set");
  if (field === "enabled") return t(value ? "on" : "off");
  if (field === "timeout") return t("seconds", { count: count(value) });
  if (field.startsWith("rates.")) return ratesText(value);
  if (field.startsWith("adaptive.") && typeof value === "object") return adaptiveText(value);
  if (limitOfField(field) && typeof value !== "string") return maxText(value);
  return JSON.stringify(value);
}
