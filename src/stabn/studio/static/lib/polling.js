// Polling every few seconds, and storing a page's choices in its address.

/**
 * Call `work` periodically, one call at a time; not while the page is hidden, and at once when it is visible again.
 * After a failure the pause doubles.
 * @param {() => Promise<void>} work
 * @param {() => number} pause milliseconds until the next call
 * @returns {{now: () => void, stop: () => void}}
 */
export function startPolling(work, pause) {
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
      failures += 1; // the header shows when the studio does not answer
    } finally {
      busy = false;
      plan();
    }
  }
  const onVisibilityChange = () => (document.hidden ? clearTimeout(timer) : run());
  document.addEventListener("visibilitychange", onVisibilityChange);
  plan();
  return {
    now: () => void run(),
    stop() {
      stopped = true;
      clearTimeout(timer);
      document.removeEventListener("visibilitychange", onVisibilityChange);
    },
  };
}

/**
 * Store choices in the address, so that reloading and going back restore them; adds no entry to the history.
 * @param {string} path such as "/data"
 * @param {Record<string, string|number>} choices empty ones and zeros are left out
 */
export function storeInAddress(path, choices) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(choices)) if (value) query.set(name, String(value));
  const text = query.toString();
  history.replaceState(history.state, "", `#${path}${text ? `?${text}` : ""}`);
}

/** Set the order in which the editor goes to the next and previous clip. @param {string[]} ids */
export function storeOrder(ids) {
  try {
    sessionStorage.setItem("stabn-queue", JSON.stringify(ids));
  } catch {
    // storage is forbidden: the editor follows the server's order
  }
}
