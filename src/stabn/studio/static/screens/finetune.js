// Fine-tuning: what it will use, a start button, the running job and earlier ones. All state comes from the server.

import { JobView, stateChip } from "./job.js";
import { count, usePhrase, when } from "../lib/wording.js";
import { startPolling, storeInAddress } from "../lib/polling.js";

const WORKING = 1000;
const IDLE = 6000;

/**
 * @param {HTMLElement} root
 * @param {import("../main.js").Context} context
 * @param {{job?: string}} params
 */
export async function show(root, context, params) {
  const page = new FineTune(root, context, params.job ?? "");
  await page.load();
  return () => page.poll.stop();
}

class FineTune {
  constructor(root, context, chosen) {
    Object.assign(this, { root, context, chosen, jobs: [] });
    const { element, tip } = context;
    this.what = element("p", { id: "will-use" }, "\u00a0");
    this.control = element("input", { type: "checkbox", id: "control", checked: true, "aria-describedby": "control-text" });
    this.epochs = element("input", { id: "epochs", class: "field number-field", type: "number", min: 1, max: 1000, step: 1, placeholder: "default", inputmode: "numeric" });
    this.gamma = element("input", { id: "gamma", class: "field number-field", type: "number", min: 0, step: "any", placeholder: "default", inputmode: "decimal" });
    this.start = element("button", { id: "start", class: "button primary large", type: "submit", disabled: true }, "Start fine-tuning");
    this.why = element("p", { id: "start-note", class: "muted small", role: "status" });
    const form = element("form", { id: "new-job", class: "card new-job", "aria-labelledby": "new-title", onsubmit: (event) => {
      event.preventDefault();
      this.#start();
    } },
      element("div", { class: "stack" }, element("h2", { id: "new-title" }, "Teach the network"), this.what,
        element("div", { class: "choice" }, this.control, element("div", {}, element("label", { for: "control" }, "With a control"),
          element("p", { id: "control-text", class: "muted small" }, "Only the difference to the same training without your corrections is due to them. Where the network is trained again as it was, it is that control itself, and nothing is trained twice; else the control takes as long again."))),
        element("details", { id: "more" }, element("summary", {}, "More"),
          element("div", { class: "row more-fields" },
            element("label", { class: "row", for: "epochs" }, "Epochs", this.epochs), tip("How often it goes through the training clips. Empty: as when the network was trained, or fewer where it goes on from its weights.", "start"),
            element("label", { class: "row", for: "gamma" }, "Weight of the corrections (gamma)", this.gamma), tip("How much the corrections count beside the right answers. Empty: what was measured to be best; more moves the attention more.", "start")))),
      element("div", { class: "stack start-box" }, this.start, this.why));
    form.addEventListener("invalid", () => (form.querySelector("#more").open = true), true); // a hidden field cannot show its error
    this.view = new JobView(context, () => this.poll.now());
    this.list = element("tbody", { id: "jobs" });
    this.earlier = element("section", { id: "earlier", class: "card stack", "aria-labelledby": "earlier-title", hidden: true }, element("h2", { id: "earlier-title" }, "All fine-tunings"),
      element("div", { class: "scroll" }, element("table", { class: "table" }, element("thead", {}, element("tr", {}, ["Started", "State", "Clips", "Used", "Control", "By", ""].map((text) => element("th", { scope: "col" }, text || element("span", { class: "visually-hidden" }, "Look"))))), this.list)));
    root.append(element("div", { class: "page-title" }, element("div", {}, element("h1", {}, "Fine-tune"), element("p", { class: "muted" }, "The network learns from the corrections, in the background: you can continue to correct, and closing this page does not stop it."))),
      form, this.view.root, this.earlier);
  }

