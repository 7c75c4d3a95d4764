// What went wrong, in the API's words.

import { byId, element, shown } from "./dom.js";

/** Return an ApiError's message, and a line for each of its details. */
export function problemLines(error) {
  return [
    error.message,
    ...error.details.map(({ field, problem }) => (field ? `${field}: ${problem}` : problem)),
  ];
}

/** Show lines as the page's problem; without lines, show none. */
export function showProblem(lines) {
  const box = byId("problem");
  const old = [...box.children].map((line) => line.textContent);
  // Written only if it is new: a screen reader reads it out each time.
  if (old.join("\n") !== lines.join("\n")) box.replaceChildren(...lines.map((line) => element("p", {}, line)));
  shown(box, lines.length > 0);
}
