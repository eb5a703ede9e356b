// One person's edit of one clip while it is being painted: strokes, undo and redo. No DOM, no network.

/** @typedef {readonly number[]|null} Scores T values in 0..1, or null for "no edit" */
/** @typedef {{kind: "paint"|"undo"|"redo"|"clear", scores: Scores}} Step what happened, and the edit after it */

/** What the levels mean, in words. */
export const LEVELS = [
  { value: 0, key: "1", name: "irrelevant" },
  { value: 0.5, key: "2", name: "may matter" },
  { value: 1, key: "3", name: "matters" },
];

const roundScore = (value) => Math.round(100 * Math.min(1, Math.max(0, value))) / 100;
const equalScores = (a, b) =>
  a === b || (a !== null && b !== null && a.length === b.length && a.every((value, i) => value === b[i]));

export class Strokes {
  #stroke = null;
  #edited = null;

  /**
   * @param {number} frames T
   * @param {{scores: Scores, done: Scores[], undone: Scores[]}} history next state to return to last, in both lists
   */
  constructor(frames, history) {
    this.frames = frames;
    this.load(history);
  }

  /** Take over the server's history; a stroke in progress goes on. */
  load({ scores, done, undone }) {
    this.#edited = scores;
    this.done = [...done];
    this.undone = [...undone];
  }

  /** The edit as it looks now, with the stroke in progress. @returns {Scores} */
  get scores() {
    return this.#stroke ?? this.#edited;
  }

  get painting() {
    return this.#stroke !== null;
  }

  /** Begin a stroke on the edit, or on `base` where there is none. @param {readonly number[]} base */
  begin(base) {
    this.#stroke ??= [...(this.#edited ?? base)];
  }

  /** Set a range of cells, interpolating linearly between two values. @param {number} from @param {number} to */
  paint(from, to, first, last = first) {
    const steps = Math.abs(to - from);
    for (let i = 0; i <= steps; i++) {
      const at = from + Math.sign(to - from) * i;
      if (at >= 0 && at < this.frames) this.#stroke[at] = roundScore(steps ? first + ((last - first) * i) / steps : last);
    }
  }

  /** End the stroke, which is one undo step. @returns {Step|null} null if nothing changed */
  commit() {
    const stroke = this.#stroke;
    this.#stroke = null;
    return stroke && this.#apply("paint", stroke);
  }

  /** Forget the stroke in progress. */
  cancel() {
    this.#stroke = null;
  }

  /** Replace the whole edit; null removes it. @param {Scores} scores @returns {Step|null} */
  replace(scores) {
    this.#stroke = null;
    return this.#apply(scores === null ? "clear" : "paint", scores && [...scores]);
  }

  get canUndo() {
    return this.painting || this.done.some((scores) => !equalScores(scores, this.#edited));
  }

  get canRedo() {
    return !this.painting && this.undone.some((scores) => !equalScores(scores, this.#edited));
  }

  /** @returns {Step|null} */
  undo() {
    return this.#moveBetween("undo", this.done, this.undone);
  }

  /** @returns {Step|null} */
  redo() {
    return this.#moveBetween("redo", this.undone, this.done);
  }

  /** Apply a change that was not acknowledged yet when the page was opened. @param {Step} step */
  replay({ kind, scores }) {
    if (kind === "undo") this.undo();
    else if (kind === "redo") this.redo();
    else this.#apply(kind, scores);
  }

  #moveBetween(kind, from, to) {
    // an equal state differs in the comment alone: the step would not be visible
    while (from.length && equalScores(from.at(-1), this.#edited)) from.pop();
    if (!from.length) return null;
    to.push(this.#edited);
    this.#edited = from.pop();
    return { kind, scores: this.#edited };
  }

  #apply(kind, scores) {
    if (equalScores(scores, this.#edited)) return null;
    this.done.push(this.#edited);
    this.undone = [];
    this.#edited = scores;
    return { kind, scores };
  }
}

/** Scores 1 inside a range and 0 outside. @param {number} frames @param {number} from @param {number} to @returns {number[]} */
export function onlyRange(frames, from, to) {
  return Array.from({ length: frames }, (_, i) => (i >= from && i <= to ? 1 : 0));
}
