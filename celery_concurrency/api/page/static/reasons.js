// Why a task waits, in words.

import { count, left } from "./format.js";
import { rateText } from "./rates.js";
import { t } from "./texts.js";

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
  const { reason, limit, current, max, opens_at: moment } = blocked;
  if (moment) return shutText(blocked);
  const numbers = { current: count(current ?? 0), max: count(max ?? 0) };
  return TEXTS.has(reason) ? t(TEXTS.get(reason), { limit, ...numbers }) : reason;
}
