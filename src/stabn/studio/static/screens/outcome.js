// Before and after: what a fine-tuning changed, claiming no more than the measurement supports.

import { intervalBar } from "../lib/charts.js";
import { ClipComparison } from "./compare.js";
import { copy } from "../lib/dom.js";
import { count, percent, points, shellWord, when } from "../lib/wording.js";
import { storeInAddress } from "../lib/polling.js";

const KINDS = {
  mended: ["Mended", "Wrong before, right now.", "No mistake was mended."],
  newly_wrong: ["Newly wrong", "Right before, wrong now.", "Nothing that was right became wrong."],
  edited_clips: ["Corrected", "These clips were trained on, so they are no evidence: a network can memorise its examples.", "No corrected clip can be shown."],
};
const METHODS = {
  before: ["Before", "the network as it was"],
  own_control: ["Before", "trained alike without the corrections, so it is the control"],
  control: ["Control", "trained as long, without the corrections"],
  "fine-tuned": ["Fine-tuned", "with the corrections"],
};

/**
 * @param {HTMLElement} root
 * @param {import("../main.js").Context} context
 * @param {{id?: string, kind?: string, clip?: string}} params
 */
export async function show(root, context, params) {
  const signal = context.signal;
  const job = await context.api.get("job", { id: params.id ?? "" }, { signal }).catch((error) => {
    if (error.status === 404) return null;
    throw error;
  });
  if (job?.state !== "done") {
    root.append(unfinished(context, job));
    return undefined;
  }
  const outcome = await context.api.get("job/outcome", { id: job.id }, { signal });
  const page = new Outcome(root, context, job, outcome, params);
  return () => page.leave();
}

function unfinished({ element }, job) {
  if (!job) {
    return element("div", { class: "calm" }, element("h1", {}, "There is no such fine-tuning"), element("p", { class: "muted" }, "The list of all is on the page Fine-tune."),
      element("a", { class: "button primary", href: "#/finetune" }, "To the list"));
  }
  return element("div", { class: "calm" }, element("h1", {}, "Not measured yet"),
    element("p", { class: "muted" }, "Before and after can be compared when the fine-tuning is done."),
    element("a", { class: "button primary", href: `#/finetune?job=${encodeURIComponent(job.id)}` }, "To the fine-tuning"));
}

/**
 * The headline and what it means, from the paired difference to the control and its 95 % interval.
 * @param {{methods: {name: string, top1: number}[], difference: {points: number, low: number, high: number, against: string}|null}} outcome
 * @returns {{title: string, text: string, kind: ""|"right"|"wrong"}}
 */
export function headline({ methods, difference }) {
  const of = (name) => methods.find((method) => method.name === name)?.top1;
  if (!difference) {
    return { kind: "", title: `Top-1 was ${percent(of("before"), 1)} and is ${percent(of("fine-tuned"), 1)} now`,
      text: "Whether the corrections caused this is unknown: there was no control, and longer training also changes a network. Fine-tune with a control to find out." };
  }
  const { low, high } = difference;
  const numbers = `(${points(difference.points)} points, interval ${points(low)} to ${points(high)})`;
  const once = "It is one run: a repetition may come out differently.";
  if (low > 0) return { kind: "right", title: `The corrections raised top-1 beyond the control ${numbers}`, text: `The interval is above 0: on these validation clips the difference is more than chance among clips. ${once}` };
  if (high < 0) return { kind: "wrong", title: `The corrections lowered top-1 against the control ${numbers}`, text: `The interval is below 0: on these validation clips the difference is more than chance among clips. ${once}` };
  return { kind: "", title: `The corrections did not raise top-1 beyond the control ${numbers}`, text: `The interval contains 0, so this run cannot tell the two apart.${difference.against === "before" ? "" : " What differs from “before” in both is due to training longer."} Where the network looks may have changed all the same: see the clips below.` };
}

class Outcome {
  #turn = 0;

  constructor(root, context, job, outcome, { kind = "", clip = "" }) {
    Object.assign(this, { root, context, job, outcome });
    this.kind = kind in KINDS ? kind : Object.keys(KINDS).find((name) => outcome[name].length) ?? "mended";
    this.clip = clip;
    this.#build();
    this.#list();
  }

