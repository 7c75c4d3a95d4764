// Who sits here: the token, the name, and what they may do.

const TOKEN = "celery-concurrency token";
const OPERATOR = "celery-concurrency operator";

// In this tab only, and sent by our own scripts only: no cookie that other pages could ride on.
export const token = {
  get: () => sessionStorage.getItem(TOKEN),
  set: (value) => sessionStorage.setItem(TOKEN, value),
  forget: () => sessionStorage.removeItem(TOKEN),
};

/** A name for the history: no secret, so it is remembered. */
export const operator = {
  get: () => localStorage.getItem(OPERATOR) ?? "",
  set: (value) => localStorage.setItem(OPERATOR, value),
};

/** What the API says of this caller: `{operator, may_change}`; null as long as it was not asked. */
export const caller = {
  known: null,
  take(answer) {
    this.known = answer;
    document.body.classList.toggle("may-change", Boolean(answer?.may_change));
  },
};
