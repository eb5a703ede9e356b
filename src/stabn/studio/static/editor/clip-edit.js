// One person's work on one clip: strokes and comment, and how they reach the server. No DOM.

import { newRequest } from "../lib/outbox.js";
import { onlyRange, Strokes } from "./strokes.js";

const PAUSE = 800; // ms without typing before a comment is sent

export class ClipEdit {
  #timer = 0;
  #stop;

  /**
   * @param {object} parts
   * @param {object} parts.clip answer of GET /api/clip
   * @param {string} parts.author
   * @param {import("../lib/outbox.js").Outbox} parts.outbox
   * @param {{recall: Function, remember: Function}} parts.settings
   * @param {() => void} parts.changed scores or comment are different now
   */
  constructor({ clip, author, outbox, settings, changed }) {
    Object.assign(this, { clip, author, outbox, settings, changed, frames: clip.temporal.length });
    this.draft = `draft|${clip.id}|${author}`; // a comment on a clip without an edit is kept in the browser until there is an edit
    this.strokes = new Strokes(this.frames, clip.history);
    this.event = clip.history.event;
    this.comment = this.sentComment = clip.history.comment;
    if (clip.history.scores === null) this.comment = settings.recall(this.draft, "") || this.comment;
    for (const change of this.#pendingChanges()) {
      this.strokes.replay(change);
      this.comment = this.sentComment = change.comment;
    }
    this.#stop = outbox.listen(({ type, change, answer }) => {
      if (type === "acknowledged" && this.#isOurs(change)) this.event = Math.max(this.event, answer.event);
    });
  }

  /** Whether changes are sent to the server. */
  get isSaved() {
    return this.clip.editable && this.author !== "";
  }

  get scores() {
    return this.strokes.scores;
  }

  /** What frames without a stroke get in a clip's first stroke: "blank" or "network". */
  get base() {
    return this.settings.recall("base", "blank") === "network" ? "network" : "blank";
  }

  set base(name) {
    this.settings.remember("base", name);
    this.changed();
  }

  /** Whether changes are not acknowledged yet. */
  get pending() {
    return this.#pendingChanges().length > 0;
  }

  /** Paint a part of a stroke, which `finish` ends; arguments as `Strokes.paint`. */
  paint(from, to, first, last = first) {
    this.strokes.begin(this.#startScores(this.base));
    this.strokes.paint(from, to, first, last);
    this.changed();
  }

  /** End the stroke, if one is being painted: it is one step back, and is saved. */
  finish() {
    this.#save(this.strokes.commit());
  }

  /** @param {"network"|"blank"} from */
  startFrom(from) {
    this.finish();
    this.#save(this.strokes.replace(this.#startScores(from)));
  }

  /** Make only a range relevant. @param {number} from @param {number} to */
  setRange(from, to) {
    this.finish();
    this.#save(this.strokes.replace(onlyRange(this.frames, from, to)));
  }

  remove() {
    this.finish();
    this.#save(this.strokes.replace(null));
  }

  undo() {
    this.finish();
    this.#save(this.strokes.undo());
  }

  redo() {
    this.finish();
    this.#save(this.strokes.redo());
  }

  /** @param {string} text */
  setComment(text) {
    this.comment = text;
    clearTimeout(this.#timer);
    if (this.scores === null) this.settings.remember(this.draft, text || null);
    else this.#timer = setTimeout(() => this.finishComment(), PAUSE);
  }

  /** Send the comment if it is new and there is an edit that it belongs to. */
  finishComment() {
    clearTimeout(this.#timer);
    if (this.comment !== this.sentComment && this.strokes.scores !== null)
      this.#post({ kind: "paint", scores: this.strokes.scores });
  }

  /** Send everything that is not sent yet. */
  finishAll() {
    this.finish();
    this.finishComment();
  }

  /**
   * Take over the server's state, unless something here is newer.
   * @param {object} clip answer of GET /api/clip
   * @returns {boolean} whether anything changed
   */
  update(clip) {
    if (clip.history.event <= this.event || this.strokes.painting || this.pending || this.comment !== this.sentComment)
      return false;
    this.event = clip.history.event;
    this.strokes.load(clip.history);
    this.comment = this.sentComment = clip.history.comment;
    this.changed();
    return true;
  }

  close() {
    this.finishAll();
    this.#stop();
  }

  #startScores(from) {
    return from === "network" ? this.clip.temporal : Array(this.frames).fill(0);
  }

  #save(step) {
    if (step) this.#post(step);
    this.changed();
  }

  #post({ kind, scores }) {
    if (!this.isSaved) return;
    this.sentComment = this.comment;
    clearTimeout(this.#timer);
    this.settings.remember(this.draft, null);
    this.outbox.add({
      id: this.clip.id,
      author: this.author,
      request: newRequest(),
      kind,
      scores: scores && [...scores],
      comment: this.comment,
    });
  }

  #pendingChanges() {
    return this.outbox.pending(this.clip.id, this.author);
  }

  #isOurs(change) {
    return change.id === this.clip.id && change.author === this.author;
  }
}
