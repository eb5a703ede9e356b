// Fills the editor's layout with controls for one clip, defines what its keys do, and draws it.

import { element, icon } from "../lib/dom.js";
import { showKeys } from "./keys.js";
import { stageBar, startRow, titleRow, toolRow } from "./layout.js";
import { OtherEdits } from "./other-edits.js";
import { remember } from "../lib/settings.js";

/**
 * Add the controls of the clip to the empty layout.
 * @param {import("./editor.js").ClipEditor} editor
 */
export function addControls(editor) {
  const { places, context } = editor;
  const { colours } = context;
  places.title.replaceChildren(
    ...titleRow(
      editor.clip,
      { index: editor.index, count: editor.ids.length },
      {
        previous: () => editor.leave(-1),
        next: () => editor.leave(1),
        save: () => editor.save(),
      },
    ),
  );
  const bar = stageBar(
    {
      play: () => editor.play(),
      step: (by) => editor.goTo(editor.position + by),
      opacity: (value) => {
        editor.opacity = value;
        remember("opacity", value);
        editor.draw();
      },
    },
    { opacity: editor.opacity, range: editor.maps.range, gradient: colours.gradient() },
  );
  places.bar.replaceChildren(...bar.children);
  const focusTimeline = () => editor.timeline.root.focus({ preventScroll: true });
  const tools = toolRow({
    level: (level) => editor.choose(level),
    fineValue: (value) => editor.set(value),
    undo: () => editor.edit.undo(),
    redo: () => editor.edit.redo(),
    keys: showKeys,
    focusTimeline,
  });
  places.tools.replaceChildren(...tools.children);
  const starts = startRow(
    {
      network: () => editor.whole(() => editor.edit.startFrom("network")),
      blank: () => editor.whole(() => editor.edit.startFrom("blank")),
      range: () => editor.whole(() => editor.edit.setRange(...editor.target)),
      remove: () => editor.whole(() => editor.edit.remove()),
      focusTimeline,
    },
    editor,
  );
  places.starts.replaceChildren(...starts.children);
  places.tracks.replaceChildren(
    element(
      "div",
      { class: "gutter names small" },
      element("span", {}, "Network"),
      element("span", {}, editor.clip.editable ? "Mine" : "Trial"),
    ),
    editor.timeline.root,
    element(
      "p",
      { id: "timeline-help", class: "visually-hidden" },
      "Arrow keys step, shift and arrows select, 1, 2 and 3 paint 0, 0.5 and 1. Press ? for all keys.",
    ),
  );
  places.side.replaceChildren(editor.whatIf.root);
  places.others.replaceChildren(editor.otherEdits.root);
  places.others.style.setProperty("--rows", OtherEdits.rows);
  places.tools.insertBefore(editor.otherEdits.figure, places.tools.lastChild);
  // a click returns the focus to the timeline, so that space plays and enter saves
  places.root.addEventListener("click", (event) => {
    if (
      event.detail > 0 &&
      event.target.closest("button") &&
      !event.target.closest(".tip") &&
      !document.querySelector("dialog[open]")
    )
      focusTimeline();
  });
  places.root.addEventListener(
    "change",
    (event) => event.target.matches("select:not(:focus-visible)") && focusTimeline(),
  );
  places.bar.querySelector("#opacity").addEventListener("pointerup", focusTimeline);
  return { bar, tools, starts };
}

/**
 * What each key does.
 * @param {import("./editor.js").ClipEditor} editor
 */
export function keyActions(editor) {
  const { edit } = editor;
  const step = (by, extend) => () => editor.goTo(editor.position + by, extend);
  const last = editor.clip.temporal.length - 1;
  return {
    1: () => editor.choose(0, true),
    2: () => editor.choose(0.5, true),
    3: () => editor.choose(1, true),
    ArrowLeft: step(-1),
    ArrowRight: step(1),
    "shift+ArrowLeft": step(-1, true),
    "shift+ArrowRight": step(1, true),
    Home: () => editor.goTo(0),
    End: () => editor.goTo(last),
    "shift+Home": () => editor.goTo(0, true),
    "shift+End": () => editor.goTo(last, true),
    ArrowUp: () => editor.nudge(0.05),
    ArrowDown: () => editor.nudge(-0.05),
    "mod+a": () => editor.select(0, last),
    Escape: () => {
      editor.goTo(editor.position);
      editor.timeline.root.focus({ preventScroll: true });
    },
    " ": (event) => event.repeat || editor.play(),
    "mod+z": () => edit.undo(),
    "mod+shift+z": () => edit.redo(),
    "mod+y": () => edit.redo(),
    Enter: (event) => event.repeat || editor.save(),
    PageUp: () => editor.leave(-1),
    PageDown: () => editor.leave(1),
    r: () => editor.starts.range.click(),
    n: () => editor.whole(() => edit.startFrom("network")),
    b: () => editor.whole(() => edit.startFrom("blank")),
    f: () => editor.choose("fine"),
    c: () => editor.places.starts.querySelector("#comment")?.focus(),
    "?": showKeys,
  };
}

/**
 * Draw what may have changed.
 * @param {import("./editor.js").ClipEditor} editor
 */
export function drawEditor(editor) {
  const { clip, position, context } = editor;
  const picture = editor.frames.pictures[position];
  editor.stage.draw(
    picture,
    position,
    clip?.crop ?? [0, 0, 1, 1],
    editor.maps,
    clip ? editor.opacity : 0,
    context.colours.table(),
  );
  if (!clip) return;
  const { edit, tools, bar } = editor;
  const scores = edit.scores;
  const blank = edit.base === "blank";
  const what = clip.editable ? "Not corrected yet." : "Nothing is kept here, but you can try.";
  editor.timeline.draw({
    position,
    selection: editor.anchor === null ? null : editor.target,
    scores,
    hint: scores
      ? ""
      : `${what} Drag here to paint; all other frames start at ${blank ? "0.0" : "the network's scores"}.`,
  });
  const [from, to] = editor.target;
  const time = `${clip.timestamps[position].toFixed(2)} s`;
  setText(bar.info, `frame ${clip.frame_indices[position]} · ${time} · ${position + 1} of ${clip.temporal.length}`);
  bar.info.title =
    "Frame number in the video file counted from 0, its time, and its place among the frames that the network sees";
  editor.stage.canvas.setAttribute(
    "aria-label",
    `${clip.label ?? clip.name}, frame ${position + 1} of ${clip.temporal.length}`,
  );
  const { playing } = editor.player;
  if (bar.play.dataset.playing !== String(playing)) {
    bar.play.dataset.playing = playing;
    bar.play.replaceChildren(icon(playing ? "pause" : "play"));
    bar.play.setAttribute("aria-label", playing ? "Stop" : "Play");
    bar.play.title = playing ? "Stop (Space)" : "Play at true speed (Space)";
  }
  for (const button of tools.levels) button.setAttribute("aria-pressed", String(editor.brush) === button.dataset.level);
  tools.value.disabled = editor.brush !== "fine";
  if (document.activeElement !== tools.value)
    tools.value.value = scores ? String(Math.round(100 * scores[position]) / 100) : "";
  tools.undo.disabled = !edit.strokes.canUndo;
  tools.redo.disabled = !edit.strokes.canRedo;
  editor.starts.remove.disabled = scores === null;
  setText(tools.chosen, editor.anchor === null ? "" : `Frames ${from + 1} to ${to + 1} selected`);
  const { comment } = editor.starts;
  if (document.activeElement !== comment && comment.value !== edit.comment) comment.value = edit.comment;
}

function setText(place, text) {
  if (place.textContent !== text) place.textContent = text;
}
