// The view of the configuration, and of its history.

import { desk, editLimit, editTimeout, removeEntry, reset, resume, toggle } from "./actions.js";
import { editAdaptive, removeAdaptive, setAdaptive } from "./adaptiveconfig.js";
import { editBounds, removeBounds, setBounds } from "./bounds.js";
import { ask } from "./client.js";
import { byId, changing, element, keepRows, shown, write } from "./dom.js";
import { count } from "./format.js";
import { actionRow, changesTo, historyRow } from "./history.js";
import { entriesOf, maxOf } from "./limitnames.js";
import { editRates, removeRates, setRates } from "./rates.js";
import { fairOf, removeShares, setShares, sharesText } from "./shares.js";
import { t } from "./texts.js";
import { adaptiveText, boundsText, maxText, ratesText } from "./values.js";

/** How many settings are shown at most: thousands of accounts may have limits of their own. */
const ROWS = 200;

const filter = byId("config-filter");
let last = null;

byId("reset").addEventListener("click", () => last && reset(changesTo(last.defaults)));
byId("set-rates").addEventListener("click", setRates);
byId("set-adaptive").addEventListener("click", setAdaptive);
byId("set-bounds").addEventListener("click", setBounds);
byId("set-shares").addEventListener("click", () => setShares());
filter.addEventListener("input", () => last && showSettings());

export const configuration = {
  async read(_, signal, asked) {
    const [{ version }, { data: { actions } }] = await Promise.all([asked, ask("GET", "/actions", { signal })]);
    // A version is a whole configuration: read them only when there is a new one.
    if (last?.version === version) return { ...last, actions };
    const { versions, defaults } = (await ask("GET", "/config/history", { signal })).data;
    return { version, versions, defaults, actions, config_problem: versions[0]?.problem };
  },
  show(answer) {
    last = answer;
    const { versions, actions } = answer;
    write(byId("config-version"), t("config_version", { version: (desk.version ?? "").replace(/^(W\/)?"|"$/g, "") }));
    showSettings();
    shown(byId("history-table"), versions.length > 0);
    shown(byId("history-none"), versions.length === 0);
    // Where an invalid one was written by hand, the version before it stayed in force.
    const inForce = versions.find((one) => !one.problem)?.version;
    const rows = versions.map((one, place) => ({ ...one, inForce: one.version === inForce, isLast: place === 0 }));
    keepRows(byId("history-rows"), rows, (one) => one.version, historyRow);
    shown(byId("actions"), actions.length > 0);
    keepRows(byId("actions-rows"), actions, (one) => `${one.at} ${one.subject}`, actionRow);
  },
};

function showSettings() {
  const wanted = filter.value.trim().toLowerCase();
  const found = settingsOf(desk.config).filter((one) => one.name.toLowerCase().includes(wanted));
  keepRows(byId("config-rows"), found.slice(0, ROWS), (one) => one.name, makeRow);
  const more = found.length - ROWS;
  shown(byId("config-more"), more > 0);
  write(byId("config-more"), t("more_limits", { count: count(more) }));
}

/** Return what is set: `{name, note, value, actions: [[text, function, danger], ...]}`. */
function settingsOf(config) {
  const { enabled, timeout, paused = [], rates = {}, adaptive = {}, waiting = {} } = config;
  const flip = enabled ? [t("switch_off"), () => toggle(false), true] : [t("switch_on"), () => toggle(true)];
  return [
    { name: "enabled", value: enabled ? t("on") : t("off"), actions: [flip] },
    { name: "timeout", value: t("seconds", { count: count(timeout) }), actions: [[t("edit"), editTimeout]] },
    ...paused.map((limit) => ({
      name: `paused ${limit}`, value: t("paused"), actions: [[t("resume"), () => resume(limit)]],
    })),
    ...Object.entries(rates).map(([limit, some]) => ({
      name: `rates ${limit}`,
      note: limit.endsWith(":*") ? t("each_of_them") : "",
      value: ratesText(some),
      actions: [[t("edit"), () => editRates(limit)], [t("remove"), () => removeRates(limit), true]],
    })),
    ...Object.entries(adaptive).map(([limit, some]) => ({
      name: `adaptive ${limit}`,
      note: limit.endsWith(":*") ? t("adaptive_each") : "",
      value: adaptiveText(some),
      actions: [[t("edit"), () => editAdaptive(limit)], [t("remove"), () => removeAdaptive(limit), true]],
    })),
    ...Object.entries(waiting).map(([limit, some]) => ({
      name: `waiting ${limit}`,
      note: limit.endsWith(":*") ? t("bounds_each") : "",
      value: boundsText(some),
      actions: [[t("edit"), () => editBounds(limit)], [t("remove"), () => removeBounds(limit), true]],
    })),
    ...fairOf(config).map(([dimension, weights]) => ({
      name: `fair ${dimension}`,
      value: sharesText(weights),
      actions: [[t("edit"), () => setShares(dimension)], [t("remove"), () => removeShares(dimension), true]],
    })),
    ...entriesOf(config).map(([limit, removable]) => ({
      name: limit,
      note: limit.endsWith(":*") ? t("any_other") : "",
      value: maxText(maxOf(limit, config)),
      actions: [
        [t("edit"), () => editLimit(limit)],
        ...(removable ? [[t("remove"), () => removeEntry(limit), true]] : []),
      ],
    })),
  ];
}

function makeRow({ name, note = "" }) {
  const value = element("td");
  const buttons = element("td", { class: "buttons", "data-change": "" });
  let texts = "";
  const row = element("tr", {}, element("th", { scope: "row" }, element("code", {}, name), " ", element("span", { class: "aside" }, note)), value, buttons);
  row.show = (one) => {
    write(value, one.value);
    if (texts === (texts = one.actions.map(([text]) => text).join())) return;
    buttons.replaceChildren(...one.actions.map(([text, act, danger]) => {
      const button = changing(text, act, danger);
      button.setAttribute("aria-label", `${text}: ${name}`);
      return button;
    }));
  };
  return row;
}
