// One fine-tuning job: how far it is, its curves, and what can be done with it.

import { lineChart } from "../lib/charts.js";
import { copy } from "../lib/dom.js";
import { count, duration, percent, usePhrase, when } from "../lib/wording.js";

/** @typedef {object} Job answer of GET /api/job */

const STAGES = {
  "fine-tune": ["Learn from the corrections", "Learning from the corrections"],
  control: ["Train the control", "Training the control: the same without the corrections"],
  measure: ["Measure", "Measuring on the validation clips"],
};
const WEIGHTS = { "fine-tune": 1, control: 1, measure: 0.25 }; // approximate durations, relative to each other
export const STATES = { running: ["accent", "running"], done: ["right", "done"], cancelled: ["", "cancelled"], failed: ["wrong", "failed"], interrupted: ["wrong", "interrupted"] };

/** @param {import("../main.js").Context} context @param {Job} job */
export function stateChip({ element }, { state }) {
  const [kind, text] = STATES[state] ?? ["", state];
  return element("span", { class: `chip ${kind}`, dataset: { state } }, text);
}

/** The card of a job; `draw` updates it in place. */
export class JobView {
  /**
   * @param {import("../main.js").Context} context
   * @param {() => void} changed after cancelling or resuming
   */
  constructor(context, changed) {
    Object.assign(this, { context, changed, job: null });
    const { element } = context;
    this.title = element("h2", { id: "job-title" });
    this.chip = element("span", {});
    this.facts = element("p", { id: "job-facts", class: "muted" });
    this.stages = element("ol", { id: "job-stages", class: "stages" });
    this.doing = element("p", { id: "job-doing" });
    this.spoken = element("p", { class: "visually-hidden", role: "status" }); // announces each step once, not each percent
    this.bar = element("div", { id: "job-bar", class: "progress", role: "progressbar", "aria-label": "Fine-tuning", "aria-valuemin": 0, "aria-valuemax": 100 }, element("div", { class: "progress-mine" }));
    this.error = element("p", { id: "job-error", class: "wrong", role: "alert", hidden: true });
    this.buttons = element("div", { class: "row", id: "job-buttons" });
    this.top1 = lineChart({ id: "chart-top1", title: "Right answers (top-1)", description: "Share of clips whose first answer is right, per epoch.", format: (value) => `${Math.round(1000 * value) / 10} %` });
    this.meanClass = lineChart({ id: "chart-mean-class", title: "Right answers, mean over classes", description: "Top-1 averaged over the classes that have clips, per epoch.", format: (value) => `${Math.round(1000 * value) / 10} %` });
    this.loss = lineChart({ id: "chart-loss", title: "Loss", description: "The quantity that training minimises, per epoch.", format: (value) => String(Math.round(100 * value) / 100), zero: true });
    this.command = element("code", { id: "job-command", class: "command", tabindex: 0 });
    this.log = element("pre", { id: "job-log", class: "log", tabindex: 0, "aria-label": "Log" });
    this.root = element("section", { id: "job", class: "card stack", "aria-labelledby": "job-title", hidden: true },
      element("div", { class: "row" }, this.title, this.chip, element("span", { class: "spacer" }), this.buttons),
      this.facts, this.stages, this.bar, this.doing, this.spoken, this.error,
      element("div", { class: "charts" }, this.top1.root, this.meanClass.root, this.loss.root),
      element("details", { id: "job-log-box" }, element("summary", {}, "Log"), this.log),
      element("details", { id: "job-command-box" }, element("summary", {}, "The same on the command line"),
        element("div", { class: "stack" }, element("p", { class: "muted small" }, "This does the first step again, for instance on another machine. Give it another --out."), this.command,
          element("div", {}, element("button", { id: "copy-command", class: "button", type: "button", onclick: () => copy(this.command.textContent, context.notify) }, "Copy")))));
  }

  /** @param {Job} job */
  draw(job) {
    const state = JSON.stringify(job);
    if (state === this.drawnState) return;
    const other = this.job?.id !== job.id;
    const moved = other || this.job.state !== job.state;
    Object.assign(this, { drawnState: state, job });
    this.root.hidden = false;
    this.root.dataset.id = job.id;
    this.root.dataset.state = job.state;
    this.title.textContent = `Fine-tuning of ${when(job.started)}`;
    this.chip.replaceChildren(stateChip(this.context, job));
    const took = job.ended ? `, ${duration(job.started, job.ended)}` : "";
    this.facts.textContent = `${count(job.edits, "corrected clip")}, ${usePhrase(job.use)}; started by ${job.author}${took}.`;
    this.error.hidden = !job.error;
    this.error.textContent = job.error ?? "";
    this.#drawStages(job);
    this.#drawCurves(job);
    const atEnd = other || this.log.scrollTop + this.log.clientHeight >= this.log.scrollHeight - 8;
    this.log.textContent = job.log || "No output yet.";
    if (atEnd) this.log.scrollTop = this.log.scrollHeight;
    this.command.textContent = job.command;
    if (moved) this.#drawButtons(job);
  }

