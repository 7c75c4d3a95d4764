// The message after a change: it says what changed, in sight wherever one has scrolled to, and goes by itself.

import { byId, element, focusTitle, shown } from "./dom.js";

/** How long it stays, in ms; as long again while somebody points at it, or is in it. */
const STAYS = 10_000;

const box = byId("message");
const text = byId("done");
let timer = null;

/** Return a line of a message that is a warning: such a message stays until somebody closes it. */
export const warning = (line) => ({ warning: line });

/** @param lines a paragraph each. */
export function tell(lines) {
  clearTimeout(timer);
  const warns = lines.some((line) => line.warning);
  text.replaceChildren(...lines.map((line) => (
    line.warning ? element("p", { class: "warning" }, line.warning) : element("p", {}, line))));
  box.dataset.kind = warns ? "warning" : "done";
  shown(byId("message-close"), true);
  place();
  if (!warns) timer = setTimeout(leave, STAYS);
}

export function clearMessage() {
  clearTimeout(timer);
  text.replaceChildren();
  shown(byId("message-close"), false);
}

/** Put it at the window's lower edge, or at the upper one if the button in use is there. */
function place() {
  box.dataset.edge = "bottom";
  const used = document.activeElement.getBoundingClientRect();
  if (used.bottom > box.getBoundingClientRect().top) box.dataset.edge = "top";
}

function leave() {
  if (box.matches(":hover, :focus-within")) timer = setTimeout(leave, STAYS);
  else clearMessage();
}

byId("message-close").addEventListener("click", () => {
  clearMessage();
  focusTitle();
});
