// The view of the waiters: for what they wait, and since when.

import { cancelAll, cancelTask, desk } from "./actions.js";
import { limitsCell, taskCell, whyAddress } from "./cells.js";
import { ask, query } from "./client.js";
import { byId, changing, element, keepRows, shown, write } from "./dom.js";
import { count, duration, now, timeElement } from "./format.js";
import { visible } from "./names.js";
import { createPages } from "./pages.js";
import { reasonText } from "./reasons.js";
import { t } from "./texts.js";

const pages = createPages("waiting", () => desk.refresh());
let shownLimit = "";

byId("waiting-cancel").addEventListener("click", () => cancelAll(shownLimit, pages.total));
byId("ask-why").addEventListener("submit", (event) => {
  event.preventDefault();
  location.hash = whyAddress(byId("ask-task").value.trim());
});

export const waiting = {
  async read(limit, signal) {
    pages.enter(limit);
    const { cursor } = pages;
    return { ...(await ask("GET", query("/waiting", { limit, cursor }), { signal })).data, limit };
  },
  show(answer) {
    shownLimit = answer.limit;
    const some = answer.waiting.length > 0;
    pages.show(answer, t("waiting"), (limit) => t("waiting_of", { limit }));
    shown(byId("waiting-cancel"), some && answer.limit !== "");
    shown(byId("waiting-table"), some);
    shown(byId("waiting-note"), some);
    shown(byId("waiting-none"), !some);
    keepRows(byId("waiting-rows"), answer.waiting, keyOf, makeRow);
  },
};

// Several messages of one task may wait.
const keyOf = ({ task_id: taskId, since }) => `${taskId} ${since}`;

function makeRow({ task_id: taskId }) {
  let waiter = null;
  const task = taskCell();
  const position = element("td", { class: "number" });
  const reason = element("td", { class: "reason" });
  const limits = limitsCell();
  const since = timeElement();
  const why = element("a", { class: "button", href: whyAddress(taskId), "aria-label": `${t("why")} ${visible(taskId)}` }, t("why"));
  const cancel = changing(t("cancel_task"), () => cancelTask(waiter), true);
  cancel.setAttribute("aria-label", `${t("cancel_task")}: ${visible(taskId)}`);
  const row = element("tr", {}, task, position, reason, limits, element("td", {}, since),
    element("td", { class: "buttons" }, why, cancel));
  row.show = (one) => {
    waiter = one;
    task.show(one);
    write(position, count(one.position));
    write(reason, reasonText(one.blocked_by));
    limits.show(one.limits, one.weight);
    since.show(one.since, t("waits_for_duration", { duration: duration(now() - one.since) }));
  };
  return row;
}
