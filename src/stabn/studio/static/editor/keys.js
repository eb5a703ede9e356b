// The editor's keys, and the dialog that shows them.

import { element, openDialog } from "../lib/dom.js";

const HELP = [
  [["1", "2", "3"], "irrelevant (0.0), may matter (0.5), matters (1.0): the selected frames, or this one"],
  [["←", "→"], "one frame back or on"],
  [["Home", "End"], "first, last frame"],
  [["Shift", "←", "→"], "select from here to there (also with Home and End)"],
  [["Ctrl", "A"], "select all frames"],
  [["Esc"], "clear the selection"],
  [["R"], "only the selected frames matter, all others do not"],
  [["N", "B"], "start from the network's scores, from blank"],
  [["F"], "fine mode: any value; then ↑ and ↓ change by 0.05"],
  [["Space"], "play, stop"],
  [["Ctrl", "Z"], "undo, without limit"],
  [["Ctrl", "Shift", "Z"], "redo (also Ctrl Y)"],
  [["C"], "write a comment"],
  [["Enter"], "save and open the next clip"],
  [["Page ↑", "Page ↓"], "previous, next clip"],
  [["?"], "these keys"],
];

/** Show the keys. */
export function showKeys() {
  if (document.querySelector("dialog[open]")) return;
  const dialog = openDialog("Keys", (close) => [
    element(
      "dl",
      { class: "keys" },
      HELP.map(([keys, text]) =>
        element(
          "div",
          {},
          element(
            "dt",
            { class: "row tight" },
            keys.map((key) => element("kbd", {}, key)),
          ),
          element("dd", {}, text),
        ),
      ),
    ),
    element(
      "p",
      { class: "muted small" },
      "With the mouse, a pen or a finger: drag over the lower track to paint, over the upper track to select.",
    ),
    element(
      "div",
      { class: "row" },
      element("span", { class: "spacer" }),
      element("button", { class: "button primary", type: "button", autofocus: true, onclick: close }, "Close"),
    ),
  ]);
  dialog.id = "keys";
}

const TEXT = new Set(["text", "number", "search", "email", "url", "password", "date", "time"]);

/** Whether the focused element handles the key itself: a text field all keys, a control those that operate it. */
function belongsToFocus(event) {
  const at = event.target;
  if (!(at instanceof Element)) return false;
  if (document.querySelector("dialog[open]")) return true;
  if (at.matches("textarea, [contenteditable]") || (at.matches("input") && TEXT.has(at.type))) return true;
  if (at.matches("select")) return !/^([123]|Escape)$/.test(event.key);
  if (at.matches("input")) return /^(Arrow|Home|End|Page| )/.test(event.key);
  if (at.matches("button, a[href], summary")) return event.key === " " || event.key === "Enter";
  return false;
}

/** @param {KeyboardEvent} event @returns {string} such as "shift+ArrowLeft", "mod+z", "1" */
export function keyName(event) {
  const digit = /^(?:Digit|Numpad)([123])$/.exec(event.code);
  const mod = event.ctrlKey || event.metaKey;
  // on many layouts digits need shift, so digits are told by the key's position, all others by their character
  const key = digit && !mod ? digit[1] : event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const shift = event.shiftKey && (key.length > 1 || mod);
  return `${event.altKey ? "alt+" : ""}${mod ? "mod+" : ""}${shift ? "shift+" : ""}${key}`;
}

/**
 * Listen to keys until the returned function is called.
 * @param {Record<string, (event: KeyboardEvent) => void>} actions by `keyName`
 */
export function listenToKeys(actions) {
  const listener = (event) => {
    if (event.defaultPrevented || event.isComposing || belongsToFocus(event)) return;
    const action = actions[keyName(event)];
    if (!action) return;
    event.preventDefault();
    action(event);
  };
  document.addEventListener("keydown", listener);
  return () => document.removeEventListener("keydown", listener);
}
