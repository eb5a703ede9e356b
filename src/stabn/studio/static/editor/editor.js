// The editor: one clip, when and where the network looked, and the person's own scores.

import { addControls, drawEditor, keyActions } from "./controls.js";
import { ClipEdit } from "./clip-edit.js";
import { HeatMaps } from "./heat.js";
import { listenToKeys } from "./keys.js";
import { emptyLayout } from "./layout.js";
import { OtherEdits } from "./other-edits.js";
import { Frames, Player } from "./player.js";
import { allDone, queueIds } from "../screens/queue-order.js";
import { recall, remember } from "../lib/settings.js";
import { Stage } from "./stage.js";
import { Timeline } from "./timeline.js";
import { WhatIf } from "./what-if.js";

const POLL_INTERVAL = 4000; // ms between checks for changes by other people
const SAVE_TIMEOUT = 5000; // ms to wait for an acknowledgement before reporting that there is none

/** @param {HTMLElement} root @param {import("../main.js").Context} context @param {{id?: string, end?: string}} params */
export async function show(root, context, params) {
  if (params.end) return allDone(root, context);
  if (!params.id) return context.go("#/");
  const editor = new ClipEditor(root, context, params.id);
  try {
    await editor.open();
  } catch (error) {
    editor.close();
    throw error;
  }
  return () => editor.close();
}

/** One opened clip and the person who works on it. */
export class ClipEditor {
  position = 0;
  anchor = null; // where a selection began; the other end is `position`
  brush = 1;
  opacity = recall("opacity", 0.5);
  clip = null;
  #closing = [];
  #drawing = 0;
  #fineTimer = 0;
  #saving = false;
  #painted = null;

