// Values of the configuration, in words.

import { count, period } from "./format.js";
import { t } from "./texts.js";

/** Return a maximum in words: a number, or an object with its mode. */
export function maxText(max) {
  if (typeof max === "object") return t("observed_value", { value: maxText(max.max) });
  return max ? count(max) : t("no_limit");
}

/** Return a rate in words: "15 per 1 day". */
export function rateText({ max, per, mode = "enforce" }) {
  const text = t("rate", { max: count(max), period: period(per) });
  return mode === "observe" ? t("observed_value", { value: text }) : text;
}

export const ratesText = (rates) => rates.map(rateText).join(t("comma"));

/** Return the bounds on waiting for a limit in words. */
export function boundsText({ most, seconds }) {
  const parts = [most && t("bounds_most", { count: count(most) }), seconds && t("bounds_seconds", { period: period(seconds) })];
  return parts.filter(Boolean).join(t("comma")) || t("no_limit");
}

/** What an adaptive limit has where it does not say otherwise. */
export const ADAPTIVE = { min: 1, max: 10, decrease: 0.5, every: 60, mode: "enforce" };

/** Return an adaptive limit in words. */
export function adaptiveText(entry) {
  const { min, max, decrease, every, mode } = { ...ADAPTIVE, ...entry };
  const text = t("adaptive_value", { min: count(min), max: count(max), decrease, every: period(every) });
  return mode === "observe" ? t("adaptive_value_observed", { text }) : text;
}
