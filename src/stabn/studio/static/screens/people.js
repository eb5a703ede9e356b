// Several people: who corrected how many clips, how far they agree, and what fine-tuning uses; export and import.

import { exchange } from "./exchange.js";
import { clipAddress, count, decimal } from "../lib/wording.js";
import { startPolling } from "../lib/polling.js";

const POLL_INTERVAL = 5000;
const MAX_ROWS = 100;
const RELIABLE = 0.8; // Krippendorff's customary bounds
const TENTATIVE = 2 / 3;

const CHOICES = {
  latest: ["The latest correction", "Of each clip, the correction that was made last counts, whoever made it."],
  mean: ["The mean", "Frame by frame the average of all people. Disagreement becomes a value in between."],
  median: ["The median", "Frame by frame the middle value. One person who sees it differently does not count."],
};
const ONE = ["One person", "Only this person's corrections count; clips that they have not corrected are left out."];

/**
 * @param {HTMLElement} root
 * @param {import("../main.js").Context} context
 */
export async function show(root, context) {
  const page = new People(root, context);
  await page.load();
  return () => page.poll?.stop();
}

class People {
  constructor(root, context) {
    Object.assign(this, { root, context, sort: { key: "alpha", down: false }, all: false });
    const { element } = context;
    const section = (id, title, ...children) => element("section", { class: "card stack", id, "aria-labelledby": `${id}-title` }, element("h2", { id: `${id}-title` }, title), children);
    this.people = element("div", {});
    this.use = element("div", { id: "use", class: "stack", role: "radiogroup", "aria-labelledby": "choice-title" });
    this.project = element("div", { class: "alpha-figure", id: "alpha-project" });
    this.classes = element("div", { class: "scroll" });
    this.clips = element("div", { class: "scroll" });
    this.tables = element("div", { class: "stack", hidden: true }, element("h3", {}, "By class"), this.classes, element("h3", {}, "By clip"), this.clips);
    root.append(
      element("div", { class: "page-title" }, element("div", {}, element("h1", {}, "People"), element("p", { class: "muted" }, "Everybody's corrections of a clip are kept side by side."))),
      this.columns = element("div", { class: "people-columns", hidden: true },
        element("div", { class: "stack wide-gap" },
          section("people", "Who corrected", this.people),
          section("choice", "What fine-tuning uses", element("p", { class: "muted" }, "Where several people corrected the same clip. It holds for everybody in this project."), this.use)),
        section("how-far", "How far people agree", this.project,
          element("p", { class: "muted" }, "Krippendorff's alpha compares how far people's scores of the same frames lie apart with what chance would give. 1 is full agreement, 0 is no better than chance, and below 0 people contradict each other. By custom 0.8 and more is reliable, and from 0.667 on one may draw careful conclusions. “–” means that it is undefined: fewer than two people, or nothing but equal scores."),
          element("h3", {}, "By class"), this.classes, element("h3", {}, "By clip"), this.clips)),
      this.exchange = exchange(context, () => this.load()));
    this.exchange.hidden = true; // until the response, which would push it down
  }

  async load() {
    this.version ??= (await this.#changes(this.context.session.version)).version;
    this.#setData(await this.context.api.get("people", {}, { signal: this.context.signal }));
    this.poll ??= startPolling(() => this.#refresh(), () => POLL_INTERVAL);
  }

  async #refresh() {
    const { version, use } = await this.#changes(this.version);
    if (version === this.version && use === this.data.use) return;
    this.version = version;
    await this.load();
  }

  #changes(since) {
    return this.context.api.get("changes", { since }, { signal: this.context.signal });
  }

