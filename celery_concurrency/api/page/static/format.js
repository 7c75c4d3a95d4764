// Numbers and times as people read them, by the server's clock.

import { LANGUAGE, t } from "./texts.js";
import { element, write } from "./dom.js";

const UNITS = [["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]];
const CLOCK = new Intl.DateTimeFormat(LANGUAGE, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const DAY = new Intl.DateTimeFormat(LANGUAGE, { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const FULL = new Intl.DateTimeFormat(LANGUAGE, { dateStyle: "full", timeStyle: "long" });
const NUMBER = new Intl.NumberFormat(LANGUAGE, { maximumSignificantDigits: 4 });
const COUNT = new Intl.NumberFormat(LANGUAGE);

let ahead = null; // how far the server's clock is, in seconds

/** Take note of the server's time: that of its answer's Date header. */
export function noteServerTime(date) {
  const seen = (Date.parse(date ?? "") - Date.now()) / 1000;
  // Cut to whole seconds, and late by its way: the one furthest ahead is the nearest, until a clock is set.
  if (ahead === null ? !Number.isNaN(seen) : seen > ahead || seen < ahead - 2) ahead = seen;
}

/** Return the server's time in Unix seconds. */
export const now = () => Date.now() / 1000 + (ahead ?? 0);

export const count = (number) => COUNT.format(number);
export const number = (value) => (value === null || value === undefined ? "–" : NUMBER.format(value));

// With a space before a Chinese unit too, as in the page's other texts.
const inUnit = (some, unit) => new Intl.NumberFormat(LANGUAGE, { style: "unit", unit, unitDisplay: "short" })
  .format(some).replace(/(?<=\d)(?=\p{Script=Han})/u, " ");

/** Return a number of seconds exactly, in one unit: "90 s", "10 min", "1 day". */
export function period(seconds) {
  const [unit, size] = UNITS.find(([, size]) => seconds >= size && seconds % size === 0);
  return unit === "second" ? t("seconds", { count: count(seconds) }) : inUnit(seconds / size, unit);
}

/** Return how long it is until a moment: "27 s", "9 min 12 sec". */
export function left(until) {
  const seconds = Math.max(0, Math.ceil(until - now()));
  return seconds < 120 ? t("seconds", { count: seconds }) : duration(seconds);
}

/** Return seconds in their two largest units: "2 hr 5 min". */
export function duration(seconds) {
  let rest = Math.max(0, Math.round(seconds));
  const parts = [];
  for (const [unit, size] of UNITS) {
    const some = Math.floor(rest / size);
    rest -= some * size;
    if (some || (unit === "second" && !parts.length)) {
      parts.push(inUnit(some, unit));
    } else if (parts.length) break;
    if (parts.length === 2) break;
  }
  return parts.join(" ");
}

/** Return a time of day, with the day if it is not today. */
export function time(at) {
  const when = new Date(at * 1000);
  const today = new Date(now() * 1000).toDateString() === when.toDateString();
  return (today ? CLOCK : DAY).format(when);
}

/** Return an element for a time; its `show` takes Unix seconds and a text beside it. */
export function timeElement() {
  const node = element("time");
  const beside = element("span", { class: "aside" });
  const both = element("span", {}, node, " ", beside);
  both.show = (at, text = "") => {
    if (at === null) {
      write(node, t("unknown"));
      return;
    }
    write(node, time(at));
    node.setAttribute("datetime", new Date(at * 1000).toISOString());
    node.setAttribute("title", FULL.format(new Date(at * 1000)));
    write(beside, text);
  };
  return both;
}
