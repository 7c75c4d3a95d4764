// Polls as long as the page is visible.

const EVERY = 2_000; // ms
const AT_MOST = 30_000;

/**
 * Return a poller, asleep until `now` is called.
 *
 * @param read reads and shows; is given a signal that says when nobody needs that any more.
 * @param failed is given its error, and the milliseconds until the next try.
 * @param slept is told when the page is hidden.
 */
export function createPoller({ read, failed, slept }) {
  let timer = null;
  let reading = null;
  let errors = 0;

  function stop() {
    clearTimeout(timer);
    reading?.abort();
    reading = null;
  }

  async function now() {
    stop();
    if (document.hidden) return;
    const mine = (reading = new AbortController());
    let pause = EVERY;
    try {
      await read(mine.signal);
      errors = 0;
    } catch (error) {
      if (mine.signal.aborted) return;
      errors += 1;
      pause = Math.min(EVERY * 2 ** errors, AT_MOST);
      failed(error, pause);
    }
    if (reading === mine) timer = setTimeout(now, pause);
  }

  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) now();
    else {
      stop();
      slept();
    }
  });
  return { now, stop };
}
