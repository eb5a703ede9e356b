// A clip as a card of the queue: picture, true label, the network's answer, who corrected it.

import { element } from "../lib/dom.js";
import { address } from "../lib/api.js";
import { clipAddress, percent } from "../lib/wording.js";

/** @typedef {{id: string, label: string, predicted: string, confidence: number, label_probability: number, edited_by: string[], updated: string|null}} QueueClip */

/**
 * A clip's picture in a box whose size is known before it arrives; a video that cannot be read leaves the box empty.
 * @param {string} id
 * @param {() => void} [failed]
 */
export function thumbnail(id, failed) {
  const picture = element("img", { class: "thumbnail", alt: "", loading: "lazy", decoding: "async", width: 160, height: 100, draggable: "false" });
  picture.addEventListener("error", () => {
    picture.classList.add("missing");
    failed?.();
  });
  picture.src = address("thumbnail", { id });
  return picture;
}

/** Names as chips, the person's own first; names that do not fit are counted. @param {string[]} names @param {string} me */
export function peopleChips(names, me) {
  const sorted = [...names].sort((a, b) => (b === me) - (a === me));
  const shown = sorted.slice(0, 2).map((name) => element("span", { class: `chip${name === me ? " accent" : ""}`, title: name }, element("span", { class: "ellipsis" }, name === me ? "you" : name)));
  const more = sorted.length - shown.length;
  return more > 0 ? [...shown, element("span", { class: "chip more", title: sorted.slice(2).join(", ") }, `+${more}`)] : shown;
}

/** One card, updated in place so that it keeps its focus and position. */
export class Card {
  /** @param {QueueClip} clip @param {string} me */
  constructor(clip, me) {
    this.people = element("span", { class: "clip-people" });
    this.mark = element("span", { class: "clip-mark", "aria-hidden": "true" }, "✓");
    this.link = element("a", { class: "clip-card", href: clipAddress(clip.id), tabindex: -1, dataset: { id: clip.id } },
      element("span", { class: "clip-picture placeholder" }, thumbnail(clip.id), this.mark),
      element("span", { class: "clip-label", title: `True label: ${clip.label}` }, element("span", { class: "visually-hidden" }, "True label: "), clip.label),
      element("span", { class: "clip-answer" },
        element("span", { class: "clip-predicted", title: `The network's answer: ${clip.predicted}` }, element("span", { class: "visually-hidden" }, "Network's answer: "), clip.predicted),
        element("span", { class: "clip-confidence", title: "How sure the network was" }, percent(clip.confidence))),
      element("span", { class: "clip-foot" }, element("span", { class: "clip-name ellipsis muted small", title: clip.id }, clip.id), this.people));
    this.root = element("li", { class: "clip" }, this.link);
    this.update(clip, me);
  }

  /** @param {QueueClip} clip @param {string} me */
  update(clip, me) {
    const state = JSON.stringify([clip.edited_by, me]);
    this.clip = clip;
    if (state === this.drawnState) return;
    this.drawnState = state;
    const edited = clip.edited_by.length > 0;
    this.link.dataset.state = edited ? "edited" : "todo";
    this.mark.hidden = !edited;
    this.people.replaceChildren(...(edited ? [element("span", { class: "visually-hidden" }, "Corrected by "), ...peopleChips(clip.edited_by, me)] : [element("span", { class: "muted small" }, "to do")]));
  }
}
