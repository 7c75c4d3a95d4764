// The dialog: it says what will happen, and does it on confirmation.

import { ApiError } from "./client.js";
import { byId, element, focusTitle, shown, write } from "./dom.js";
import { count } from "./format.js";
import { clearMessage } from "./messages.js";
import { problemLines } from "./problems.js";
import { caller, operator } from "./session.js";
import { t } from "./texts.js";

const dialog = byId("dialog");
const form = byId("dialog-form");
const doIt = byId("dialog-do");
let current = null;
let opener = null;

/**
 * Ask before something is done.
 *
 * @param title what is asked about.
 * @param label what the button that does it says.
 * @param danger it can't be undone.
 * @param fields names to inputs or selects, in labels of these texts: `{name: {label, input}}`. Beside them
 *     `problemOf`: given a value, returns what is wrong with it, which is said at the field; and `path`: that
 *     of what it sets, so that the API's problem with that is said there too.
 * @param says given the fields' values, returns what will happen, a paragraph each.
 * @param act given them, does it; returns what changed, a paragraph each.
 * @param lost is called when the configuration was changed meanwhile.
 * @param done is given what `act` returned.
 */
export function confirm(question) {
  clearMessage(); // of another change
  current = question;
  opener = document.activeElement;
  write(byId("dialog-title"), question.title);
  write(doIt, question.label);
  doIt.className = question.danger ? "danger main" : "main";
  shown(doIt, true);
  write(byId("dialog-close"), t("keep"));
  byId("dialog-fields").replaceChildren(...Object.entries(question.fields ?? {}).map(([name, field]) => fieldNode(name, field)));
  byId("operator").value = operator.get();
  shown(byId("dialog-operator"), !caller.known?.operator);
  shown(byId("dialog-problem"), false);
  say();
  dialog.showModal();
  const first = Object.values(question.fields ?? {})[0]?.input ?? byId("dialog-close");
  first.focus();
  first.select?.();
}

const saysProblems = ({ input, problemOf }) => problemOf || input.type === "number";

/** Return what is wrong with a field's value; "" where nothing is, or where it is clear. */
function problemIn({ input, problemOf }) {
  input.setCustomValidity("");
  const problem = problemOf?.(input.value.trim()) ?? "";
  // The browser's own text would be in its own language.
  if (problem || input.step !== "1" || input.validity.valid) return problem;
  return t("number_bounds", { least: count(Number(input.min)), most: count(Number(input.max)) });
}

function fieldNode(name, field) {
  const { label, input } = field;
  const both = element("label", {}, label, input);
  if (!saysProblems(field)) return both;
  const problem = element("p", { class: "field-problem", id: `problem-${name}`, "aria-live": "polite" });
  input.setAttribute("aria-describedby", problem.id);
  return element("div", {}, both, problem);
}

/** Say what is wrong at a field; "" where nothing is. */
function sayAt(name, input, text) {
  input.setCustomValidity(text);
  input.setAttribute("aria-invalid", String(text !== ""));
  write(byId(`problem-${name}`), text);
}

function values() {
  return Object.fromEntries(
    Object.entries(current.fields ?? {}).map(([name, { input }]) => [name, input.value.trim()]),
  );
}

function isComplete() {
  return Object.values(current.fields ?? {}).every(({ input }) => input.checkValidity());
}

function say() {
  for (const [name, field] of Object.entries(current.fields ?? {})) {
    if (saysProblems(field)) sayAt(name, field.input, problemIn(field));
  }
  const lines = isComplete() ? current.says(values()) : [];
  byId("dialog-says").replaceChildren(...lines.map((line) => element("p", {}, line)));
  doIt.disabled = !isComplete();
}

async function submit(event) {
  event.preventDefault();
  if (doIt.disabled || doIt.hidden) return;
  operator.set(byId("operator").value.trim());
  const asked = current;
  doIt.disabled = true;
  try {
    const done = await asked.act(values());
    dialog.close();
    asked.done(done);
  } catch (error) {
    refused(error, asked);
  }
}

function refused(error, asked) {
  if (!(error instanceof ApiError)) throw error;
  const lines = problemLines(atFields(error, asked));
  if (error.status === 412) {
    // What would happen now is not what was confirmed.
    lines.unshift(t("changed_meanwhile"));
    shown(doIt, false);
    write(byId("dialog-close"), t("close"));
    byId("dialog-close").focus();
    asked.lost();
  }
  byId("dialog-problem").replaceChildren(...lines.map((line) => element("p", {}, line)));
  shown(byId("dialog-problem"), true);
  doIt.disabled = false;
}

/** Say those details of an error at a field that are about what it sets; return the error with the others. */
function atFields(error, { fields = {} }) {
  let { details } = error;
  for (const [name, { input, path }] of Object.entries(fields)) {
    const about = ({ field }) => path && field?.startsWith(path);
    const some = details.filter(about);
    if (!some.length) continue;
    sayAt(name, input, some.map(({ problem }) => problem).join("; "));
    details = details.filter((one) => !about(one));
    input.focus();
  }
  return { message: error.message, details };
}

/** Keep Tab inside: from the browser's dialog it would go on to the address bar. */
function keepInside(event) {
  if (event.key !== "Tab") return;
  const all = [...dialog.querySelectorAll("input, select, button")].filter((one) => !one.disabled && one.checkVisibility());
  const [first, last] = [all[0], all.at(-1)];
  if (document.activeElement === (event.shiftKey ? first : last)) {
    event.preventDefault();
    (event.shiftKey ? last : first).focus();
  }
}

function closed() {
  // The button may be gone with its row.
  if (opener?.isConnected && opener.checkVisibility()) opener.focus();
  else focusTitle();
}

form.addEventListener("submit", submit);
form.addEventListener("input", say);
byId("dialog-close").addEventListener("click", () => dialog.close());
dialog.addEventListener("keydown", keepInside);
dialog.addEventListener("close", closed);