  #drawStages({ state, stage, stages, progress }) {
    const { element } = this.context;
    const at = state === "done" ? stages.length : Math.max(0, stages.indexOf(stage));
    this.stages.replaceChildren(...stages.map((name, i) => {
      const kind = i < at ? "passed" : i === at && state === "running" ? "now" : i === at && state !== "done" ? "stopped" : "ahead";
      return element("li", { dataset: { stage: name, state: kind }, "aria-current": kind === "now" ? "step" : null }, element("span", { class: "stage-mark", "aria-hidden": "true" }, i < at ? "✓" : String(i + 1)), STAGES[name]?.[0] ?? name);
    }));
    const within = progress ? Math.min(1, (progress.epoch - 1 + progress.step / Math.max(1, progress.steps)) / Math.max(1, progress.epochs)) : 0;
    const weight = (name) => WEIGHTS[name] ?? 1;
    const whole = stages.reduce((sum, name) => sum + weight(name), 0);
    const behind = stages.slice(0, at).reduce((sum, name) => sum + weight(name), 0);
    const done = Math.round((100 * (behind + (at < stages.length ? within * weight(stages[at]) : 0))) / whole);
    this.bar.setAttribute("aria-valuenow", String(done));
    this.bar.style.setProperty("--mine", `${done}%`);
    this.doing.textContent = doing(state, stage, progress);
    const spoken = doing(state, stage, null);
    if (this.spoken.textContent !== spoken) this.spoken.textContent = spoken;
  }

  #drawCurves({ curves, progress }) {
    const trained = Object.entries(curves).filter(([name]) => name !== "before");
    const last = Math.max(1, progress?.epochs ?? 0, ...trained.map(([, entries]) => entries.length));
    const reached = curves.before?.at(-1);
    for (const [chart, metric] of [[this.top1, "top1"], [this.meanClass, "mean_class_accuracy"], [this.loss, "loss"]]) {
      const lines = trained.filter(([name, entries]) => name === "fine-tuned" || entries.length).flatMap(([name, entries]) => [["validation", false], ["train", true]].map(([part, dashed]) => (
        { name: `${name}, ${part === "train" ? "training" : "validation"}`, kind: name, dashed, points: entries.map((entry) => [entry.epoch, entry[`${part}_${metric}`] ?? NaN]) })));
      const value = reached?.[`validation_${metric}`];
      chart.draw({ lines, last, reference: Number.isFinite(value) ? { name: "before, validation", value } : null });
    }
  }

  #drawButtons(job) {
    const { element } = this.context;
    const hadFocus = this.buttons.contains(document.activeElement);
    const made = {
      running: () => [element("button", { id: "cancel", class: "button danger", type: "button", onclick: () => this.#confirmCancel(job) }, "Cancel…")],
      done: () => [element("a", { id: "to-outcome", class: "button primary", href: `#/job?id=${encodeURIComponent(job.id)}` }, "See before and after")],
    }[job.state] ?? (() => [element("button", { id: "resume", class: "button primary", type: "button", onclick: () => this.#post("job/resume", job) }, job.state === "failed" ? "Try again" : "Resume")]);
    this.buttons.replaceChildren(...made());
    if (hadFocus) this.buttons.firstElementChild?.focus();
  }

  #confirmCancel(job) {
    const { element, openDialog } = this.context;
    openDialog("Cancel this fine-tuning?", (close) => [
      element("p", { class: "muted" }, "What it has learnt so far is kept; you can resume it later."),
      element("div", { class: "row" }, element("span", { class: "spacer" }),
        element("button", { class: "button", type: "button", onclick: close }, "Keep it running"),
        element("button", { id: "cancel-really", class: "button primary", type: "button", onclick: () => {
          close();
          this.#post("job/cancel", job);
        } }, "Cancel it"))]);
  }

  async #post(path, { id }) {
    for (const button of this.buttons.children) button.disabled = true;
    this.doing.textContent = path === "job/cancel" ? "Stopping…" : "Starting…";
    try {
      await this.context.api.post(path, { id });
    } catch (error) {
      this.context.notify(error.message, "error");
    }
    this.drawnState = "";
    for (const button of this.buttons.children) button.disabled = false;
    this.changed();
  }
}

function doing(state, stage, progress) {
  const what = STAGES[stage]?.[1];
  if (state === "done") return "Everything is measured.";
  if (state === "failed") return "It stopped with an error; the log has more. Nothing that it has learnt is lost.";
  if (state !== "running") return `${state === "cancelled" ? "It was cancelled" : "Its process ended unexpectedly"}${what ? ` in the step “${STAGES[stage][0]}”` : ""}. Resume continues from there.`;
  if (!what) return "Starting…";
  if (!progress) return `${what}…`;
  const share = progress.step / Math.max(1, progress.steps);
  return `${what}: epoch ${progress.epoch} of ${progress.epochs}, ${share < 1 ? `${percent(share)} of it` : "now on the validation clips"}`;
}
