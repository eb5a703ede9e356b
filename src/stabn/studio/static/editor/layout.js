// The editor's layout before any data is loaded, and the tools around the timeline.

import { element, icon, tip } from "../lib/dom.js";
import { LEVELS } from "./strokes.js";

/** Create placeholders of fixed size, so that nothing moves when the clip is loaded. */
export function emptyLayout() {
  const place = (name, ...children) => element("div", { class: `place-${name}` }, ...children);
  const box = element("div", { class: "stage-box" });
  const parts = {
    title: place("title", element("h1", { class: "ellipsis muted", tabindex: -1 }, "Opening the clip…")),
    box,
    bar: element("div", { class: "stage-bar row" }),
    stage: null,
    side: place("side", element("div", { class: "card" })),
    tools: element("div", { class: "row tools" }),
    tracks: element("div", { class: "tracks-box" }, element("div", { class: "placeholder cells" })),
    others: element("div", { class: "others-box" }),
    starts: element("div", { class: "row starts" }),
  };
  parts.stage = place("stage", box, parts.bar);
  const timeline = place("timeline", parts.tools, parts.tracks, parts.others, parts.starts);
  return { ...parts, root: element("div", { class: "editor" }, parts.title, parts.stage, parts.side, timeline) };
}

const percent = (value) => `${Math.round(100 * value)} %`;

/** Label, the network's answer, position in the queue, and buttons for the previous and next clip. */
export function titleRow(clip, { index, count }, on) {
  const right = clip.label === clip.predicted;
  const verdict = clip.label === null ? "" : right ? "✓ " : "✗ ";
  const confidence = Math.max(...clip.probabilities);
  const at = index < 0 ? (clip.source === "queue" ? "" : "not in the queue") : `${index + 1} of ${count}`;
  return [
    clip.label === null ? null : element("span", { class: "muted small" }, "True label"),
    element("h1", { class: "ellipsis", tabindex: -1, title: clip.label ?? clip.name }, clip.label ?? clip.name),
    element(
      "span",
      {
        id: "predicted",
        class: `chip ${clip.label === null ? "" : right ? "right" : "wrong"}`,
        title: "The network's own answer",
      },
      element("span", { class: "ellipsis" }, `${verdict}network: ${clip.predicted}`),
      ` ${percent(confidence)}`,
    ),
    element("span", { class: "muted small ellipsis clip-name", title: clip.id }, clip.label === null ? "" : clip.name),
    element("span", { class: "spacer" }),
    element("span", { id: "place", class: "muted" }, at),
    element(
      "button",
      {
        id: "previous",
        class: "button icon",
        type: "button",
        disabled: index <= 0,
        "aria-label": "Previous clip",
        title: "Previous clip (Page up)",
        onclick: on.previous,
      },
      icon("previous"),
    ),
    element(
      "button",
      {
        id: "skip-clip",
        class: "button icon",
        type: "button",
        "aria-label": "Next clip",
        title: "Next clip (Page down)",
        onclick: on.next,
      },
      icon("next"),
    ),
    element(
      "button",
      {
        id: "next",
        class: "button primary",
        type: "button",
        title: clip.editable ? "Save and open the next clip (Enter)" : "Open the next clip (Enter)",
        onclick: on.save,
      },
      clip.editable ? "Save, next" : "Next",
    ),
  ].filter(Boolean);
}

/** Play, where we are, and the heat map with its legend. */
export function stageBar(on, { opacity, range, gradient }) {
  const slider = element("input", {
    id: "opacity",
    type: "range",
    min: 0,
    max: 100,
    step: 5,
    value: String(Math.round(100 * opacity)),
    "aria-label": "Heat map: how strong",
    title: "How strong the heat map is; 0 hides it",
  });
  slider.addEventListener("input", () => on.opacity(Number(slider.value) / 100));
  const swatch = element("span", { class: "scale", style: { background: gradient } });
  const parts = {
    play: element("button", { id: "play", class: "button icon", type: "button", onclick: on.play }),
    info: element("span", { id: "frame-info" }),
    swatch,
  };
  return {
    ...parts,
    children: [
      element(
        "button",
        {
          id: "frame-back",
          class: "button icon",
          type: "button",
          "aria-label": "One frame back",
          title: "One frame back (←)",
          onclick: () => on.step(-1),
        },
        icon("previous"),
      ),
      parts.play,
      element(
        "button",
        {
          id: "frame-on",
          class: "button icon",
          type: "button",
          "aria-label": "One frame on",
          title: "One frame on (→)",
          onclick: () => on.step(1),
        },
        icon("next"),
      ),
      parts.info,
      element("span", { class: "spacer" }),
      element("label", { class: "row small muted", for: "opacity" }, "Heat map", slider),
      element(
        "span",
        { class: "row tight small muted", id: "legend" },
        range[0].toFixed(2),
        swatch,
        range[1].toFixed(2),
      ),
      tip(
        `Where it looked: from little to much. The colours are stretched to this clip's own range, ${range[0].toFixed(3)} to ${range[1].toFixed(3)}, so compare places within the clip, not between clips.`,
      ),
    ],
  };
}

