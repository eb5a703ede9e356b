// Creates elements. Text only ever becomes text nodes, so that a name, label or comment can never become markup.

/**
 * Create an element: `on…` functions become listeners, booleans switch attributes, `dataset` and `style` are objects
 * (styles go through the CSSOM, which the page's policy allows; a style attribute it would not).
 * @param {string} tag
 * @param {Record<string, any>} [attributes]
 * @param {...(Node|string|number|null|undefined|false|Array)} children
 * @returns {HTMLElement}
 */
export function element(tag, attributes = {}, ...children) {
  const created = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on") && typeof value === "function") created.addEventListener(name.slice(2).toLowerCase(), value);
    else if (name === "dataset") Object.assign(created.dataset, value);
    else if (name === "style") for (const [key, text] of Object.entries(value)) created.style.setProperty(key, text);
    else if (name === "value" || name === "checked" || name === "selected") created[name] = value;
    else created.setAttribute(name, value === true ? "" : String(value));
  }
  created.append(
    ...children
      .flat(Infinity)
      .filter((child) => child !== null && child !== undefined && child !== false)
      .map(node),
  );
  return created;
}

const node = (child) => (child instanceof Node ? child : document.createTextNode(String(child)));

/**
 * A small "?" that shows an explanation on hover, focus and tap.
 * @param {string} text
 * @param {string} [where] classes: "below" opens downwards, "start" towards the right
 */
export function tip(text, where = "") {
  const id = `tip-${++tips}`;
  return element(
    "span",
    { class: `tip ${where}` },
    element("button", { type: "button", "aria-label": "Explain", "aria-describedby": id }, "?"),
    element("span", { role: "tooltip", id }, text),
  );
}
let tips = 0;

/**
 * A modal dialog that removes itself when it closes.
 * @param {string} title
 * @param {(close: () => void) => Array} content
 * @returns {HTMLDialogElement}
 */
export function openDialog(title, content) {
  const heading = element("h2", { id: "dialog-title" }, title);
  const dialog = /** @type {HTMLDialogElement} */ (element("dialog", { "aria-labelledby": "dialog-title" }));
  dialog.append(
    element(
      "div",
      { class: "stack" },
      heading,
      content(() => dialog.close()),
    ),
  );
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}

/** Put text on the clipboard and report it. @param {string} text @param {(message: string, kind: string) => void} notify */
export async function copy(text, notify) {
  try {
    await navigator.clipboard.writeText(text);
    notify("Copied.", "right");
  } catch {
    notify("The browser does not allow copying; select the text instead.", "error");
  }
}

const PATHS = {
  play: "M5 3.5v9l7.5-4.5z",
  pause: "M4.5 3.5h2.5v9H4.5zM9 3.5h2.5v9H9z",
  undo: "M6.5 3 3 6.5 6.5 10M3.4 6.5H9a3.5 3.5 0 0 1 0 7H6.5",
  redo: "M9.5 3 13 6.5 9.5 10M12.6 6.5H7a3.5 3.5 0 0 0 0 7h2.5",
  previous: "M10 3.5 5.5 8l4.5 4.5",
  next: "M6 3.5 10.5 8 6 12.5",
  close: "M4 4l8 8M12 4l-8 8",
  sun: "M8 5.2a2.8 2.8 0 1 0 0 5.6 2.8 2.8 0 0 0 0-5.6M8 1.5v1.5M8 13v1.5M1.5 8H3M13 8h1.5M3.4 3.4l1 1M11.6 11.6l1 1M3.4 12.6l1-1M11.6 4.4l1-1",
  moon: "M13 9.5A5.5 5.5 0 0 1 6.5 3a5.5 5.5 0 1 0 6.5 6.5z",
  auto: "M8 2.5a5.5 5.5 0 1 0 0 11zM8 2.5a5.5 5.5 0 0 1 0 11",
  eye: "M1.5 8S4 3.8 8 3.8 14.5 8 14.5 8 12 12.2 8 12.2 1.5 8 1.5 8zM8 6.2a1.8 1.8 0 1 0 0 3.6 1.8 1.8 0 0 0 0-3.6",
  person: "M8 2.5a2.7 2.7 0 1 0 0 5.4 2.7 2.7 0 0 0 0-5.4M2.8 13.5a5.2 4.2 0 0 1 10.4 0",
};
const FILLED = new Set(["play", "pause"]);

/**
 * A 16 pixel icon; it is hidden from screen readers, so its button needs a label.
 * @param {keyof typeof PATHS} name
 */
export function icon(name) {
  const created = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  const filled = FILLED.has(name);
  for (const [key, value] of Object.entries({ viewBox: "0 0 16 16", width: "16", height: "16", "aria-hidden": "true" }))
    created.setAttribute(key, value);
  for (const [key, value] of Object.entries({
    d: PATHS[name],
    fill: filled ? "currentColor" : "none",
    stroke: filled ? "none" : "currentColor",
    "stroke-width": "1.6",
    "stroke-linecap": "round",
    "stroke-linejoin": "round",
  }))
    path.setAttribute(key, value);
  created.append(path);
  return created;
}
