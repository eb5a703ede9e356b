// What if: the network's answer with another attention, beside its answer with its own.

import { element, tip } from "../lib/dom.js";

const MAX_ROWS = 11; // the top five of both answers and the true label

/**
 * Classes to show, in the order of the network's own answer so that rows keep their places while painting.
 * @param {number[]} before K probabilities
 * @param {number[]} now K probabilities
 * @param {number} truth number of the true class, -1 if it is unknown
 * @param {number} [rows]
 * @returns {number[]} class numbers, min(K, rows) of them
 */
export function classesToShow(before, now, truth, rows = MAX_ROWS) {
  const ranked = (values) => values.map((_, i) => i).sort((a, b) => values[b] - values[a] || a - b);
  const order = ranked(before);
  const shown = new Set([...order.slice(0, 5), ...ranked(now).slice(0, 5)]);
  if (truth >= 0) shown.add(truth);
  for (const number of order) if (shown.size < rows) shown.add(number);
  return order.filter((number) => shown.has(number)).slice(0, rows);
}

/** Sends one request at a time; of those made meanwhile only the latest is sent. */
export class LatestRequest {
  #busy = false;
  #pending = null;

  /** @param {(question: any) => Promise<any>} send @param {(question: any, answer: any, error?: Error) => void} onAnswer */
  constructor(send, onAnswer) {
    Object.assign(this, { send, onAnswer, closed: false });
  }

  /** @param {any} question */
  request(question) {
    this.#pending = { question };
    if (!this.#busy) this.#work();
  }

  async #work() {
    this.#busy = true;
    while (this.#pending && !this.closed) {
      const { question } = this.#pending;
      this.#pending = null;
      try {
        const answer = await this.send(question);
        if (!this.closed) this.onAnswer(question, answer);
      } catch (error) {
        if (!this.closed) this.onAnswer(question, null, error);
      }
    }
    this.#busy = false;
  }

  close() {
    this.closed = true;
  }
}

const percent = (value) => `${Math.round(100 * value)} %`;
const points = (value) =>
  Math.abs(value) < 0.0005 ? "" : `${value > 0 ? "+" : "−"}${(100 * Math.abs(value)).toFixed(1)}`;

export class WhatIf {
  #announce = 0;
  #slow = 0;
  #retry = 0;
  #features = false;

