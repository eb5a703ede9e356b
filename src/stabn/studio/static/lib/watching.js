// Looking again every few seconds, and keeping a page's choices in its address.

/**
 * Call `work` again and again, never twice at once; not while the page is hidden, and at once when it is seen again.
 * What fails is tried again, later each time.
 * @param {() => Promise<void>} work
 * @param {() => number} pause milliseconds until the next call
 * @returns {{now: () => void, stop: () => void}}
 */
export function every(work, pause) {
  let timer = 0;
  let busy = false;
  let stopped = false;
  let failures = 0;
  const plan = () => {
    clearTimeout(timer);
    if (!stopped && !document.hidden) timer = setTimeout(run, pause() * Math.min(8, 2 ** failures));
  };
  async function run() {
    clearTimeout(timer);
    if (busy || stopped) return;
    busy = true;
    try {
      await work();
      failures = 0;
    } catch {
      failures += 1; // the header says when the studio does not answer
    } finally {
      busy = false;
      plan();
    }
  }
  const seen = () => (document.hidden ? clearTimeout(timer) : run());
  document.addEventListener("visibilitychange", seen);
  plan();
  return {
    now: () => void run(),
    stop() {
      stopped = true;
      clearTimeout(timer);
      document.removeEventListener("visibilitychange", seen);
    },
  };
}

/**
 * Keep choices in the address, so that reloading and going back find them; no new entry in the history.
 * @param {string} path such as "/data"
 * @param {Record<string, string|number>} choices empty ones and zeros are left out
 */
export function keepInAddress(path, choices) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(choices)) if (value) query.set(name, String(value));
  const text = query.toString();
  history.replaceState(history.state, "", `#${path}${text ? `?${text}` : ""}`);
}

/** Let the editor's next and previous follow this list. @param {string[]} ids */
export function rememberOrder(ids) {
  try {
    sessionStorage.setItem("stabn-queue", JSON.stringify(ids));
  } catch {
    // forbidden: the editor follows the server's order
  }
}
