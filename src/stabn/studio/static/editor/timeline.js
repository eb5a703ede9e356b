// The timeline: one cell per frame, above the network's score, below the edited one. The upper part selects, the lower part paints.

import { element } from "../lib/dom.js";

const two = (value) => String(Math.round(value * 100) / 100);

/** The text for screen readers of a frame. */
export function spoken(position, network, edited, time, selection) {
  const mine =
    edited === null
      ? "not edited"
      : `edited ${edited.toFixed(1) === two(edited) || Number.isInteger(edited) ? edited.toFixed(1) : two(edited)}`;
  const range =
    selection && selection[0] !== selection[1] ? `, selected ${selection[0] + 1} to ${selection[1] + 1}` : "";
  return `frame ${position + 1}, network ${network.toFixed(2)}, ${mine}, at ${time.toFixed(2)} s${range}`;
}

export class Timeline {
  #drag = null;

  /**
   * @param {object} clip answer of GET /api/clip
   * @param {object} on
   * @param {(position: number, extend: boolean) => void} on.select pointer in the upper track
   * @param {() => boolean} on.begin pointer in the lower track; false if painting is not possible
   * @param {(from: number, to: number, first: number, last: number) => void} on.paint heights 0..1 beside the cells
   * @param {() => void} on.end
   */
  constructor(clip, on, { heat }) {
    Object.assign(this, { clip, on, frames: clip.temporal.length });
    this.cells = clip.temporal.map((score, position) =>
      element(
        "div",
        { class: "cell", dataset: { position, network: score } },
        element("div", { class: "bar network", style: { "--v": score, "--heat": heat(score) } }),
        element("div", { class: "bar edited" }),
        element("span", { class: "tick" }, this.#tick(position)),
      ),
    );
    this.empty = element("div", { class: "nothing", "aria-hidden": "true" });
    this.root = element(
      "div",
      {
        id: "timeline",
        class: "cells",
        tabindex: 0,
        role: "slider",
        "aria-label": "Frames",
        "aria-describedby": "timeline-help",
        "aria-valuemin": 1,
        "aria-valuemax": this.frames,
        "aria-valuenow": 1,
        style: { "--frames": this.frames },
      },
      this.cells,
      this.empty,
    );
    this.root.addEventListener("pointerdown", (event) => this.#down(event));
    this.root.addEventListener("pointermove", (event) => this.#move(event));
    for (const name of ["pointerup", "pointercancel", "lostpointercapture"])
      this.root.addEventListener(name, (event) => this.#up(event));
  }

  #tick(position) {
    const every = this.frames <= 20 ? 1 : this.frames <= 40 ? 2 : 4;
    return position % every === 0 ? String(position + 1) : "";
  }

  /** Colours have changed. */
  recolour({ heat }) {
    this.cells.forEach((cell, i) => cell.firstChild.style.setProperty("--heat", heat(this.clip.temporal[i])));
  }

  /** @param {number} position */
  loaded(position) {
    this.cells[position].dataset.loaded = "";
  }

  /**
   * @param {{position: number, selection: [number, number]|null, scores: readonly number[]|null, hint: string}} state
   */
  draw({ position, selection, scores, hint }) {
    this.cells.forEach((cell, i) => {
      const { dataset } = cell;
      const score = scores ? String(scores[i]) : "";
      if (dataset.edited !== score) {
        dataset.edited = score;
        cell.children[1].style.setProperty("--v", score || "0");
      }
      cell.toggleAttribute("data-current", i === position);
      const selected = selection !== null && i >= selection[0] && i <= selection[1];
      cell.toggleAttribute("data-selected", selected);
    });
    this.root.toggleAttribute("data-unedited", scores === null);
    if (this.empty.textContent !== hint) this.empty.textContent = hint;
    this.root.setAttribute("aria-valuenow", position + 1);
    this.root.setAttribute(
      "aria-valuetext",
      spoken(
        position,
        this.clip.temporal[position],
        scores ? scores[position] : null,
        this.clip.timestamps[position],
        selection,
      ),
    );
  }

  /** Cell and height of a pointer; outside the timeline the nearest. */
  #place(event) {
    const box = this.root.getBoundingClientRect();
    const track = this.cells[0].children[1].getBoundingClientRect();
    const position = Math.min(
      this.frames - 1,
      Math.max(0, Math.floor(((event.clientX - box.left) / box.width) * this.frames)),
    );
    return {
      position,
      height: Math.min(1, Math.max(0, (track.bottom - event.clientY) / track.height)),
      below: event.clientY >= track.top - 4,
    };
  }

  #down(event) {
    if (event.button !== 0 || !event.isPrimary || this.#drag) return;
    event.preventDefault(); // no text selection; focus is set by hand
    this.root.focus({ preventScroll: true });
    const { position, height, below } = this.#place(event);
    const paints = below && !event.shiftKey;
    if (paints && !this.on.begin()) return;
    this.root.setPointerCapture(event.pointerId);
    this.#drag = { pointer: event.pointerId, paints, position, height };
    if (paints) this.on.paint(position, position, height, height);
    else this.on.select(position, event.shiftKey);
  }

  #move(event) {
    const drag = this.#drag;
    if (drag?.pointer !== event.pointerId) return;
    const { position, height } = this.#place(event);
    if (drag.paints)
      this.on.paint(drag.position, position, drag.height, height); // also cells that a fast pointer skipped
    else if (position !== drag.position) this.on.select(position, true);
    Object.assign(drag, { position, height });
  }

  #up(event) {
    if (this.#drag?.pointer !== event.pointerId) return;
    const { paints } = this.#drag;
    this.#drag = null;
    if (paints) this.on.end();
  }
}
