// Table cells that several views use.

import { element, shown, write } from "./dom.js";
import { count } from "./format.js";
import { visible } from "./names.js";
import { t } from "./texts.js";

/** Return a task's name, or else what its token is for. */
export function taskName({ task, reserved, kept }) {
  if (task) return visible(task);
  if (kept) return t("kept_for");
  return reserved ? t("reserved_for") : t("unknown");
}

/** Return a cell with a task's name and id; its `show` takes a holder or a waiter. */
export function taskCell() {
  const name = element("strong");
  const id = element("code");
  const cell = element("th", { scope: "row" }, name, " ", id);
  cell.show = (one) => {
    write(name, taskName(one));
    write(id, visible(one.task_id));
  };
  return cell;
}

/** Return a link to the holders or the waiters of a limit. */
export const linkOf = (view, limit, text) => element("a", { href: `#${view}/${encodeURIComponent(limit)}` }, text);

/** Return the id of the task that a token's name begins with. */
export const taskOf = (token) => token.replace(/:reserved$/, "").replace(/:[^:]*$/, "");

/** Return the address of the view that says what a task does. */
export const whyAddress = (task) => `#why/${encodeURIComponent(task)}`;

/** Return a cell with limits; its `show` takes their names, and how many places are taken in them. */
export function limitsCell() {
  const list = element("ul", { class: "tags" });
  const places = element("span", { class: "badge" });
  const cell = element("td", {}, list, places);
  let names = "";
  cell.show = (limits, weight = 1) => {
    shown(places, weight > 1);
    write(places, t("places", { count: count(weight) }));
    if (names === (names = JSON.stringify(limits))) return;
    list.replaceChildren(...limits.map((limit) => element("li", {}, linkOf("running", limit, visible(limit)))));
  };
  return cell;
}

/** Return a bar; its `show` takes a share from 0 to 1 and a state for its colour. */
export function bar(kind) {
  const fill = element("span", { class: "fill" });
  const node = element("span", { class: `bar ${kind}`, "aria-hidden": "true" }, fill);
  node.show = (share, state = "") => {
    fill.style.width = `${Math.min(1, share) * 100}%`;
    node.dataset.state = state;
  };
  return node;
}
