// Why a task waits, in words.

import { count } from "./format.js";
import { t } from "./texts.js";

const TEXTS = new Map(["full", "paused", "kept", "behind", "next"].map((reason) => [reason, `why_${reason}`]));

/** Return the API's `blocked_by` in words; a reason that is unknown here, as it is. */
export function reasonText({ reason, limit, current, max }) {
  const numbers = { current: count(current ?? 0), max: count(max ?? 0) };
  return TEXTS.has(reason) ? t(TEXTS.get(reason), { limit, ...numbers }) : reason;
}
