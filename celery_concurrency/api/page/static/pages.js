// Lists by pages, of all limits or of one: "#running/platform:douyin".

import { byId, element, shown, write } from "./dom.js";
import { count } from "./format.js";
import { t } from "./texts.js";

/**
 * Return where one is in a list.
 *
 * @param name of the view; its elements' ids begin with it.
 * @param refresh reads the view again.
 */
export function createPages(name, refresh) {
  let limit = null;
  let next = null;
  const pages = {
    cursor: "",
    total: null,
    /** Go to the list of a limit, to its first page if it is another. */
    enter(argument) {
      if (argument !== limit) Object.assign(pages, { cursor: "", total: null });
      limit = argument;
    },
    /** Show whose list this is, how long it is, and links to the other pages. */
    show(answer, title, titleOf) {
      next = answer.next;
      if (answer.total !== null) pages.total = answer.total;
      write(byId(`title-${name}`), limit ? titleOf(limit) : title);
      write(byId(`${name}-total`), pages.total === null ? "" : t("total", { count: count(pages.total) }));
      shown(byId(`${name}-all`), limit !== "");
      shown(first, pages.cursor !== "");
      shown(following, next !== null);
    },
  };
  const go = (cursor) => {
    pages.cursor = cursor;
    byId(`title-${name}`).focus();
    refresh();
  };
  const first = element("button", { type: "button", onclick: () => go("") }, t("first_page"));
  const following = element("button", { type: "button", onclick: () => go(next) }, t("next_page"));
  byId(`${name}-pages`).append(first, following);
  return pages;
}
