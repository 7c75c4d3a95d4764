// Why a task waits, in words.

import { count } from "./format.js";
import { t } from "./texts.js";

const TEXTS = new Map([
  ["full", "why_full"], ["paused", "why_paused"], ["kept", "why_kept"], ["behind", "why_behind"], ["next", "why_next"],
]);

/** Return the API's `blocked_by` in words; a reason that is unknown here, as it is. */
export function reasonText({ reason, limit, current, max }) {
  const numbers = { current: count(current ?? 0), max: count(max ?? 0) };
  return TEXTS.has(reason) ? t(TEXTS.get(reason), { limit, ...numbers }) : reason;
}
