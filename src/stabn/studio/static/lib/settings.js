// What the browser remembers of a person's choices. Where storage is forbidden they last as long as the page.

const session = new Map();

/** @template T @param {string} name @param {T} otherwise @returns {T} */
export function recall(name, otherwise) {
  try {
    const text = localStorage.getItem(`stabn-${name}`);
    if (text !== null) return typeof otherwise === "string" ? text : JSON.parse(text);
  } catch {
    // fall through
  }
  return session.has(name) ? session.get(name) : otherwise;
}

/** @param {string} name @param {any} value null forgets it */
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