  async load() {
    this.version = this.context.session.version;
    await Promise.all([this.#refresh(), this.#countEdits()]);
    this.poll = startPolling(() => this.#refresh(), () => (this.#running() ? WORKING : IDLE));
  }

  #running() {
    return this.jobs.find((job) => job.state === "running");
  }

  /** While a job runs, only that job is requested each second; the list is requested when it ends. */
  async #refresh() {
    const signal = this.context.signal;
    const runningJob = this.#running();
    const updated = runningJob ? await this.context.api.get("job", { id: runningJob.id }, { signal }) : null;
    if (updated?.state === "running") this.jobs = this.jobs.map((job) => (job.id === updated.id ? updated : job));
    else this.jobs = (await this.context.api.get("jobs", {}, { signal })).jobs;
    this.#draw();
    if (!updated) await this.#refreshEdits();
  }

  async #refreshEdits() {
    const { version } = await this.context.api.get("changes", { since: this.version }, { signal: this.context.signal });
    const changed = version !== this.version;
    this.version = version;
    if (changed && this.poll) await this.#countEdits();
  }

  async #countEdits() {
    const { api, signal } = this.context;
    const [{ clips }, { use, people }] = await Promise.all([api.get("queue", {}, { signal }), api.get("people", {}, { signal })]);
    const person = use.startsWith("author:") ? use.slice("author:".length) : null;
    this.usable = person === null ? clips.filter((clip) => clip.edited_by.length).length : (people.find(({ name }) => name === person)?.clips ?? 0);
    const { element } = this.context;
    this.what.replaceChildren(element("strong", { id: "usable" }, count(this.usable, "corrected clip")), `, ${usePhrase(use)}. `,
      element("a", { href: "#/people" }, "Change what is used"));
    this.#updateStartButton();
  }

  #updateStartButton() {
    const running = this.#running();
    this.start.disabled = this.starting || Boolean(running) || !this.usable;
    this.why.textContent = running ? "Only one fine-tuning can run at a time; wait for this one." : this.usable === 0 ? "Correct some clips first." : "";
  }

  async #start() {
    const { context } = this;
    const number = (field) => (field.value.trim() === "" ? null : field.valueAsNumber);
    const author = await context.name();
    if (!author) {
      context.notify("Enter your name first, so that others know who started it.", "error");
      return;
    }
    this.starting = true;
    this.#updateStartButton();
    try {
      const { id } = await context.api.post("jobs", { author, control: this.control.checked, epochs: number(this.epochs), gamma: number(this.gamma) });
      this.#pick(id);
      this.jobs = (await context.api.get("jobs")).jobs;
      this.#draw();
      this.view.root.scrollIntoView({ block: "nearest" });
      this.poll.now();
    } catch (error) {
      context.notify(error.message, "error");
    }
    this.starting = false;
    this.#updateStartButton();
  }

  #pick(id) {
    this.chosen = id;
    storeInAddress("/finetune", { job: id });
  }

  #draw() {
    const job = this.jobs.find(({ id }) => id === this.chosen) ?? this.#running() ?? this.jobs[0];
    if (job) this.view.draw(job);
    this.#updateStartButton();
    this.earlier.hidden = this.jobs.length === 0;
    const drawnState = JSON.stringify([job?.id, this.jobs.map(({ id, state }) => [id, state])]);
    if (drawnState === this.drawnState) return;
    this.drawnState = drawnState;
    const focusedId = this.list.contains(document.activeElement) ? document.activeElement.id : "";
    this.list.replaceChildren(...this.jobs.map((entry) => this.#row(entry, entry.id === job.id)));
    if (focusedId) document.getElementById(focusedId)?.focus();
  }

  #row(job, current) {
    const { element } = this.context;
    return element("tr", { dataset: { id: job.id, state: job.state }, "aria-current": current ? "true" : null },
      element("td", { class: "nowrap" }, when(job.started)), element("td", {}, stateChip(this.context, job)), element("td", {}, job.edits), element("td", {}, job.use.replace(/^author:/, "only ")),
      element("td", {}, job.control ? "yes" : "no"), element("td", {}, job.author),
      element("td", {}, element("span", { class: "row tight end" },
        element("button", { id: `show-${job.id}`, class: "button", type: "button", "aria-pressed": String(current), onclick: () => {
          this.#pick(job.id);
          this.#draw();
          this.view.root.scrollIntoView({ block: "nearest" });
        } }, "Show"),
        job.state === "done" ? element("a", { class: "button", href: `#/job?id=${encodeURIComponent(job.id)}` }, "Before and after") : null)));
  }
}
