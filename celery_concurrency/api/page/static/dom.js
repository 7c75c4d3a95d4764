// Elements: how to make them, and how to update a list of them from data.

export const byId = (id) => document.getElementById(id);

/** Return a new element; attributes that begin with "on" are listeners, null is left out. */
export function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== null) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

/** Return a button that changes something; hidden from those who may only read. */
export function changing(text, onclick, danger = false) {
  const kind = danger ? "danger" : null;
  return element("button", { type: "button", "data-change": "", class: kind, onclick }, text);
}

/** Write a text, if it is a new one. */
export function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Show a node, or hide it. */
export function shown(node, yes) {
  node.hidden = !yes;
}

/** Focus the title of the view, where what had the focus is gone. */
export const focusTitle = () => document.querySelector("main > section:not([hidden]) h2")?.focus();

/**
 * Make a parent's rows those of the items. Rows of items that were there stay, and with
 * them the focus in them.
 *
 * @param key returns an item's key.
 * @param make returns a row, whose `show` takes an item.
 */
export function keepRows(parent, items, key, make) {
  const keys = new Set(items.map(key));
  const old = new Map();
  for (const row of [...parent.children]) {
    if (row.key === undefined) continue; // the table's head
    if (keys.has(row.key) && !old.has(row.key)) old.set(row.key, row);
    else row.remove();
  }
  let place = [...parent.children].find((row) => row.key !== undefined) ?? null;
  for (const item of items) {
    const row = old.get(key(item)) ?? Object.assign(make(item), { key: key(item) });
    old.delete(row.key); // another of the same key gets a row of its own
    if (row === place) place = row.nextElementSibling;
    else parent.insertBefore(row, place);
    nameCells(row);
    row.show(item);
  }
}

/** Give a row's cells the names of their columns: a narrow screen shows these in place of the head. */
function nameCells(row) {
  const heads = row.closest("table")?.tHead?.rows[0].cells ?? [];
  for (const cell of row.cells ?? []) cell.dataset.label ??= heads[cell.cellIndex]?.textContent ?? "";
}
