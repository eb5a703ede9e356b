// Start: session, name, header, and one screen per address after the "#".

import { address, api, request } from "./lib/api.js";
import { colours } from "./lib/colours.js";
import { element, icon, openDialog, tip } from "./lib/dom.js";
import { Outbox } from "./lib/outbox.js";
import { askName, buildHeader } from "./lib/shell.js";
import { recall, remember } from "./lib/settings.js";

/** Address after "#/" -> module with `show(root, context, params)`, and the page in the header it belongs to. */
const SCREENS = {
  "": { module: "./screens/queue.js", place: "" },
  clip: { module: "./editor/editor.js", place: "" },
  data: { module: "./screens/data.js", place: "data" },
  people: { module: "./screens/people.js", place: "people" },
  finetune: { module: "./screens/finetune.js", place: "finetune" },
  job: { module: "./screens/outcome.js", place: "finetune" },
};

const main = document.getElementById("main");
let cleanup = null;
let leaving = new AbortController();
let turn = 0;

/** What every screen receives; besides, `signal` is an AbortSignal that ends its requests when the screen is left.
 * @typedef {typeof context & {signal: AbortSignal}} Context */
const context = {
  /** answer of GET /api/session */
  session: null,
  /** The person's name, "" before it is entered. @returns {string} */
  author: () => recall("name", ""),
  /** Ask for a name if there is none yet. @returns {Promise<string>} "" if the person declines */
  name: () => (context.author() ? Promise.resolve(context.author()) : askName(context)),
  api: { ...api, address, request },
  /** @type {Outbox} */
  outbox: null,
  /** Go to an address such as "#/people" or "/people". @param {string} hash */
  go(hash) {
    const to = hash.startsWith("#") ? hash : `#${hash.startsWith("/") ? "" : "/"}${hash}`;
    if (to === location.hash) render();
    else location.hash = to;
  },
  notify,
  element,
  icon,
  tip,
  openDialog,
  colours,
  recall,
  remember,
  /** Show the current screen again, after the name or the colours have changed. */
  refresh: () => render(),
};

/**
 * Show a message below the header and announce it to screen readers. Errors stay until they are closed.
 * @param {string} text
 * @param {"info"|"right"|"error"} [kind]
 */
function notify(text, kind = "info") {
  const box = document.getElementById("messages");
  for (const old of box.children) if (old.dataset.text === text) old.remove();
  const message = element(
    "div",
    { class: "message", role: kind === "error" ? "alert" : "status", dataset: { kind, text } },
    element("span", { class: "spacer" }, text),
    element(
      "button",
      {
        class: "button quiet icon",
        type: "button",
        "aria-label": "Close this message",
        onclick: () => message.remove(),
      },
      icon("close"),
    ),
  );
  box.append(message);
  while (box.children.length > 3) box.firstElementChild.remove();
  if (kind !== "error") setTimeout(() => message.remove(), 6000);
}

function parseAddress() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  return { path: path.replace(/\/+$/, ""), params: Object.fromEntries(new URLSearchParams(query)) };
}

function messagePanel(title, text, ...more) {
  return element(
    "div",
    { class: "calm" },
    element("h1", { tabindex: "-1" }, title),
    element("p", { class: "muted" }, text),
    ...more,
  );
}

async function render() {
  const thisTurn = ++turn; // a screen that loads late must not replace a newer one
  const { path, params } = parseAddress();
  const screen = SCREENS[path];
  try {
    cleanup?.();
  } catch (error) {
    console.error(error);
  }
  cleanup = null;
  leaving.abort();
  leaving = new AbortController();
  buildHeader(context, screen?.place);
  const root = element("div", { class: `screen screen-${path || "queue"}` });
  main.replaceChildren(root);
  if (!screen) {
    root.append(
      messagePanel(
        "Page not found",
        "The address is not one of the studio's.",
        element("a", { class: "button primary", href: "#/" }, "To the queue"),
      ),
    );
    return;
  }
  try {
    const module = await import(screen.module);
    if (thisTurn !== turn) return;
    const close = await module.show(root, Object.create(context, { signal: { value: leaving.signal } }), params);
    if (thisTurn !== turn) close?.();
    else cleanup = close ?? null;
  } catch (error) {
    if (thisTurn !== turn) return;
    console.error(error);
    root.replaceChildren(
      messagePanel(
        "This page could not be shown",
        error.message,
        element("button", { class: "button primary", type: "button", onclick: () => render() }, "Try again"),
      ),
    );
  }
  if (thisTurn === turn) focusHeading(root);
}

/** Move the focus to the heading of the new screen, unless the screen has set it itself. */
function focusHeading(root) {
  const heading = root.querySelector("h1");
  document.title = heading?.textContent ? `${heading.textContent} · stabn studio` : "stabn studio";
  if (!pageOpened)
    pageOpened = true; // when the page has just been opened, the browser's own focus is right
  else if (!main.contains(document.activeElement) && !document.querySelector("dialog[open]")) {
    if (heading && !heading.hasAttribute("tabindex")) heading.tabIndex = -1;
    (heading ?? main).focus({ preventScroll: true });
  }
}
let pageOpened = false;

function watchOutbox() {
  const { outbox } = context;
  outbox.listen(({ type, change, error }) => {
    if (type === "refused")
      notify(
        `The studio refused a change of “${change.id}”: ${error.message} It is kept under “refused” at the top.`,
        "error",
      );
  });
  window.addEventListener("storage", (event) => event.key?.startsWith("stabn-") && outbox.refresh());
  window.addEventListener("online", () => outbox.flush());
  // screens first put unsent work into the outbox; the order of pagehide listeners is not defined
  const leave = () => window.dispatchEvent(new Event("stabn-leaving"));
  window.addEventListener("pagehide", () => {
    leave();
    outbox.sendAll();
  });
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) leave();
    outbox.flush();
  });
  outbox.flush();
}

async function start() {
  document.getElementById("skip").addEventListener("click", (event) => {
    event.preventDefault(); // the address after "#" belongs to the screens
    main.focus();
  });
  try {
    context.session = await api.get("session");
  } catch (error) {
    main.replaceChildren(
      messagePanel(
        "The studio does not answer",
        error.message,
        element("button", { class: "button primary", type: "button", onclick: () => location.reload() }, "Try again"),
      ),
    );
    return;
  }
  colours.load(context.session.colours);
  colours.use(recall("scheme", "blue-red"));
  context.outbox = new Outbox({
    storage: localStorage,
    project: context.session.project,
    send: (change) =>
      api.post("edit", change, {}, { keepalive: true, signal: AbortSignal.timeout(20000) }).catch(asUnanswered),
    locks: navigator.locks,
    warn: (text) => notify(text, "error"),
  });
  watchOutbox();
  window.addEventListener("hashchange", render);
  await render();
  if (!context.author()) await askName(context);
}

function asUnanswered(error) {
  throw error.name === "TimeoutError" || error.name === "AbortError"
    ? Object.assign(new Error("no answer"), { status: 0 })
    : error;
}

start();
