// Why a task waits, in words.

import { count, duration, left, now, time } from "./format.js";
import { visible } from "./names.js";
import { t } from "./texts.js";
import { rateText } from "./values.js";

const TEXTS = new Map([
  ["full", "why_full"], ["paused", "why_paused"], ["kept", "why_kept"], ["probe", "why_probe"], ["behind", "why_behind"], ["next", "why_next"],
]);

function shutText({ limit, opens_at: moment, rate, cause }) {
  const values = { limit, left: left(moment) };
  if (rate) return t("why_rate", { ...values, rate: rateText(rate) });
  return cause ? t("why_cooling_as", { ...values, cause }) : t("why_cooling", values);
}

/** Return the API's `blocked_by` in words; a reason that is unknown here, as it is. */
export function reasonText(blocked) {
  const { reason, limit, current, max, takes, opens_at: moment, since } = blocked;
  if (moment) return shutText(blocked);
  const numbers = { current: count(current ?? 0), max: count(max ?? 0) };
  const text = TEXTS.has(reason) ? t(TEXTS.get(reason), { limit, ...numbers }) : reason;
  const places = takes && ["full", "kept"].includes(reason) ? t("why_takes", { takes: count(takes) }) : "";
  const still = reason === "full" && since ? t("why_still", { duration: duration(now() - since) }) : "";
  return text + places + still;
}

/** Return such a reason with who paused the limit, or had it cool down, and when. */
function reasonAndAuthor(blocked) {
  const { reason, by, source, since } = blocked;
  const text = reasonText(blocked);
  if (!since || !["paused", "cooling"].includes(reason)) return text;
  const who = by ? visible(by) : t("why_somebody");
  return text + t("why_said_by", { since: time(since), name: source ? `${who} (${source})` : who });
}

/** Return all reasons why a task waits, as in an answer of /waiting/<id>. */
export const reasonsText = ({ blocked_by: first, blockers = [] }) =>
  (blockers.length ? blockers : [first]).map(reasonAndAuthor).join(t("why_more"));
