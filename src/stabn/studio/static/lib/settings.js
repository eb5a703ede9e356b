// A person's choices in the browser's storage; if storage is forbidden, they last as long as the page.

const session = new Map();

/** @template T @param {string} name @param {T} fallback @returns {T} */
export function recall(name, fallback) {
  try {
    const text = localStorage.getItem(`stabn-${name}`);
    if (text !== null) return typeof fallback === "string" ? text : JSON.parse(text);
  } catch {
    // fall through
  }
  return session.has(name) ? session.get(name) : fallback;
}

/** @param {string} name @param {any} value null removes it */
export function remember(name, value) {
  if (value === null) session.delete(name);
  else session.set(name, value);
  try {
    if (value === null) localStorage.removeItem(`stabn-${name}`);
    else localStorage.setItem(`stabn-${name}`, typeof value === "string" ? value : JSON.stringify(value));
  } catch {
    // kept in `session`
  }
}