  constructor(root, context, id) {
    Object.assign(this, { context, id, author: context.author(), places: emptyLayout() });
    this.places.others.style.setProperty("--rows", OtherEdits.rows);
    root.append(this.places.root);
    this.stage = new Stage(this.places.box, () => this.draw());
    const { frames } = context.session;
    // pictures are requested at once, without waiting for the clip's data, so that the first one is shown early
    this.frames = new Frames(frames, (position) => context.api.address("frame", { id, position }), {
      fetchBlob: async (url, signal) => (await fetchPicture(context, url, signal)).blob(),
      onLoaded: (position) => {
        this.timeline?.loaded(position);
        if (position === this.position) this.draw();
      },
      onError: (_, error) => context.notify(`Some frames could not be shown: ${error.message}`, "error"),
      onFinished: () => this.#ready(),
    });
    context.signal.addEventListener("abort", () => this.frames.close());
    this.#closing.push(
      () => this.frames.close(),
      () => this.stage.close(),
    );
  }

  async open() {
    const { context, id, author } = this;
    // pending changes must arrive first, or the server's history would lack them
    await context.outbox.waitUntilSent(id, 1500);
    const [clip, ids] = await Promise.all([
      context.api.get("clip", { id, author: author || null }, { signal: context.signal }),
      queueIds(context, id),
    ]);
    Object.assign(this, { clip, ids, index: ids.indexOf(id), version: clip.version });
    this.edit = new ClipEdit({
      clip,
      author,
      outbox: context.outbox,
      settings: { recall, remember },
      changed: () => this.#changed(),
    });
    this.maps = new HeatMaps(clip.spatial);
    this.player = new Player(
      clip.timestamps,
      (position) => this.frames.pictures[position] !== null || this.frames.missing.has(position),
      (position) => this.#show(position),
    );
    this.timeline = new Timeline(
      clip,
      {
        select: (position, extend) => this.goTo(position, extend),
        begin: () => this.mayPaint(),
        paint: (from, to, first, last) => this.#stroke(from, to, first, last),
        end: () => this.edit.finish(),
      },
      context.colours,
    );
    this.whatIf = new WhatIf(clip, context.session.class_names, context.api, () => this.edit.scores);
    this.otherEdits = new OtherEdits(clip, author);
    Object.assign(this, addControls(this));
    this.frames.pictures.forEach((picture, position) => picture && this.timeline.loaded(position));
    this.#listen();
    this.draw();
    if (this.frames.done) this.#ready();
    if (!document.querySelector("dialog[open]")) this.timeline.root.focus({ preventScroll: true });
  }

  #listen() {
    const { edit, context } = this;
    const finish = () => edit.finishAll();
    const scheme = (event) => {
      event.preventDefault();
      this.maps.clear();
      this.timeline.recolour(context.colours);
      this.bar.swatch.style.setProperty("background", context.colours.gradient());
      this.draw();
    };
    const poll = setInterval(() => document.hidden || this.#poll(), POLL_INTERVAL);
    let soon = 0; // agreement with others is computed by the server, once my change has arrived
    const stop = context.outbox.listen(({ type, change }) => {
      if (type !== "acknowledged" || change.id !== this.id || !this.otherEdits.edits.length) return;
      clearTimeout(soon);
      soon = setTimeout(() => this.#poll(), 700);
    });
    window.addEventListener("stabn-leaving", finish);
    window.addEventListener("stabn-scheme", scheme);
    this.#closing.push(
      listenToKeys(keyActions(this)),
      () => clearInterval(poll),
      () => clearTimeout(soon),
      stop,
      () => this.player.pause(),
      () => edit.close(),
      () => this.whatIf.close(),
      () => {
        window.removeEventListener("stabn-leaving", finish);
        window.removeEventListener("stabn-scheme", scheme);
        clearTimeout(this.#fineTimer);
        cancelAnimationFrame(this.#drawing);
      },
    );
  }

  /** First and last position that a key paints: the selection, or the current frame. @returns {[number, number]} */
  get target() {
    const other = this.anchor ?? this.position;
    return [Math.min(other, this.position), Math.max(other, this.position)];
  }

  /** @param {number} position @param {boolean} [extend] the selection to there */
  goTo(position, extend = false) {
    this.player.pause();
    this.#endNudge();
    if (extend) this.anchor ??= this.position;
    else this.anchor = null;
    this.#show(Math.min(this.clip.temporal.length - 1, Math.max(0, position)));
  }

  select(from, to) {
    this.goTo(from);
    this.goTo(to, true);
  }

  #show(position) {
    this.position = position;
    this.draw();
  }

  play() {
    if (this.player.playing) this.player.pause();
    else {
      this.anchor = null;
      this.player.play(this.position);
    }
    this.draw();
  }

  /** Choose the level to paint with; the selection (with `always` also the current frame) gets it at once. */
  choose(level, always = false) {
    this.brush = level === "fine" && this.brush === "fine" ? 1 : level;
    if (level !== "fine" && (always || this.anchor !== null)) this.set(level);
    this.draw();
  }

  /** One stroke over the target. @param {number} value */
  set(value) {
    if (!this.mayPaint()) return;
    this.edit.paint(...this.target, value);
    this.edit.finish();
  }

  /** Fine mode: change the target by a small step; successive presses are one stroke. @param {number} by */
  nudge(by) {
    if (this.brush !== "fine" || !this.mayPaint(false)) return;
    for (let at = this.target[0]; at <= this.target[1]; at++) {
      const now = this.edit.scores?.[at] ?? (this.edit.base === "network" ? this.clip.temporal[at] : 0);
      this.edit.paint(at, at, now + by);
    }
    clearTimeout(this.#fineTimer);
    this.#fineTimer = setTimeout(() => this.#endNudge(), 600);
  }

  #endNudge() {
    if (!this.#fineTimer) return;
    clearTimeout(this.#fineTimer);
    this.#fineTimer = 0;
    this.edit.finish();
  }

  /** Whether painting is possible now; asks for a name if that is missing. @returns {boolean} */
  mayPaint(ends = true) {
    this.player.pause();
    if (ends) this.#endNudge();
    if (!this.clip.editable || this.author) return true;
    this.context.name(); // asks for it, and reopens this clip under the name
    return false;
  }

  #stroke(from, to, first, last) {
    if (this.brush === "fine") this.edit.paint(from, to, first, last);
    else this.edit.paint(from, to, this.brush);
    this.anchor = null;
    this.#show(to);
  }

  /** Change the whole edit at once. @param {() => void} change */
  whole(change) {
    if (this.mayPaint()) change();
  }

  #changed() {
    this.draw();
    const { scores } = this.edit;
    if (scores !== this.#painted) this.whatIf?.editChanged();
    else this.whatIf?.update();
    this.#painted = scores;
    this.otherEdits?.draw(this.edit.scores !== null);
  }

  /** Draw soon, once for everything that changes until then. */
  draw() {
    this.#drawing ||= requestAnimationFrame(() => {
      this.#drawing = 0;
      drawEditor(this);
    });
  }

  /** All frames are loaded: warm up what-if, so that the first stroke is answered at once, and prefetch the next clip. */
  #ready() {
    this.frames.done = true;
    if (!this.clip) return;
    this.whatIf.update();
    const next = this.ids[this.index + 1];
    if (next && next !== this.id) this.context.api.post("prefetch", { id: next }).catch(() => {});
  }

  async #poll() {
    try {
      const { version, clips } = await this.context.api.get(
        "changes",
        { since: this.version },
        { signal: this.context.signal },
      );
      if (clips.includes(this.id)) {
        const clip = await this.context.api.get(
          "clip",
          { id: this.id, author: this.author || null },
          { signal: this.context.signal },
        );
        this.edit.update(clip);
        this.otherEdits.update(clip, this.edit.scores !== null);
      }
      this.version = version;
    } catch {
      // the header shows when the studio does not answer; the next poll follows soon
    }
  }

  /** Save, and when the studio has acknowledged everything, open the next clip. */
  async save() {
    if (this.#saving) return;
    this.#saving = true;
    this.#endNudge();
    this.edit.finishAll();
    const saved = await this.context.outbox.waitUntilSent(this.id, SAVE_TIMEOUT);
    this.#saving = false;
    if (this.context.signal.aborted) return;
    if (saved) this.leave(1);
    else
      this.context.notify(
        "The studio has not confirmed yet. Your work is kept in this browser and is sent as soon as it answers; continue with Page down.",
        "error",
      );
  }

  /** @param {1|-1} way */
  leave(way) {
    const to = this.index + way;
    if (to < 0 && way < 0) return;
    this.context.go(to < this.ids.length ? `#/clip?id=${encodeURIComponent(this.ids[to])}` : "#/clip?end=1");
  }

  close() {
    for (const end of this.#closing.splice(0)) end();
  }
}

function fetchPicture({ api }, url, signal) {
  return api.request("GET", url, { signal, cache: "default" });
}
