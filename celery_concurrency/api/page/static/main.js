// The page: it shows one of the views, and reads it again and again.

import { desk } from "./actions.js";
import { adaptive } from "./adaptive.js";
import { ApiError, ask } from "./client.js";
import { configuration } from "./configuration.js";
import { byId, shown, write } from "./dom.js";
import { limits } from "./limits.js";
import { clearMessage } from "./messages.js";
import { createPoller } from "./poller.js";
import { problemLines, showProblem } from "./problems.js";
import { running } from "./running.js";
import { caller, token } from "./session.js";
import { statistics } from "./statistics.js";
import { t } from "./texts.js";
import { waiting } from "./waiting.js";
import { why } from "./why.js";
import { workers } from "./workers.js";

const VIEWS = { limits, adaptive, running, waiting, why, workers, statistics, configuration };
/** Views without a tab of their own: that of which they are a part, and their title. */
const PARTS = new Map([["why", ["waiting", "why_title"]], ["adaptive", ["limits", "adaptive_title"]]]);
let here = { name: "limits", argument: "" };

const poller = createPoller({ read, failed, slept: () => state("asleep") });
desk.refresh = () => poller.now();

function state(name) {
  write(byId("state"), t(name));
  byId("state").dataset.state = name;
}

async function read(signal) {
  const { name, argument } = here;
  if (!caller.known) {
    const { data } = await ask("GET", "/caller", { signal });
    caller.take(data);
  }
  shown(byId("role"), !caller.known.may_change);
  const asked = ask("GET", "/config", { signal });
  const [config, answer] = await Promise.all([asked, VIEWS[name].read(argument, signal, asked)]);
  if (signal.aborted) return;
  Object.assign(desk, { config: config.data, version: config.version });
  open(name);
  VIEWS[name].show(answer);
  notice(answer.config_problem);
  showProblem([]);
  state("live");
}

/** Show that limits are off, and what is wrong with a configuration written by hand. */
function notice(problem) {
  const texts = [
    ...(desk.config.enabled ? [] : [t("switched_off")]),
    ...(problem ? [t("config_problem", { problem })] : []),
  ];
  write(byId("notice"), texts.join(" "));
  shown(byId("notice"), texts.length > 0);
}

function failed(error, pause) {
  if (!(error instanceof ApiError)) {
    showProblem([String(error)]);
    throw error;
  }
  if (error.status === 401) {
    signIn();
    return;
  }
  state("stale");
  byId("state").append(` · ${t("read_again_in", { seconds: Math.round(pause / 1000) })}`);
  showProblem(problemLines(error));
}

/** Show one of the views; its data is read with the next poll. */
function open(name) {
  for (const section of document.querySelectorAll("main > section")) {
    shown(section, section.id === `view-${name}`);
  }
}

function signIn() {
  poller.stop();
  const asked = token.get() !== null;
  token.forget();
  caller.take(null);
  shown(byId("sign-out"), false);
  shown(byId("role"), false);
  open("sign-in");
  write(byId("state"), "");
  showProblem(asked ? [t("wrong_token")] : []);
  byId("access-token").focus();
}

/** Return the view that the address's end names; people may have typed it. */
function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** Return the view of this name; an address that lost its task's id leads to the list of them. */
function viewOf(name, argument) {
  if (name === "why" && !argument) return "waiting";
  return Object.hasOwn(VIEWS, name) ? name : "limits";
}

function go() {
  const [name, ...rest] = location.hash.slice(1).split("/");
  scrollTo(0, 0); // not where the other view was scrolled to
  const argument = decoded(rest.join("/"));
  here = { name: viewOf(name, argument), argument };
  const [tab, title] = PARTS.get(here.name) ?? [here.name, here.name];
  for (const link of document.querySelectorAll("nav.views a")) {
    if (link.hash === `#${tab}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  clearMessage();
  showProblem([]);
  document.title = `${t(title)} – ${t("title")}`;
  poller.now();
}

byId("sign-in").addEventListener("submit", (event) => {
  event.preventDefault();
  token.set(byId("access-token").value.trim());
  byId("access-token").value = "";
  shown(byId("sign-out"), true);
  poller.now();
});
byId("sign-out").addEventListener("click", () => {
  token.forget();
  location.reload();
});
byId("skip").addEventListener("click", (event) => {
  event.preventDefault(); // after the '#' comes the view's name
  byId("main").focus();
});
for (const link of document.querySelectorAll("nav.languages a")) {
  link.addEventListener("click", () => {
    link.hash = location.hash;
  });
}
window.addEventListener("hashchange", go);
shown(byId("sign-out"), token.get() !== null);
go();
