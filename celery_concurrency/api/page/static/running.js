// The view of the holders of tokens.

import { desk, release } from "./actions.js";
import { limitsCell, taskCell } from "./cells.js";
import { ask, query } from "./client.js";
import { byId, changing, element, keepRows, shown, write } from "./dom.js";
import { duration, now, timeElement } from "./format.js";
import { visible } from "./names.js";
import { createPages } from "./pages.js";
import { t } from "./texts.js";

const pages = createPages("running", () => desk.refresh());

/** Of what the view is: a limit, or a worker where it begins with "@", as no limit does. */
const asked = (of) => (of.startsWith("@") ? { worker: of.slice(1) } : { limit: of });

export const running = {
  async read(of, signal) {
    pages.enter(of);
    const { cursor } = pages;
    return (await ask("GET", query("/tokens", { ...asked(of), cursor }), { signal })).data;
  },
  show(answer) {
    pages.show(answer, t("running"), (of) => t("running_of", { limit: Object.values(asked(of))[0] }));
    shown(byId("running-table"), answer.tokens.length > 0);
    shown(byId("running-none"), answer.tokens.length === 0);
    keepRows(byId("running-rows"), answer.tokens, (one) => one.token, makeRow);
  },
};

function makeRow() {
  let holder = null;
  const task = taskCell();
  const limits = limitsCell();
  const worker = element("td");
  const since = timeElement();
  const expires = timeElement();
  const name = element("bdi");
  const token = element("code", { class: "token" }, name);
  const letGo = changing(t("release"), () => release(holder), true);
  const row = element("tr", {}, task, limits, worker,
    element("td", {}, since), element("td", {}, expires), element("td", {}, token),
    element("td", { class: "buttons", "data-change": "" }, letGo));
  row.show = (one) => {
    holder = one;
    task.show(one);
    limits.show(one.limits, one.weight);
    write(worker, workerText(one));
    since.show(one.since, one.since === null ? "" : t("for_duration", { duration: duration(now() - one.since) }));
    expires.show(one.expires, untilText(one.expires));
    write(name, visible(one.token));
    token.setAttribute("title", visible(one.token));
    shown(letGo, !one.kept); // it has no holder
    letGo.setAttribute("aria-label", `${t("release")}: ${visible(one.token)}`);
  };
  return row;
}

function workerText({ worker, reserved, kept }) {
  if (kept) return t("passed_over");
  return reserved ? t("reserved") : visible(worker ?? t("unknown"));
}

export function untilText(at) {
  const left = at - now();
  return left > 0 ? t("expires_in", { duration: duration(left) }) : t("expired");
}
