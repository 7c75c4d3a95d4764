// The view that says why one task waits: "#why/<task id>", an address to pass on.

import { cancelTask, release } from "./actions.js";
import { adaptiveBadge, allows } from "./adaptive.js";
import { linkOf, taskName } from "./cells.js";
import { ApiError, ask, query, waiterPath } from "./client.js";
import { byId, changing, element, keepRows, shown, write } from "./dom.js";
import { count, duration, now, time, timeElement } from "./format.js";
import { momentsList } from "./moments.js";
import { visible } from "./names.js";
import { reasonsText } from "./reasons.js";
import { t } from "./texts.js";

/** A task that does not wait is asked about less often: browsers log each 404. */
const REST = 10_000; // ms

const answerBox = byId("why-answer");
let task = null;
let absent = null;
const name = element("strong");
const id = element("code");
const title = element("p", {}, name, " ", id);
const lines = element("div");
const runs = element("ul", { class: "holders" });
const cancel = changing(t("cancel_task"), () => cancelTask(task), true);
answerBox.append(title, lines, runs, cancel);

export const why = {
  async read(taskId, signal) {
    if (absent?.taskId !== taskId || performance.now() > absent.until) {
      absent = null;
      try {
        return { taskId, found: (await ask("GET", waiterPath(taskId), { signal })).data };
      } catch (error) {
        // "It does not wait" is an answer too.
        if (!(error instanceof ApiError) || error.code !== "not_waiting") throw error;
        absent = { taskId, message: error.message, until: performance.now() + REST };
      }
    }
    const { tokens } = (await ask("GET", query("/tokens", { task: taskId }), { signal })).data;
    return { taskId, found: null, message: absent.message, tokens };
  },
  show({ taskId, found, message, tokens = [] }) {
    task = found;
    write(name, visible(found?.task ?? tokens[0]?.task ?? t("task")));
    // It may have been asked for by its first characters.
    write(id, visible(found?.task_id ?? tokens[0]?.task_id ?? taskId));
    const texts = found ? sentences(found) : [message, ...(tokens.length ? [t("why_runs")] : [])];
    if (texts.join() !== [...lines.children].map((line) => line.textContent).join()) {
      lines.replaceChildren(...texts.map((text) => element("p", {}, text)));
    }
    keepRows(runs, tokens, (one) => one.token, makeHolder);
    shown(cancel, found !== null && !found.handed_over);
    shown(byId("why-limits"), found !== null);
    keepRows(byId("why-rows"), found ? blockersFirst(found) : [], (one) => one.limit, makeRow);
  },
};

/** Return its limits: those that block it in the order of the answer above them, then the others. */
function blockersFirst({ limits, blockers = [] }) {
  const order = new Map(blockers.map(({ limit }, index) => [limit, index]));
  const place = ({ limit }) => order.get(limit) ?? blockers.length;
  // A limit with room for others may have too little for a heavy task.
  const full = new Set(blockers.filter(({ reason }) => reason === "full").map(({ limit }) => limit));
  return [...limits].sort((one, other) => place(one) - place(other)).map((one) => ({ ...one, blocks: full.has(one.limit) }));
}

function sentences(found) {
  if (found.handed_over) {
    const until = found.reserved_until;
    return [t("why_handed_over"), ...(until === null ? [] : [t("why_reserved_until", { until: time(until) })])];
  }
  return [
    t("why_answer", { reason: reasonsText(found) }),
    t("why_place", { since: time(found.since), duration: duration(now() - found.since), position: count(found.position) }),
    ...(found.given_up_at ? [t("why_given_up_at", { at: time(found.given_up_at) })] : []),
  ];
}

function stateOf(one) {
  const { paused, kept, full, current, blocks } = one;
  const most = allows(one);
  if (full && !paused && !(most && current >= most)) return ["full", t("shut")];
  if (paused) return ["paused", t("paused")];
  if (kept) return ["full", t("kept")];
  if (full) return ["full", t("full")];
  return blocks ? ["full", t("too_full")] : ["room", t("room")];
}

function makeRow({ limit }) {
  const state = element("span", { class: "badge" });
  const used = element("span");
  const adapts = adaptiveBadge(limit);
  const moments = momentsList();
  const holders = element("ul", { class: "holders" });
  const row = element("tr", {}, element("th", { scope: "row" }, linkOf("running", limit, limit)),
    element("td", {}, state), element("td", {}, element("div", {}, used, " ", adapts, moments)), element("td", {}, holders));
  row.show = (one) => {
    const [kind, text] = stateOf(one);
    state.dataset.state = kind;
    write(state, text);
    const most = allows(one);
    write(used, t(most ? "used_of" : "used_unlimited", { current: count(one.current), max: count(most) }));
    adapts.show(one);
    moments.show(one);
    // Who goes first after a refusal holds it in the others' way too.
    keepRows(holders, [...(one.probe ? [one.probe] : []), ...one.holders], (holder) => holder.token, makeHolder);
  };
  return row;
}

function makeHolder(holder) {
  const who = element("span");
  const since = timeElement();
  const letGo = changing(t("release"), () => release(holder), true);
  letGo.setAttribute("aria-label", `${t("release")}: ${visible(holder.token)}`);
  const places = (holder.weight ?? 1) > 1 ? element("span", { class: "badge" }, t("places", { count: count(holder.weight) })) : null;
  const item = element("li", {}, element("span", {}, element("strong", {}, taskName(holder)), " ", element("code", {}, visible(holder.task_id))), places, who, since, letGo);
  item.show = (one) => {
    write(who, one.reserved ? t("reserved") : visible(one.worker ?? t("unknown")));
    since.show(one.since, one.since === null ? "" : t("for_duration", { duration: duration(now() - one.since) }));
  };
  return item;
}
