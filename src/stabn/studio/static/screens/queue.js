// The queue: the network's mistakes, the most useful corrections first.

import { Card } from "./cards.js";
import { Grid } from "../editor/grid.js";
import { uploading } from "./upload.js";
import { shellWord } from "../lib/wording.js";
import { startPolling, storeInAddress, storeOrder } from "../lib/polling.js";

/** State in the address -> the button's text and which clips match; the empty state matches all. */
const STATES = {
  "": ["All", () => true],
  todo: ["To do", (clip) => !clip.edited_by.length],
  edited: ["Corrected", (clip) => clip.edited_by.length > 0],
  mine: ["By me", (clip, me) => clip.edited_by.includes(me)],
  several: ["By several", (clip) => clip.edited_by.length > 1],
};
const POLL_INTERVAL = 4000;

let lastOpened = ""; // clip last opened in the editor; the focus returns to it
window.addEventListener("hashchange", ({ newURL }) => {
  const [path, query] = (newURL.split("#/")[1] ?? "").split("?");
  if (path === "clip") lastOpened = new URLSearchParams(query).get("id") ?? "";
});

/**
 * @param {HTMLElement} root
 * @param {import("../main.js").Context} context
 * @param {{q?: string, label?: string, state?: string}} params
 */
export async function show(root, context, params) {
  const page = new Queue(root, context, params);
  await page.load();
  return () => page.leave();
}

class Queue {
  constructor(root, context, { q = "", label = "", state = "" }) {
    Object.assign(this, { root, context, choices: { q, label, state: state in STATES ? state : "" } });
    this.me = context.author();
    this.cards = new Map();
    this.shown = [];
    this.upload = uploading(context);
    this.#build();
  }

