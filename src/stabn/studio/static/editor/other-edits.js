// Other people's edits of the same clip, below the person's own. Hidden until the person has an edit, to avoid bias.

import { element, tip } from "../lib/dom.js";

const ROWS = 3; // more people than this scroll

export class OtherEdits {
  static rows = 1; // of the previous clip; the next clip reserves as much space

  #showAnyway = false;

  /** @param {object} clip @param {string} me */
  constructor(clip, me) {
    Object.assign(this, { me });
    this.root = element("div", { id: "others" });
    this.figure = element("span", { id: "agreement", class: "row tight small" });
    this.update(clip, clip.history.scores !== null);
    const rows = this.edits.length + (this.edits.some((edit) => edit.comment) ? 1 : 0);
    OtherEdits.rows = Math.min(ROWS, Math.max(1, rows));
    this.root.style.setProperty("--rows", OtherEdits.rows);
  }

  /** @param {object} clip with everybody's current edits @param {boolean} mine whether I have an edit of my own */
  update(clip, mine) {
    this.edits = clip.edits.filter((edit) => edit.author !== this.me);
    this.agreement = clip.agreement;
    this.draw(mine);
  }

  /** @param {boolean} mine */
  draw(mine) {
    const { edits } = this;
    const shown = edits.length > 0 && (mine || this.#showAnyway);
    const key = JSON.stringify([edits, this.agreement, shown]);
    if (key === this.drawn) return;
    this.drawn = key;
    this.figure.replaceChildren(...(shown && this.agreement !== null ? this.#agreementParts() : []));
    if (shown) this.root.replaceChildren(element("div", { class: "tracks" }, edits.map(track), allComments(edits)));
    else if (edits.length) {
      const count = edits.length === 1 ? "One other person has" : `${edits.length} other people have`;
      this.root.replaceChildren(
        element(
          "p",
          { class: "row muted small" },
          `${count} corrected this clip.`,
          element(
            "button",
            {
              id: "show-others",
              class: "button quiet",
              type: "button",
              onclick: () => {
                this.#showAnyway = true;
                this.draw(mine);
              },
            },
            "Show now",
          ),
          tip(
            "Hidden until you have painted yourself, so that your edit is independent. Afterwards you see where people agree.",
            "start",
          ),
        ),
      );
    } else this.root.replaceChildren(element("p", { class: "muted small" }, "Nobody else has corrected this clip."));
  }

  #agreementParts() {
    return [
      element("span", { class: "muted" }, "Agreement"),
      element("strong", {}, this.agreement.toFixed(2).replace("-", "−")),
      tip(
        "Krippendorff's alpha of everybody's scores of this clip: 1 is full agreement, 0 is what chance would give, below 0 people contradict each other.",
        "below",
      ),
    ];
  }
}

function allComments(edits) {
  const withComment = edits.filter((edit) => edit.comment);
  return withComment.length
    ? element(
        "p",
        { class: "small remarks" },
        withComment.map(({ author, comment }) => element("span", {}, element("strong", {}, `${author}: `), comment)),
      )
    : null;
}

function track({ author, scores, comment }) {
  return element(
    "div",
    {
      class: "track",
      title: comment ? `${author}: ${comment}` : author,
      role: "img",
      "aria-label": `${author}: ${scores.join(", ")}`,
    },
    element("span", { class: "gutter ellipsis" }, author),
    element(
      "span",
      { class: "cells thin", style: { "--frames": scores.length } },
      scores.map((score) => element("i", { style: { "--v": score } })),
    ),
  );
}