  leave() {
    this.#turn += 1;
    this.comparison?.close();
  }

  #build() {
    const { element } = this.context;
    const summary = headline(this.outcome);
    this.tabs = Object.entries(KINDS).map(([name, [text]]) => element("button", { class: "button", type: "button", dataset: { kind: name }, "aria-pressed": "false", onclick: () => this.#choose(name) }, text, element("span", { class: "count muted" }, String(this.#total(name)))));
    this.about = element("p", { id: "kind-note", class: "muted small" });
    this.rows = element("ul", { id: "outcome-rows", class: "outcome-rows", onkeydown: (event) => this.#key(event) });
    this.detail = element("div", { id: "detail", class: "detail" });
    this.root.append(
      element("div", { class: "page-title" }, element("div", {}, element("p", { class: "muted small" }, element("a", { href: `#/finetune?job=${encodeURIComponent(this.job.id)}` }, `Fine-tuning of ${when(this.job.started)}`)),
        element("h1", { id: "headline", class: summary.kind, dataset: { verdict: this.outcome.difference ? summary.kind || "unclear" : "no-control" } }, summary.title), element("p", { id: "headline-text", class: "muted" }, summary.text))),
      element("section", { class: "card", "aria-label": "Numbers" }, this.#table()),
      element("section", { class: "card outcome-clips", "aria-label": "Clips" },
        element("div", { class: "outcome-side" }, element("div", { class: "segments", role: "group", "aria-label": "Which clips" }, this.tabs), this.about, this.rows), this.detail),
      this.#further());
  }

  /** The number of all clips of a kind; only the first of them can be opened. */
  #total(kind) {
    return this.outcome.methods.find(({ name }) => name === "fine-tuned")?.[kind] ?? (kind === "edited_clips" ? Math.max(this.job.edits, this.outcome[kind].length) : this.outcome[kind].length);
  }

  #table() {
    const { element } = this.context;
    const { methods } = this.outcome;
    const scale = [Math.min(...methods.map(({ low }) => low)), Math.max(...methods.map(({ high }) => high))];
    const room = Math.max(0.01, 0.06 * (scale[1] - scale[0]));
    const wide = [scale[0] - room, scale[1] + room];
    const heading = (text, small = "", kind = "number") => element("th", { scope: "col", class: kind }, text, small ? element("small", {}, small) : null);
    const share = (cell) => (cell ? [element("strong", {}, percent(cell.top1, 1)), element("small", {}, `${percent(cell.low, 1).replace(" %", "")} to ${percent(cell.high, 1)}`)] : "–");
    const [first] = methods;
    const clips = (cell) => (cell ? count(cell.count, "clip") : "");
    return [element("div", { class: "scroll" }, element("table", { id: "outcome-table", class: "table outcome-table" },
      element("thead", {}, element("tr", {}, heading("Network", "", ""), heading("All classes", clips(first)), heading(element("span", { class: "visually-hidden" }, "Interval as a picture"), "", "interval-cell"),
        heading("Corrected classes", clips(first.edited)), heading("Other classes", clips(first.other)), heading("Mean over classes", first.mean_class_accuracy ? count(first.mean_class_accuracy.classes, "class", "classes") : ""), heading("Mended"), heading("Newly wrong"))),
      element("tbody", {}, methods.map((method) => element("tr", { dataset: { method: method.name } },
        element("th", { scope: "row" }, ...this.#names(method.name)),
        element("td", { class: "number" }, share(method)), element("td", { class: "interval-cell" }, intervalBar({ low: method.low, high: method.high, value: method.top1 }, wide, method.name)),
        element("td", { class: "number" }, share(method.edited)), element("td", { class: "number" }, share(method.other)),
        element("td", { class: "number" }, share(method.mean_class_accuracy && { ...method.mean_class_accuracy, top1: method.mean_class_accuracy.mean })),
        element("td", { class: "number" }, method.name === "before" ? "" : method.mended ?? "–"), element("td", { class: "number" }, method.name === "before" ? "" : method.newly_wrong ?? "–")))))),
    element("p", { class: "muted small" }, `Right first answers (top-1) on the ${this.outcome.split} clips with 95 % intervals, which nobody corrected or trained on; the mean over classes counts every class that has clips the same. Mended and newly wrong count against “before”.`),
    ...(this.outcome.notes ?? []).map((note) => element("p", { class: "small" }, note))];
  }

  #names(method) {
    const known = METHODS[this.outcome.difference?.against === method && method === "before" ? "own_control" : method];
    return [known?.[0] ?? method, this.context.element("small", {}, known?.[1] ?? "")];
  }

  #choose(kind) {
    this.kind = kind;
    this.clip = "";
    this.#list();
  }

  #list() {
    const { element } = this.context;
    const rows = this.outcome[this.kind];
    for (const tab of this.tabs) tab.setAttribute("aria-pressed", String(tab.dataset.kind === this.kind));
    const [, about, nothing] = KINDS[this.kind];
    const more = this.#total(this.kind) > rows.length && rows.length ? ` The first ${rows.length} can be opened.` : "";
    this.about.textContent = rows.length ? about + more : nothing;
    this.rows.replaceChildren(...rows.map((row) => element("li", {}, element("button", { type: "button", class: "outcome-row", dataset: { id: row.id }, "aria-pressed": "false", onclick: () => this.#open(row.id) },
      element("span", { class: "outcome-label", title: row.label }, row.label), answer(element, row.before, row.label), element("span", { class: "muted", "aria-hidden": "true" }, "→"), answer(element, row.after, row.label)))));
    const first = rows.find(({ id }) => id === this.clip) ?? rows[0];
    if (first) this.#open(first.id);
    else this.#showEmpty();
  }

  #showEmpty() {
    this.#turn += 1;
    this.comparison?.close();
    this.comparison = null;
    this.detail.replaceChildren();
    storeInAddress("/job", { id: this.job.id, kind: this.kind });
  }

  #key(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const buttons = [...this.rows.querySelectorAll("button")];
    const next = buttons[buttons.indexOf(event.target) + step];
    if (!step || !next) return;
    event.preventDefault();
    next.focus();
    next.click();
  }

  async #open(clipId) {
    const { context, job } = this;
    const turn = ++this.#turn;
    this.clip = clipId;
    storeInAddress("/job", { id: job.id, kind: this.kind, clip: clipId });
    for (const button of this.rows.querySelectorAll("button")) button.setAttribute("aria-pressed", String(button.dataset.id === clipId));
    this.comparison?.close();
    this.comparison = null;
    this.detail.setAttribute("aria-busy", "true");
    try {
      const clip = await context.api.get("job/clip", { id: job.id, clip: clipId }, { signal: context.signal });
      if (turn !== this.#turn) return;
      this.comparison = new ClipComparison(this.detail, context, clip);
    } catch (error) {
      if (turn === this.#turn && !context.signal.aborted) this.detail.replaceChildren(context.element("p", { class: "wrong", role: "alert" }, error.message));
    }
    this.detail.removeAttribute("aria-busy");
  }

  #further() {
    const { context, job } = this;
    const { element } = context;
    if (!job.run) return "";
    const command = `stabn studio ${shellWord(job.run)}`;
    return element("section", { id: "further", class: "card stack", "aria-labelledby": "further-title" }, element("h2", { id: "further-title" }, "Next steps"),
      element("p", {}, "The new network is in ", element("code", { id: "new-run" }, job.run), ". To correct what it still gets wrong, stop this studio and start one on it:"),
      element("div", { class: "row" }, element("code", { id: "next-command", class: "command", tabindex: 0 }, command), element("button", { id: "copy-next", class: "button", type: "button", onclick: () => copy(command, context.notify) }, "Copy")));
  }
}

function answer(element, { predicted, confidence }, label) {
  const right = predicted === label;
  return element("span", { class: `outcome-answer ${right ? "right" : "wrong"}`, title: `${predicted}, ${percent(confidence)}` },
    element("span", { class: "visually-hidden" }, right ? "right: " : "wrong: "), element("span", { "aria-hidden": "true" }, right ? "✓ " : "✗ "), element("span", { class: "ellipsis" }, right ? percent(confidence) : predicted));
}