  #build() {
    const { element } = this.context;
    this.order = element("p", { id: "queue-order", class: "muted" });
    this.counted = element("strong", { id: "queue-progress" }, "\u00a0");
    this.countedMine = element("span", { id: "queue-mine", class: "muted" });
    this.bar = element("div", { id: "queue-bar", class: "progress", role: "progressbar", "aria-label": "Corrected clips", "aria-valuemin": 0 },
      element("div", { class: "progress-mine" }), element("div", { class: "progress-others" }));
    this.start = element("a", { id: "continue", class: "button primary large", href: "#/" }, "Start correcting");
    this.search = element("input", { id: "search", class: "field", type: "search", placeholder: "Search by name", "aria-label": "Search clips by name", value: this.choices.q });
    this.label = element("select", { id: "filter-class", class: "field", "aria-label": "True label" });
    this.states = Object.entries(STATES).map(([name, [text]]) => element("button", { class: "button", type: "button", dataset: { state: name || "all" }, "aria-pressed": "false", onclick: () => this.#choose({ state: name }) }, text, element("span", { class: "count muted" })));
    this.list = element("ul", { id: "queue", class: "clips", "aria-label": "Clips" });
    this.grid = new Grid(this.list);
    this.notice = element("p", { id: "queue-notice", class: "muted", role: "status" });
    this.search.addEventListener("input", () => {
      clearTimeout(this.typing);
      this.typing = setTimeout(() => this.#choose({ q: this.search.value }), 120);
    });
    this.label.addEventListener("change", () => this.#choose({ label: this.label.value }));
    this.list.addEventListener("keydown", (event) => this.#key(event));
    this.list.addEventListener("focusin", ({ target }) => this.#focusable(target.closest(".clip-card")));
    this.list.addEventListener("click", () => storeOrder(this.shown.map((card) => card.clip.id)));
    this.filters = element("div", { class: "row filters", role: "search" }, this.search, this.label, element("div", { class: "segments", role: "group", "aria-label": "State" }, this.states));
    this.top = element("section", { class: "card queue-top", "aria-label": "Progress" },
      element("div", { class: "queue-counts" }, element("div", { class: "row" }, this.counted, this.countedMine), this.bar), this.start);
    this.root.append(
      element("div", { class: "page-title" }, element("div", {}, element("h1", {}, "Queue"), this.order), this.upload.button),
      this.top, this.filters, this.notice, this.list);
    for (const part of [this.list, this.filters]) part.setAttribute("aria-busy", "true");
  }

  async load() {
    this.#setData(await this.context.api.get("queue", {}, { signal: this.context.signal }));
    if (!this.clips.length) {
      this.#showEmpty();
      return;
    }
    this.#fillClassFilter();
    this.#applyFilters();
    this.#focusLastOpened();
    for (const part of [this.list, this.filters]) part.removeAttribute("aria-busy");
    this.poll = startPolling(() => this.#refresh(), () => POLL_INTERVAL);
    this.stopListening = this.context.outbox.listen(({ type }) => type === "acknowledged" && this.poll.now());
  }

  leave() {
    clearTimeout(this.typing);
    this.grid.close();
    this.stopListening?.();
    this.poll?.stop();
    this.upload.close();
  }

  #setData({ order, version, clips }) {
    Object.assign(this, { version, clips });
    this.order.textContent = order;
    for (const clip of clips) {
      const card = this.cards.get(clip.id);
      if (card) card.update(clip, this.me);
    }
  }

  #card(clip) {
    let card = this.cards.get(clip.id);
    if (!card) this.cards.set(clip.id, (card = new Card(clip, this.me)));
    return card;
  }

  /** Update the cards in place with others' work; which cards are listed changes only with the filters. */
  async #refresh() {
    const { version, problem } = await this.context.api.get("changes", { since: this.version }, { signal: this.context.signal });
    if (problem && problem !== this.problem) this.context.notify(problem, "error");
    this.problem = problem;
    if (version === this.version) return;
    const knownIds = new Set(this.clips.map((clip) => clip.id));
    this.#setData(await this.context.api.get("queue", {}, { signal: this.context.signal }));
    const newClips = this.clips.filter((clip) => !knownIds.has(clip.id) && this.#matches(clip));
    if (newClips.length) {
      this.#fillClassFilter();
      this.grid.append(newClips.map((clip) => this.#card(clip)));
    }
    this.#updateCounts();
  }

  #matches(clip, state = this.choices.state) {
    const { q, label } = this.choices;
    return (!label || clip.label === label) && (!q || clip.id.toLowerCase().includes(q.trim().toLowerCase())) && STATES[state][1](clip, this.me);
  }

  #choose(change) {
    Object.assign(this.choices, change);
    storeInAddress("/", this.choices);
    this.#applyFilters();
  }

  #fillClassFilter() {
    const { element } = this.context;
    const counts = new Map();
    for (const { label } of this.clips) counts.set(label, (counts.get(label) ?? 0) + 1);
    if (this.choices.label && !counts.has(this.choices.label)) this.choices.label = "";
    const names = [...counts.keys()].sort((a, b) => a.localeCompare(b));
    this.label.replaceChildren(element("option", { value: "" }, "All classes"), ...names.map((name) => element("option", { value: name }, `${name} (${counts.get(name)})`)));
    this.label.value = this.choices.label;
  }

  #applyFilters() {
    this.shown = this.clips.filter((clip) => this.#matches(clip)).map((clip) => this.#card(clip));
    this.grid.show(this.shown);
    for (const button of this.states) button.setAttribute("aria-pressed", String(button.dataset.state === (this.choices.state || "all")));
    this.#updateCounts();
    if (this.shown.length) this.#focusable(this.shown[0].link);
  }

  #updateCounts() {
    const all = this.clips.length;
    const edited = this.clips.filter(STATES.edited[1]).length;
    const mine = this.clips.filter((clip) => STATES.mine[1](clip, this.me)).length;
    this.counted.textContent = `${edited} of ${all} corrected`;
    this.countedMine.textContent = this.me ? `${mine} by you` : "";
    this.bar.setAttribute("aria-valuemax", String(all));
    this.bar.setAttribute("aria-valuenow", String(edited));
    this.bar.setAttribute("aria-valuetext", `${edited} of ${all} corrected, ${mine} by you`);
    this.bar.style.setProperty("--mine", `${(100 * mine) / all}%`);
    this.bar.style.setProperty("--others", `${(100 * (edited - mine)) / all}%`);
    for (const button of this.states) {
      const state = button.dataset.state === "all" ? "" : button.dataset.state;
      button.lastChild.textContent = String(this.clips.filter((clip) => this.#matches(clip, state)).length);
    }
    this.notice.textContent = this.shown.length ? "" : "No clip matches these filters.";
    this.notice.hidden = this.shown.length > 0;
    this.#updateStartButton(edited);
  }

  /** The large button opens the first clip to do that matches the class and the search, or else the first of all. */
  #updateStartButton(edited) {
    const open = this.clips.filter((clip) => this.#matches(clip, "todo"));
    const others = open.length ? open : this.clips.filter(STATES.todo[1]);
    const { start } = this;
    if (!others.length) {
      start.textContent = "All corrected: fine-tune";
      start.href = "#/finetune";
      start.onclick = null;
      return;
    }
    start.textContent = edited ? "Continue" : "Start correcting";
    start.href = `#/clip?id=${encodeURIComponent(others[0].id)}`;
    start.onclick = () => storeOrder((open.length ? this.clips.filter((clip) => this.#matches(clip, "")) : this.clips).map((clip) => clip.id));
  }

  #focusable(link) {
    if (!link || link === this.current) return;
    if (this.current) this.current.tabIndex = -1;
    link.tabIndex = 0;
    this.current = link;
  }

  #key(event) {
    if (event.ctrlKey || event.altKey || event.metaKey || event.shiftKey) return;
    const here = this.shown.findIndex((card) => card.link === event.target.closest(".clip-card"));
    if (here < 0) return;
    const across = this.grid.columns;
    const last = this.shown.length - 1;
    const below = Math.floor(here / across) === Math.floor(last / across) ? here : Math.min(last, here + across);
    const to = { ArrowLeft: here - 1, ArrowRight: here + 1, ArrowUp: here - across, ArrowDown: below, Home: 0, End: last }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    if (to >= 0 && to <= last) this.#focus(to);
  }

  #focus(index, block = "nearest") {
    this.grid.reveal(index);
    const { link } = this.shown[index];
    link.focus({ preventScroll: true });
    link.scrollIntoView({ block });
  }

  #focusLastOpened() {
    const at = this.shown.findIndex((card) => card.clip.id === lastOpened);
    lastOpened = "";
    if (at >= 0) this.#focus(at, "center");
  }

  #showEmpty() {
    const { element } = this.context;
    const run = shellWord(this.context.session.run);
    this.order.textContent = "This page lists the clips that the network gets wrong.";
    for (const part of [this.top, this.filters, this.notice, this.list]) part.remove();
    this.root.append(element("div", { id: "queue-empty", class: "calm" },
      element("h2", {}, "There is nothing to correct"),
      element("p", { class: "muted" }, "No class of the training data is below the bound at which mistakes are collected. Open any training clip under All clips: what you paint joins the queue. Or collect the mistakes of more classes and start the studio on them:"),
      element("code", { class: "command" }, `stabn collect ${run} --out NEW-FOLDER --bound 0.8\nstabn studio ${run} --edits NEW-FOLDER`),
      element("a", { class: "button primary", href: "#/data?split=train" }, "To all training clips")));
  }
}