  /**
   * @param {object} clip
   * @param {string[]} names of the K classes
   * @param {{get: Function, post: Function}} api
   * @param {() => readonly number[]|null} scores the edit as it looks now
   */
  constructor(clip, names, api, scores) {
    Object.assign(this, { clip, names, scores, truth: names.indexOf(clip.label ?? "") });
    this.requests = new LatestRequest(
      (question) => {
        this.#slow = setTimeout(() => this.#showState(this.#features ? "computing…" : "preparing this clip…"), 250);
        return api.post("what-if", question).finally(() => clearTimeout(this.#slow));
      },
      (question, answer, error) => this.#showAnswer(question, answer, error),
    );
    this.temporal = this.#choice("temporal", "When", [
      ["edited", "my edit"],
      ["original", "network's own"],
      ["uniform", "all frames equal"],
      ["inverse", "network's, inverted"],
    ]);
    this.spatial = this.#choice("spatial", "Where", [
      ["original", "network's own"],
      ["inverse", "inverted"],
      ["uniform", "everywhere equal"],
    ]);
    this.state = element("span", { class: "muted small", id: "what-if-state" });
    this.rows = element("div", {
      class: "classes",
      id: "what-if-rows",
      style: { "--rows": Math.min(MAX_ROWS, names.length) },
    });
    this.live = element("p", { class: "visually-hidden", role: "status" });
    this.root = element(
      "section",
      { id: "what-if", class: "card", "aria-label": "What if" },
      element(
        "div",
        { class: "row" },
        element("h2", {}, "What if it looked here?"),
        tip(
          "The network answers again, with your scores in place of its own temporal attention. Nothing is trained; it only shows what the network would predict with this attention.",
          "below",
        ),
        element("span", { class: "spacer" }),
        this.state,
      ),
      element("div", { class: "choices" }, this.temporal.label, this.spatial.label),
      this.rows,
      element(
        "p",
        { class: "legend muted small" },
        element("span", { class: "key before" }),
        "own attention",
        element("span", { class: "key now" }),
        "this attention",
        element("span", { class: "spacer" }),
        element("strong", {}, "✓"),
        "true label",
        element("strong", {}, "▸"),
        "answer",
      ),
      this.live,
    );
    this.#draw(clip.probabilities);
  }

  #choice(id, text, options) {
    const select = element(
      "select",
      { id: `what-if-${id}`, class: "field", onchange: () => this.update() },
      options.map(([value, name]) => element("option", { value }, name)),
    );
    return { select, label: element("label", { class: "row small muted" }, text, select) };
  }

  /** Show the answer to the edit after it has changed. */
  editChanged() {
    this.temporal.select.value = "edited";
    this.update();
  }

  /** Request the answer to the current choices. */
  update() {
    const scores = this.scores();
    const wanted = this.temporal.select.value;
    const temporal = wanted === "edited" && !scores ? "original" : wanted;
    this.requests.request({
      id: this.clip.id,
      temporal,
      spatial: this.spatial.select.value,
      scores: temporal === "edited" ? [...scores] : null,
    });
  }

  #showAnswer(question, answer, error) {
    clearTimeout(this.#retry);
    this.rows.toggleAttribute("data-stale", Boolean(error));
    if (error) {
      const away = error.status === 0 || error.status >= 500;
      this.#showState(away ? "waiting for the studio…" : error.message);
      if (away) this.#retry = setTimeout(() => this.update(), 3000);
      return;
    }
    this.#features = true;
    const own = question.temporal === "original" && question.spatial === "original";
    this.#showState(own ? "its own attention" : `answered in ${Math.max(1, Math.round(answer.milliseconds))} ms`);
    this.#draw(own ? this.clip.probabilities : answer.probabilities);
  }

  #showState(text) {
    this.state.textContent = text;
    this.state.title = text;
  }

  #draw(now) {
    const { probabilities: before } = this.clip;
    const best = now.indexOf(Math.max(...now));
    const shown = classesToShow(before, now, this.truth);
    const have = [...this.rows.children];
    shown.forEach((number, i) =>
      fill(have[i] ?? this.rows.appendChild(row()), {
        name: this.names[number],
        before: before[number],
        now: now[number],
        truth: number === this.truth,
        answer: number === best,
      }),
    );
    this.root.dataset.answer = this.names[best];
    clearTimeout(this.#announce);
    this.#announce = setTimeout(() => {
      const truth =
        this.truth >= 0 && this.truth !== best
          ? `; true label ${this.names[this.truth]} ${percent(now[this.truth])}`
          : "";
      this.live.textContent = `With this attention: ${this.names[best]} ${percent(now[best])}${truth}`;
    }, 1200);
  }

  close() {
    this.requests.close();
    for (const timer of [this.#announce, this.#slow, this.#retry]) clearTimeout(timer);
  }
}

function row() {
  return element(
    "div",
    { class: "class" },
    element("span", { class: "marks", "aria-hidden": "true" }),
    element("span", { class: "name" }, element("span", { class: "ellipsis" }), element("span")),
    element(
      "span",
      { class: "bars", "aria-hidden": "true" },
      element("i", { class: "before" }),
      element("i", { class: "now" }),
    ),
    element("span", { class: "share" }),
    element("span", { class: "change small" }),
  );
}

const TAIL = 14; // characters that are always shown

/** Split a long name, so that its middle can be shortened: long names often begin alike. @param {string} name */
function halves(name) {
  const cut = name.length > 2 * TAIL ? name.length - TAIL : name.length;
  return [name.slice(0, cut), name.slice(cut)];
}

function fill(made, { name, before, now, truth, answer }) {
  const [marks, label, bars, share, change] = made.children;
  marks.textContent = `${answer ? "▸" : ""}${truth ? "✓" : ""}`;
  const [head, tail] = halves(name);
  label.children[0].textContent = head;
  label.children[1].textContent = tail;
  label.title = `${name}${truth ? " (true label)" : ""}${answer ? " (current answer)" : ""}`;
  bars.children[0].style.setProperty("--v", before);
  bars.children[1].style.setProperty("--v", now);
  share.textContent = percent(now);
  change.textContent = points(now - before);
  Object.assign(made.dataset, { label: name, before, now });
  made.toggleAttribute("data-truth", truth);
  made.toggleAttribute("data-answer", answer);
}