  #setData(data) {
    const state = JSON.stringify(data);
    if (state === this.drawnState) return;
    Object.assign(this, { drawnState: state, data });
    this.#drawPeople();
    this.#drawUse();
    this.#drawAgreement();
    this.columns.hidden = this.exchange.hidden = false;
  }

  #drawPeople() {
    const { element } = this.context;
    const { people } = this.data;
    const me = this.context.author();
    if (!people.length) {
      this.people.replaceChildren(element("p", { class: "muted" }, "Nobody has corrected a clip yet. ", element("a", { href: "#/" }, "Correct a clip"), " to appear in this list."));
      return;
    }
    const most = Math.max(1, ...people.map((person) => person.clips));
    const sorted = [...people].sort((a, b) => b.clips - a.clips || a.name.localeCompare(b.name));
    this.people.replaceChildren(element("table", { id: "people-table", class: "table" },
      element("thead", {}, element("tr", {}, element("th", { scope: "col" }, "Name"), element("th", { scope: "col", class: "number" }, "Corrected clips"), element("th", { "aria-hidden": "true" }))),
      element("tbody", {}, sorted.map((person) => element("tr", { dataset: { name: person.name } },
        element("th", { scope: "row", class: "name" }, person.name, person.name === me ? element("span", { class: "chip accent" }, "you") : null),
        element("td", { class: "number" }, person.clips.toLocaleString("en")),
        element("td", { class: "meter", "aria-hidden": "true" }, element("span", { style: { "--v": person.clips / most } })))))));
  }

  #drawUse() {
    const { element } = this.context;
    const { use, choices, people } = this.data;
    const focusedId = this.use.contains(document.activeElement) ? document.activeElement.id : "";
    const option = (value, [title, text], extra = null, disabled = false) => {
      const id = `use-${value}`;
      return element("div", { class: "choice" },
        element("input", { type: "radio", name: "use", id, value, disabled, checked: value === "author" ? use.startsWith("author:") : value === use, "aria-describedby": `${id}-text`, onchange: () => this.#choose(value === "author" ? `author:${this.person.value}` : value) }),
        element("div", {}, element("div", { class: "row" }, element("label", { for: id }, title), extra), element("p", { class: "muted small", id: `${id}-text` }, text)));
    };
    const names = [...new Set([...choices.filter((choice) => choice.startsWith("author:")), ...(use.startsWith("author:") ? [use] : [])].map((choice) => choice.slice("author:".length)))];
    this.person = element("select", { id: "use-person", class: "field", "aria-label": "Whose corrections", disabled: !names.length, onchange: () => this.#choose(`author:${this.person.value}`) },
      names.length ? names.map((name) => element("option", { value: name }, `${name} (${people.find((person) => person.name === name)?.clips ?? 0})`)) : element("option", {}, "nobody yet"));
    this.use.replaceChildren(...Object.entries(CHOICES).filter(([value]) => choices.includes(value)).map(([value, text]) => option(value, text)), option("author", ONE, this.person, !names.length));
    const mine = this.context.author();
    if (use.startsWith("author:")) this.person.value = use.slice("author:".length);
    else if (names.includes(mine)) this.person.value = mine;
    if (focusedId) document.getElementById(focusedId)?.focus();
  }

  async #choose(use) {
    try {
      const author = await this.context.name();
      if (!author) throw new Error("Enter your name first, so that others know who changed it.");
      const answer = await this.context.api.put("use", { use, author });
      this.data = { ...this.data, use: answer.use };
      this.context.session.use = answer.use;
      this.context.notify("Saved: fine-tuning uses this from now on.", "right");
    } catch (error) {
      this.context.notify(error.message, "error");
    }
    this.drawnState = "";
    this.#drawUse();
  }

  #drawAgreement() {
    const { element } = this.context;
    const { project, classes, clips } = this.data.agreement;
    this.project.replaceChildren(element("strong", {}, decimal(project, 3)), verdict(element, project),
      element("span", { class: "muted" }, clips.length ? `over ${count(clips.length, "clip")} that two or more people corrected` : "No clip has been corrected by two people yet."));
    this.tables.hidden = !clips.length;
    this.classes.replaceChildren(this.#classTable(classes));
    this.clips.replaceChildren(...this.#clipTable(clips));
  }

  #classTable(classes) {
    const { element } = this.context;
    const sorted = [...classes].sort((a, b) => lowestFirst(a.alpha, b.alpha) || a.label.localeCompare(b.label));
    return element("table", { id: "agreement-classes", class: "table" },
      element("thead", {}, element("tr", {}, element("th", { scope: "col" }, "Class"), element("th", { scope: "col", class: "number" }, "Clips"), element("th", { scope: "col", class: "number" }, "Alpha"), element("th", { scope: "col" }, element("span", { class: "visually-hidden" }, "In words")))),
      element("tbody", {}, sorted.map((row) => element("tr", { dataset: { label: row.label } }, element("th", { scope: "row", class: "name" }, row.label), element("td", { class: "number" }, row.clips), element("td", { class: "number alpha" }, decimal(row.alpha, 3)), element("td", {}, verdict(element, row.alpha))))));
  }

  #clipTable(clips) {
    const { element } = this.context;
    const { key, down } = this.sort;
    const orders = { alpha: (a, b) => lowestFirst(a.alpha, b.alpha), id: (a, b) => a.id.localeCompare(b.id, undefined, { numeric: true }), label: (a, b) => a.label.localeCompare(b.label), people: (a, b) => a.people.length - b.people.length };
    const undefinedLast = (a, b) => (key === "alpha" ? (a.alpha === null) - (b.alpha === null) : 0);
    const sorted = [...clips].sort((a, b) => undefinedLast(a, b) || (down ? -1 : 1) * orders[key](a, b) || orders.id(a, b));
    const heading = (name, text, kind = "") => element("th", { scope: "col", class: kind, "aria-sort": key === name ? (down ? "descending" : "ascending") : "none" },
      element("button", { class: "sort", type: "button", id: `sort-${name}`, onclick: () => {
        this.sort = { key: name, down: key === name && !down };
        this.#drawAgreement();
        document.getElementById(`sort-${name}`).focus();
      } }, text, element("span", { "aria-hidden": "true" }, key === name ? (down ? " ↓" : " ↑") : "")));
    const shown = this.all ? sorted : sorted.slice(0, MAX_ROWS);
    return [element("table", { id: "agreement-clips", class: "table" },
      element("thead", {}, element("tr", {}, heading("id", "Clip"), heading("label", "Class"), heading("people", "By"), heading("alpha", "Alpha", "number"), element("th", { scope: "col" }, element("span", { class: "visually-hidden" }, "In words")))),
      element("tbody", {}, shown.map((row) => element("tr", { dataset: { id: row.id } },
        element("th", { scope: "row", class: "name" }, element("a", { class: "two-lines", href: clipAddress(row.id), title: row.id }, row.id)), element("td", { class: "class-cell" }, element("span", { class: "two-lines", title: row.label }, row.label)),
        element("td", { class: "muted small" }, row.people.join(", ")), element("td", { class: "number alpha" }, decimal(row.alpha, 3)), element("td", {}, verdict(element, row.alpha)))))),
    shown.length < sorted.length ? element("button", { id: "all-clips", class: "button", type: "button", onclick: () => {
      this.all = true;
      this.#drawAgreement();
    } }, `Show all ${sorted.length}`) : ""].filter(Boolean);
  }
}

/** Sort ascending, undefined (null) values last. */
function lowestFirst(a, b) {
  if (a === null || b === null) return (a === null) - (b === null);
  return a - b;
}

function verdict(element, alpha) {
  if (alpha === null) return element("span", { class: "muted small" }, "undefined");
  const [kind, text] = alpha >= RELIABLE ? ["right", "reliable"] : alpha >= TENTATIVE ? ["", "careful"] : ["wrong", "low"];
  return element("span", { class: `chip ${kind}` }, text);
}
