// The header: pages, save state, the person's name, theme and colours; and the dialog that asks for a name.

import { copy, element, icon, openDialog } from "./dom.js";
import { recall, remember } from "./settings.js";

const PLACES = [
  ["", "Queue"],
  ["data", "All clips"],
  ["people", "People"],
  ["finetune", "Fine-tune"],
];
const THEMES = {
  auto: ["auto", "Theme: as the system"],
  light: ["sun", "Theme: light"],
  dark: ["moon", "Theme: dark"],
};
const SCHEMES = { "blue-red": "Colours: blue to red", safe: "Colours: safe for colour-blind eyes" };

let header = null;

/** Build the header once, then only mark the current page. @param {import("../main.js").Context} context @param {string} [place] */
export function buildHeader(context, place) {
  if (!header) {
    header = build(context);
    document.getElementById("header").replaceChildren(...header.parts);
    context.outbox.listen(() => showState(context));
  }
  for (const link of header.links) {
    if (link.dataset.place === place) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  header.who.replaceChildren(icon("person"), element("span", { class: "ellipsis" }, context.author() || "Your name"));
  showState(context);
}

function build(context) {
  const links = PLACES.map(([at, text]) => element("a", { href: `#/${at}`, dataset: { place: at } }, text));
  const who = element("button", {
    id: "who",
    class: "button quiet",
    type: "button",
    title: "Change the name under which you work",
    onclick: () => askName(context),
  });
  const parts = [
    element(
      "a",
      { class: "brand", href: "#/", "aria-label": "stabn studio, to the queue" },
      element("img", { src: "icon.svg", width: 22, height: 22, alt: "" }),
      "stabn",
    ),
    element("nav", { "aria-label": "Pages" }, links),
    element("span", { class: "spacer" }),
    element("button", {
      id: "refused",
      class: "button quiet danger",
      type: "button",
      hidden: true,
      onclick: () => showRefused(context),
    }),
    element("span", { id: "saved-state", role: "status", "aria-live": "polite" }),
    who,
    schemeSwitch(context),
    themeSwitch(),
  ];
  return { parts, links, who };
}

function showState({ outbox }) {
  const count = outbox.pending().length;
  const state = outbox.state;
  const waiting = `${count} ${count === 1 ? "change" : "changes"} waiting`;
  const text = { saved: "Saved", saving: "Saving…", offline: `Offline: ${waiting}`, locked: `Locked: ${waiting}` }[
    state
  ];
  const help = {
    saved: "Every change has reached the studio",
    saving: "Changes are being sent",
    offline: "The studio does not answer. Your changes are kept in this browser and sent as soon as it does.",
    locked: "The studio was restarted. Open the address that it printed; your changes are kept and sent then.",
  }[state];
  const label = document.getElementById("saved-state");
  if (label.textContent !== text) label.textContent = text;
  label.dataset.state = state;
  label.title = help;
  const refused = outbox.refused().length;
  const button = document.getElementById("refused");
  button.hidden = refused === 0;
  button.textContent = `${refused} refused`;
}

function showRefused({ outbox, notify }) {
  openDialog("Changes that the studio refused", (close) =>
    outbox
      .refused()
      .map((change) =>
        element(
          "div",
          { class: "card stack" },
          element("p", {}, element("strong", {}, change.id), ` by ${change.author}: ${change.error}`),
          element(
            "textarea",
            { class: "field mono", rows: 3, readonly: true, "aria-label": "The change as text" },
            JSON.stringify({ scores: change.scores, comment: change.comment }),
          ),
          element(
            "div",
            { class: "row" },
            element(
              "button",
              { class: "button", type: "button", onclick: () => copy(JSON.stringify(change), notify) },
              "Copy",
            ),
            element(
              "button",
              {
                class: "button danger",
                type: "button",
                onclick: (event) => {
                  outbox.forget(change.request);
                  event.target.closest(".card").remove();
                  if (!outbox.refused().length) close();
                },
              },
              "Delete it",
            ),
          ),
        ),
      )
      .concat(
        element(
          "div",
          { class: "row" },
          element("span", { class: "spacer" }),
          element("button", { class: "button primary", type: "button", onclick: close }, "Close"),
        ),
      ),
  );
}

function cycleButton(id, names, current, label, picture, choose) {
  const button = element("button", { id, class: "button quiet icon", type: "button" });
  const draw = () => {
    button.replaceChildren(picture(current()));
    button.title = label(current());
    button.setAttribute("aria-label", `${label(current())}. Press to change.`);
  };
  button.addEventListener("click", (event) => {
    choose(names[(names.indexOf(current()) + 1) % names.length]);
    draw();
    // a click returns the focus to the editor's timeline, so that space plays
    if (event.detail > 0) document.querySelector("#timeline")?.focus({ preventScroll: true });
  });
  draw();
  return button;
}

function themeSwitch() {
  const current = () => (recall("theme", "auto") in THEMES ? recall("theme", "auto") : "auto");
  return cycleButton(
    "theme",
    Object.keys(THEMES),
    current,
    (name) => THEMES[name][1],
    (name) => icon(THEMES[name][0]),
    (name) => {
      remember("theme", name);
      if (name === "auto") delete document.documentElement.dataset.theme;
      else document.documentElement.dataset.theme = name;
    },
  );
}

function schemeSwitch({ colours, refresh }) {
  const swatch = () => element("span", { class: "swatch", style: { background: colours.gradient() } });
  return cycleButton(
    "scheme",
    colours.names,
    () => colours.scheme,
    (name) => SCHEMES[name],
    swatch,
    (name) => {
      colours.use(name);
      remember("scheme", name);
      // a screen that can redraw itself cancels the event; others are shown again
      if (window.dispatchEvent(new CustomEvent("stabn-scheme", { cancelable: true }))) refresh();
    },
  );
}

/**
 * Ask for the name under which a person works.
 * @param {import("../main.js").Context} context
 * @returns {Promise<string>} the name, "" if there is none yet and the person closed the dialog
 */
export function askName(context) {
  const before = context.author();
  const otherNames = [...new Set(context.session.people)].filter((name) => name !== before);
  return new Promise((resolve) => {
    const dialog = openDialog("Who are you?", (close) => {
      const input = element("input", {
        id: "name",
        class: "field",
        type: "text",
        maxlength: 80,
        required: true,
        autocomplete: "nickname",
        value: before,
      });
      const finish = (name) => {
        remember("name", name);
        close();
      };
      const form = element(
        "form",
        {
          onsubmit: (event) => {
            event.preventDefault();
            const name = input.value.replace(/[\p{C}\p{Z}]+/gu, " ").trim();
            if (name) finish(name);
            else input.value = "";
          },
        },
        element(
          "p",
          { class: "muted" },
          "Your corrections are stored under this name, separate from those of other people. There is no password.",
        ),
        element("label", { class: "stack", for: "name" }, "Your name", input),
        otherNames.length
          ? element(
              "div",
              { class: "stack" },
              element("span", { class: "muted small" }, "Names used before:"),
              element(
                "div",
                { class: "row" },
                otherNames
                  .slice(0, 12)
                  .map((name) =>
                    element(
                      "button",
                      { class: "button", type: "button", onclick: () => finish(name) },
                      element("span", { class: "ellipsis" }, name),
                    ),
                  ),
              ),
            )
          : null,
        element(
          "div",
          { class: "row" },
          element("span", { class: "spacer" }),
          element("button", { class: "button", type: "button", onclick: close }, before ? "Cancel" : "Just look"),
          element("button", { id: "name-ok", class: "button primary", type: "submit" }, before ? "Change" : "Start"),
        ),
      );
      return [form];
    });
    dialog.querySelector("#name").select();
    dialog.addEventListener("close", () => {
      const name = context.author();
      if (name !== before) context.refresh();
      resolve(name);
    });
  });
}