/** Levels, fine mode, undo and redo. */
export function toolRow(on) {
  const levels = LEVELS.map(({ value, key, name }) =>
    element(
      "button",
      {
        class: "button level",
        type: "button",
        dataset: { level: value },
        title: `${value.toFixed(1)}: ${name} (key ${key})`,
        onclick: () => on.level(value),
      },
      element("span", { class: "level-mark", dataset: { value } }),
      element("strong", {}, value.toFixed(1)),
      element("span", { class: "words" }, name),
    ),
  );
  const fine = element(
    "button",
    {
      id: "fine",
      class: "button level",
      type: "button",
      dataset: { level: "fine" },
      title: "Fine: the height of the pointer is the value (key F)",
      onclick: () => on.level("fine"),
    },
    "Fine",
  );
  const value = element("input", {
    id: "fine-value",
    class: "field",
    type: "number",
    min: 0,
    max: 1,
    step: 0.05,
    "aria-label": "Value of this frame or selection, 0 to 1",
    disabled: true,
  });
  value.addEventListener(
    "change",
    () => value.value !== "" && on.fineValue(Math.min(1, Math.max(0, Number(value.value)))),
  );
  value.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" && event.key !== "Escape") return;
    event.preventDefault(); // leaving the field is a change
    on.focusTimeline();
  });
  const undo = element(
    "button",
    {
      id: "undo",
      class: "button icon",
      type: "button",
      "aria-label": "Undo",
      title: "Undo (Ctrl Z)",
      onclick: on.undo,
    },
    icon("undo"),
  );
  const redo = element(
    "button",
    {
      id: "redo",
      class: "button icon",
      type: "button",
      "aria-label": "Redo",
      title: "Redo (Ctrl Shift Z)",
      onclick: on.redo,
    },
    icon("redo"),
  );
  const chosen = element("span", { id: "selection", class: "muted small" });
  return {
    levels: [...levels, fine],
    value,
    undo,
    redo,
    chosen,
    children: [
      element("span", { class: "gutter muted small" }, "Paint"),
      element("span", { class: "segments", role: "group", "aria-label": "Level to paint" }, levels, fine),
      value,
      element("span", { class: "row tight" }, undo, redo),
      element("span", { class: "spacer" }),
      chosen,
      element(
        "button",
        { id: "help", class: "button quiet", type: "button", title: "Show the keys (?)", onclick: on.keys },
        "Keys ",
        element("kbd", {}, "?"),
      ),
    ],
  };
}

/** Buttons that change the whole edit, and the comment field, or why the clip is read only. */
export function startRow(on, { edit, clip }) {
  const button = (id, text, title, action) =>
    element("button", { id, class: "button", type: "button", title, onclick: action }, text);
  const range = button(
    "from-range",
    "Only the selection",
    "The selected frames matter (1.0), all others do not (0.0) (key R)",
    on.range,
  );
  const remove = button("remove", "Remove my edit", "As if you had painted nothing; undo brings it back", on.remove);
  const base = element(
    "select",
    {
      id: "base",
      class: "field",
      title: "What all other frames get when you paint the first stroke of a clip",
      onchange: () => {
        edit.base = base.value;
      },
    },
    element("option", { value: "blank" }, "0.0"),
    element("option", { value: "network" }, "network's"),
  );
  base.value = edit.base;
  const comment = element("input", {
    id: "comment",
    class: "field",
    type: "text",
    maxlength: 2000,
    placeholder: "Comment (optional)",
    "aria-label": "Comment on this clip",
    value: edit.comment,
  });
  comment.addEventListener("input", () => edit.setComment(comment.value));
  comment.addEventListener("blur", () => edit.finishComment());
  comment.addEventListener("keydown", (event) => {
    if (event.isComposing || (event.key !== "Enter" && event.key !== "Escape")) return;
    event.preventDefault();
    event.stopPropagation();
    on.focusTimeline();
  });
  return {
    range,
    remove,
    comment,
    children: [
      element("span", { class: "gutter muted small" }, "Start from"),
      element(
        "span",
        { class: "segments" },
        button("from-network", "Network's", "Take over the network's scores and change them (key N)", on.network),
        button("from-blank", "Blank", "All frames 0.0 (key B)", on.blank),
        range,
      ),
      remove,
      clip.editable
        ? element("label", { class: "row small muted", for: "base" }, "First stroke sets others to", base)
        : null,
      clip.editable
        ? comment
        : element(
            "p",
            { id: "read-only", class: "banner warn small", role: "note" },
            clip.why_not ?? "Nothing that you paint here is kept.",
          ),
    ].filter(Boolean),
  };
}
