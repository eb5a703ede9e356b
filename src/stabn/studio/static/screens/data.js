// All clips of the data set, and the videos that were opened from this machine.

import { peopleChips, thumbnail } from "./cards.js";
import { forgetUpload, uploading, uploads } from "./upload.js";
import { clipAddress, count } from "../lib/wording.js";
import { storeInAddress, storeOrder } from "../lib/polling.js";

const PAGE = 50;
const SPLITS = { train: "training", validation: "validation" };

/**
 * @param {HTMLElement} root
 * @param {import("../main.js").Context} context
 * @param {{q?: string, split?: string, label?: string, offset?: string}} params
 */
export async function show(root, context, params) {
  const page = new Data(root, context, params);
  await page.load();
  return () => page.leave();
}

class Data {
  #turn = 0;

  constructor(root, context, { q = "", split = "", label = "", offset = "0" }) {
    Object.assign(this, { root, context, choices: { q, split, label, offset: Math.max(0, Math.floor(Number(offset)) || 0) } });
    this.upload = uploading(context);
    this.#build();
  }

  #build() {
    const { element } = this.context;
    this.search = element("input", { id: "search", class: "field", type: "search", placeholder: "Search by name", "aria-label": "Search clips by name", value: this.choices.q });
    this.split = element("select", { id: "filter-split", class: "field", "aria-label": "Part of the data" }, element("option", { value: "" }, "Training and validation"));
    this.label = element("select", { id: "filter-class", class: "field", "aria-label": "Class" }, element("option", { value: "" }, "All classes"));
    this.found = element("span", { id: "data-found", class: "muted", role: "status" });
    this.rows = element("tbody", { id: "data-rows" });
    this.back = element("button", { id: "page-back", class: "button", type: "button", onclick: () => this.#turnPage(-1) }, "Previous");
    this.on = element("button", { id: "page-next", class: "button", type: "button", onclick: () => this.#turnPage(1) }, "Next");
    this.where = element("span", { id: "page-where", class: "muted" });
    this.pages = element("div", { class: "row pages", hidden: true }, this.back, this.where, this.on);
    this.uploads = element("section", { id: "uploads", class: "card stack", hidden: true });
    this.search.addEventListener("input", () => {
      clearTimeout(this.typing);
      this.typing = setTimeout(() => this.#choose({ q: this.search.value }), 200);
    });
    this.split.addEventListener("change", () => this.#choose({ split: this.split.value }));
    this.label.addEventListener("change", () => this.#choose({ label: this.label.value }));
    const heading = (text, kind = "") => element("th", { scope: "col", class: kind }, text);
    this.root.append(
      element("div", { class: "page-title" },
        element("div", {}, element("h1", {}, "All clips"),
          element("p", { class: "muted" }, "Open any clip. What you paint on a training clip is kept, and the clip joins the queue. Validation clips are read only: they measure the network, and correcting them would bias the measure.")),
        this.upload.button),
      this.uploads,
      element("div", { class: "row filters", role: "search" }, this.search, this.split, this.label, this.found),
      element("div", { class: "scroll data-scroll" }, element("table", { id: "data", class: "table data-table" },
        element("thead", {}, element("tr", {}, heading(element("span", { class: "visually-hidden" }, "Picture"), "picture"), heading("Clip"), heading("Class"), heading("Part"), heading("Corrected by"))), this.rows)),
      this.pages);
  }

  async load() {
    this.#uploads();
    await this.#fetch();
  }

  leave() {
    clearTimeout(this.typing);
    this.#turn += 1;
    this.upload.close();
  }

  #choose(change) {
    Object.assign(this.choices, { offset: 0 }, change);
    this.#reload();
  }

  #turnPage(step) {
    this.choices.offset = Math.max(0, this.choices.offset + step * PAGE);
    this.#reload().then(() => {
      window.scrollTo(0, 0);
      if (this.back.disabled || this.on.disabled) this.rows.querySelector("a")?.focus({ preventScroll: true });
    });
  }

  async #reload() {
    storeInAddress("/data", this.choices);
    try {
      await this.#fetch();
    } catch (error) {
      if (!this.context.signal.aborted) this.context.notify(error.message, "error");
    }
  }

  async #fetch() {
    const turn = ++this.#turn;
    const page = await this.context.api.get("data", { ...this.choices, limit: PAGE }, { signal: this.context.signal });
    if (turn !== this.#turn) return; // a newer request was sent
    if (!page.clips.length && page.total && this.choices.offset) {
      this.choices.offset = 0;
      await this.#reload();
      return;
    }
    this.#options(page);
    this.ids = page.clips.map((clip) => clip.id);
    this.rows.replaceChildren(...page.clips.map((clip) => this.#row(clip)));
    this.#drawPages(page.total);
  }

  #options({ splits, labels }) {
    const { element } = this.context;
    if (this.split.options.length === 1) this.split.append(...splits.map((name) => element("option", { value: name }, `Only ${SPLITS[name] ?? name}`)));
    if (this.label.options.length === 1) this.label.append(...[...labels].sort((a, b) => a.localeCompare(b)).map((name) => element("option", { value: name }, name)));
    this.split.value = this.choices.split;
    this.label.value = this.choices.label;
  }

  #drawPages(total) {
    const { offset } = this.choices;
    this.found.textContent = total ? count(total, "clip") : "No clip fits these filters.";
    this.where.textContent = total ? `${offset + 1}–${Math.min(offset + PAGE, total)} of ${total.toLocaleString("en")}` : "";
    this.pages.hidden = total === 0; // also before the first response, whose table would push this row down
    this.back.disabled = offset === 0;
    this.on.disabled = offset + PAGE >= total;
  }

  #row(clip) {
    const { element } = this.context;
    const me = this.context.author();
    const look = clip.split !== "train";
    return element("tr", { dataset: { id: clip.id, split: clip.split } },
      element("td", { class: "picture" }, element("span", { class: "row-picture" }, thumbnail(clip.id))),
      element("td", {}, element("a", { class: "row-link two-lines", href: clipAddress(clip.id), title: clip.id, onclick: () => storeOrder(this.ids) }, clip.id)),
      element("td", { class: "class-cell" }, element("span", { class: "two-lines", title: clip.label }, clip.label)),
      element("td", { class: "nowrap" }, SPLITS[clip.split] ?? clip.split,
        clip.in_queue ? element("span", { class: "chip accent" }, "in the queue") : null,
        look ? element("span", { class: "chip", title: "It measures the network; correcting it would bias the measure" }, "read only") : null),
      element("td", {}, element("span", { class: "row tight" }, peopleChips(clip.edited_by, me))));
  }

  #uploads() {
    const { element, api } = this.context;
    const list = uploads();
    this.uploads.hidden = list.length === 0;
    const remove = (id, row) => {
      forgetUpload(id);
      row.remove();
      this.uploads.hidden = !uploads().length;
    };
    this.uploads.replaceChildren(element("h2", {}, "Your videos"), element("p", { class: "muted small" }, "Read only. The studio keeps the last few and removes all of them when it ends."), ...list.map(({ id, name }) => {
      const row = element("div", { class: "row upload-row", dataset: { id } },
        element("span", { class: "row-picture" }, thumbnail(id, () => remove(id, row))),
        element("a", { class: "ellipsis", href: clipAddress(id) }, name), element("span", { class: "spacer" }),
        element("button", { class: "button", type: "button", "aria-label": `Remove ${name}`, onclick: async () => {
          await api.del("uploads", { id }).catch(() => {}); // it may be gone already
          remove(id, row);
        } }, "Remove"));
      return row;
    }));
  }
}
