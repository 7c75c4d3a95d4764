// Who paused a limit, and when, as far as the configuration's history goes back.

import { ask } from "./client.js";
import { time } from "./format.js";
import { whoText } from "./history.js";
import { t } from "./texts.js";

let readFor = null;
let pauses = new Map();

/** Read the history if something is paused and the configuration has changed; `asked` is its answer. */
export async function readPauses(asked, signal) {
  const { data, version } = await asked;
  if (version === readFor) return;
  const paused = data.paused ?? [];
  const { versions } = paused.length ? (await ask("GET", "/config/history", { signal })).data : { versions: [] };
  pauses = new Map(paused.map((limit) => [limit, versions.find((one) => pausesIn(one, limit))]));
  readFor = version;
}

/** Return whether a version paused this limit. */
const pausesIn = ({ changed }, limit) => (changed ?? []).some(({ field, before, after }) => (
  field === "paused" && (after ?? []).includes(limit) && !(before ?? []).includes(limit)));

/** Return since when a limit is paused, and by whom; "" where that is not known. */
export function pauseText(limit) {
  const pause = pauses.get(limit);
  return pause ? t("paused_by", { since: time(pause.at), name: whoText(pause) }) : "";
}
