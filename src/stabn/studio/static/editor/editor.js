// The editor: one clip, when and where the network looked, and the person's own scores.

import { drawDesk, furnish, keyActions } from "./desk.js";
import { Editing } from "./editing.js";
import { HeatMaps } from "./heat.js";
import { listenToKeys } from "./keys.js";
import { furniture } from "./layout.js";
import { Others } from "./others.js";
import { Frames, Player } from "./player.js";
import { allDone, queueIds } from "../screens/queue-order.js";
import { recall, remember } from "../lib/settings.js";
import { Stage } from "./stage.js";
import { Timeline } from "./timeline.js";
import { WhatIf } from "./what-if.js";

const POLL = 4000; // ms between questions whether somebody else changed something
const PATIENCE = 5000; // ms to wait for an acknowledgement before saying that there is none

/** @param {HTMLElement} root @param {import("../main.js").Context} context @param {{id?: string, end?: string}} params */
export async function show(root, context, params) {
  if (params.end) return allDone(root, context);
  if (!params.id) return context.go("#/");
  const desk = new Desk(root, context, params.id);
  try {
    await desk.open();
  } catch (error) {
    desk.close();
    throw error;
  }
  return () => desk.close();
}

/** One opened clip and the person who works on it. */
export class Desk {
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
    Object.assign(this, { context, id, author: context.author(), places: furniture() });
    this.places.others.style.setProperty("--rows", Others.rows);
    root.append(this.places.root);
    this.stage = new Stage(this.places.box, () => this.draw());
    const { frames } = context.session;
    // pictures are asked for at once, not only when the rest is known: the first one should come soon
    this.frames = new Frames(frames, (position) => context.api.address("frame", { id, position }), {
      fetchBlob: async (url, signal) => (await fetchPicture(context, url, signal)).blob(),
      arrived: (position) => {
        this.timeline?.loaded(position);
        if (position === this.position) this.draw();
      },
      failed: (_, error) => context.say(`Some frames could not be shown: ${error.message}`, "error"),
      finished: () => this.#ready(),
    });
    context.leaving.addEventListener("abort", () => this.frames.close());
    this.#closing.push(
      () => this.frames.close(),
      () => this.stage.close(),
    );
  }

  async open() {
    const { context, id, author } = this;
    // what still waits must arrive first, or the server's history would lack it
    await context.outbox.settled(id, 1500);
    const [clip, ids] = await Promise.all([
      context.api.get("clip", { id, author: author || null }, { signal: context.leaving }),
      queueIds(context, id),
    ]);
    Object.assign(this, { clip, ids, index: ids.indexOf(id), version: clip.version });
    this.editing = new Editing({
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
        end: () => this.editing.finish(),
      },
      context.colours,
    );
    this.whatIf = new WhatIf(clip, context.session.class_names, context.api, () => this.editing.scores);
    this.others = new Others(clip, author);
    Object.assign(this, furnish(this));
    this.frames.pictures.forEach((picture, position) => picture && this.timeline.loaded(position));
    this.#listen();
    this.draw();
    if (this.frames.done) this.#ready();
    if (!document.querySelector("dialog[open]")) this.timeline.root.focus({ preventScroll: true });
  }

  #listen() {
    const { editing, context } = this;
    const finish = () => editing.finishAll();
    const scheme = (event) => {
      event.preventDefault();
      this.maps.forget();
      this.timeline.recolour(context.colours);
      this.bar.swatch.style.setProperty("background", context.colours.gradient());
      this.draw();
    };
    const poll = setInterval(() => document.hidden || this.#poll(), POLL);
    let soon = 0; // agreement with others is computed by the server, once what I painted has arrived
    const stop = context.outbox.listen(({ type, change }) => {
      if (type !== "acknowledged" || change.id !== this.id || !this.others.edits.length) return;
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
      () => editing.close(),
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

  /** Take a level to paint with; what is selected (with a key also the current frame) gets it at once. */
  choose(level, always = false) {
    this.brush = level === "fine" && this.brush === "fine" ? 1 : level;
    if (level !== "fine" && (always || this.anchor !== null)) this.set(level);
    this.draw();
  }

  /** One stroke over the target. @param {number} value */
  set(value) {
    if (!this.mayPaint()) return;
    this.editing.paint(...this.target, value);
    this.editing.finish();
  }

  /** Fine mode: change the target by a little; presses that follow one another are one stroke. @param {number} by */
  nudge(by) {
    if (this.brush !== "fine" || !this.mayPaint(false)) return;
    for (let at = this.target[0]; at <= this.target[1]; at++) {
      const now = this.editing.scores?.[at] ?? (this.editing.base === "network" ? this.clip.temporal[at] : 0);
      this.editing.paint(at, at, now + by);
    }
    clearTimeout(this.#fineTimer);
    this.#fineTimer = setTimeout(() => this.#endNudge(), 600);
  }

  #endNudge() {
    if (!this.#fineTimer) return;
    clearTimeout(this.#fineTimer);
    this.#fineTimer = 0;
    this.editing.finish();
  }

  /** Whether painting is possible now; asks for a name if that is missing. @returns {boolean} */
  mayPaint(ends = true) {
    this.player.pause();
    if (ends) this.#endNudge();
    if (!this.clip.editable || this.author) return true;
    this.context.name(); // asks, and shows this clip anew under the name
    return false;
  }

  #stroke(from, to, first, last) {
    if (this.brush === "fine") this.editing.paint(from, to, first, last);
    else this.editing.paint(from, to, this.brush);
    this.anchor = null;
    this.#show(to);
  }

  /** Change the whole edit at once. @param {() => void} change */
  whole(change) {
    if (this.mayPaint()) change();
  }

  #changed() {
    this.draw();
    const { scores } = this.editing;
    if (scores !== this.#painted) this.whatIf?.painted();
    else this.whatIf?.ask();
    this.#painted = scores;
    this.others?.draw(this.editing.scores !== null);
  }

  /** Draw soon, once for everything that changes until then. */
  draw() {
    this.#drawing ||= requestAnimationFrame(() => {
      this.#drawing = 0;
      drawDesk(this);
    });
  }

  /** Everything of this clip is here: ask once so that the first stroke is answered at once, and fetch the next clip. */
  #ready() {
    this.frames.done = true;
    if (!this.clip) return;
    this.whatIf.ask();
    const next = this.ids[this.index + 1];
    if (next && next !== this.id) this.context.api.post("prefetch", { id: next }).catch(() => {});
  }

  async #poll() {
    try {
      const { version, clips } = await this.context.api.get(
        "changes",
        { since: this.version },
        { signal: this.context.leaving },
      );
      if (clips.includes(this.id)) {
        const clip = await this.context.api.get(
          "clip",
          { id: this.id, author: this.author || null },
          { signal: this.context.leaving },
        );
        this.editing.update(clip);
        this.others.update(clip, this.editing.scores !== null);
      }
      this.version = version;
    } catch {
      // the header says when the studio is away; the next question comes soon
    }
  }

  /** Save, and when the studio has acknowledged everything, open the next clip. */
  async save() {
    if (this.#saving) return;
    this.#saving = true;
    this.#endNudge();
    this.editing.finishAll();
    const saved = await this.context.outbox.settled(this.id, PATIENCE);
    this.#saving = false;
    if (this.context.leaving.aborted) return;
    if (saved) this.leave(1);
    else
      this.context.say(
        "The studio has not confirmed yet. Your work is kept in this browser and is sent as soon as it answers; you can go on with Page down.",
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
