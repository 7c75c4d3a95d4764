// The series of an adaptive limit's plot, made of its moves, samples and refusals.

/** Seconds between two samples, after which no worker was there to make one. */
const GAP = 180;

/** Return how many a limit allows, as samples have it: its own maximum where that is only observed, 0 while it is paused. */
const standing = ({ current, entry, in_force: inForce }) => (entry.mode === "observe" ? current : Math.max(0, inForce));

/**
 * Return `[times, its maximum, running, refusals or falls]` of an answer of /adaptive/history.
 *
 * In a list, undefined is where another one has a point, and null where nothing is known: a line
 * goes on over the first, and ends at the second.
 */
export function seriesOf({ limit, moves, samples, refusals, resolution }, end) {
  const stood = new Map();
  const running = new Map();
  const refused = new Map();
  const [first] = moves;
  // What was before the first that is known, nobody knows.
  if (first && !(samples[0]?.at < first.at)) stood.set(first.at - 1, first.before);
  samples.forEach(({ at, current, running: some }, place) => {
    const previous = samples[place - 1];
    if (previous && at - previous.at > GAP) running.set(previous.at + 1, null);
    stood.set(at, current);
    running.set(at, some);
  });
  for (const { at, after } of moves) stood.set(at, after);
  stood.set(end, standing(limit));
  if (refusals === null) {
    for (const { at, before, after } of moves) if (after < before) refused.set(at, after);
  } else {
    // In the middle of its interval; none is no bar.
    for (const { at, count } of refusals) if (count) refused.set(Math.min(at + resolution / 2, end), count);
  }
  const lists = [stood, running, refused];
  const times = [...new Set(lists.flatMap((list) => [...list.keys()]))].sort((one, other) => one - other);
  return [times, ...lists.map((list) => times.map((at) => list.get(at)))];
}
