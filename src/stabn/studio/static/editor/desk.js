// The desk: the furniture of one clip with everything wired to it, what its keys do, and how it is drawn.

import { element, icon } from "../lib/dom.js";
import { showKeys } from "./keys.js";
import { stageBar, startRow, titleRow, toolRow } from "./layout.js";
import { Others } from "./others.js";
import { remember } from "../lib/settings.js";

/**
 * Fill the furniture with what the clip needs.
 * @param {import("./editor.js").Desk} desk
 */
export function furnish(desk) {
  const { places, context } = desk;
  const { colours } = context;
  places.title.replaceChildren(
    ...titleRow(
      desk.clip,
      { index: desk.index, count: desk.ids.length },
      {
        previous: () => desk.leave(-1),
        next: () => desk.leave(1),
        save: () => desk.save(),
      },
    ),
  );
  const bar = stageBar(
    {
      play: () => desk.play(),
      step: (by) => desk.goTo(desk.position + by),
      opacity: (value) => {
        desk.opacity = value;
        remember("opacity", value);
        desk.draw();
      },
    },
    { opacity: desk.opacity, range: desk.maps.range, gradient: colours.gradient() },
  );
  places.bar.replaceChildren(...bar.children);
  const focusTimeline = () => desk.timeline.root.focus({ preventScroll: true });
  const tools = toolRow({
    level: (level) => desk.choose(level),
    fineValue: (value) => desk.set(value),
    undo: () => desk.editing.undo(),
    redo: () => desk.editing.redo(),
    keys: showKeys,
    focusTimeline,
  });
  places.tools.replaceChildren(...tools.children);
  const starts = startRow(
    {
      network: () => desk.whole(() => desk.editing.startFrom("network")),
      blank: () => desk.whole(() => desk.editing.startFrom("blank")),
      range: () => desk.whole(() => desk.editing.only(...desk.target)),
      remove: () => desk.whole(() => desk.editing.remove()),
      focusTimeline,
    },
    desk,
  );
  places.starts.replaceChildren(...starts.children);
  places.tracks.replaceChildren(
    element(
      "div",
      { class: "gutter names small" },
      element("span", {}, "Network"),
      element("span", {}, desk.clip.editable ? "Mine" : "Trial"),
    ),
    desk.timeline.root,
    element(
      "p",
      { id: "timeline-help", class: "visually-hidden" },
      "Arrow keys step, shift and arrows select, 1, 2 and 3 paint 0, 0.5 and 1. Press ? for all keys.",
    ),
  );
  places.side.replaceChildren(desk.whatIf.root);
  places.others.replaceChildren(desk.others.root);
  places.others.style.setProperty("--rows", Others.rows);
  places.tools.insertBefore(desk.others.figure, places.tools.lastChild);
  // after a click the keys belong to the timeline again, so that space plays and enter saves
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
 * @param {import("./editor.js").Desk} desk
 */
export function keyActions(desk) {
  const { editing } = desk;
  const step = (by, extend) => () => desk.goTo(desk.position + by, extend);
  const last = desk.clip.temporal.length - 1;
  return {
    1: () => desk.choose(0, true),
    2: () => desk.choose(0.5, true),
    3: () => desk.choose(1, true),
    ArrowLeft: step(-1),
    ArrowRight: step(1),
    "shift+ArrowLeft": step(-1, true),
    "shift+ArrowRight": step(1, true),
    Home: () => desk.goTo(0),
    End: () => desk.goTo(last),
    "shift+Home": () => desk.goTo(0, true),
    "shift+End": () => desk.goTo(last, true),
    ArrowUp: () => desk.nudge(0.05),
    ArrowDown: () => desk.nudge(-0.05),
    "mod+a": () => desk.select(0, last),
    Escape: () => {
      desk.goTo(desk.position);
      desk.timeline.root.focus({ preventScroll: true });
    },
    " ": (event) => event.repeat || desk.play(),
    "mod+z": () => editing.undo(),
    "mod+shift+z": () => editing.redo(),
    "mod+y": () => editing.redo(),
    Enter: (event) => event.repeat || desk.save(),
    PageUp: () => desk.leave(-1),
    PageDown: () => desk.leave(1),
    r: () => desk.starts.range.click(),
    n: () => desk.whole(() => editing.startFrom("network")),
    b: () => desk.whole(() => editing.startFrom("blank")),
    f: () => desk.choose("fine"),
    c: () => desk.places.starts.querySelector("#comment")?.focus(),
    "?": showKeys,
  };
}

/**
 * Draw what may have changed.
 * @param {import("./editor.js").Desk} desk
 */
export function drawDesk(desk) {
  const { clip, position, context } = desk;
  const picture = desk.frames.pictures[position];
  desk.stage.draw(
    picture,
    position,
    clip?.crop ?? [0, 0, 1, 1],
    desk.maps,
    clip ? desk.opacity : 0,
    context.colours.table(),
  );
  if (!clip) return;
  const { editing, tools, bar } = desk;
  const scores = editing.scores;
  const blank = editing.base === "blank";
  const what = clip.editable ? "Not corrected yet." : "Nothing is kept here, but you can try.";
  desk.timeline.draw({
    position,
    selection: desk.anchor === null ? null : desk.target,
    scores,
    hint: scores
      ? ""
      : `${what} Drag here to paint; all other frames start at ${blank ? "0.0" : "the network's scores"}.`,
  });
  const [from, to] = desk.target;
  const time = `${clip.timestamps[position].toFixed(2)} s`;
  setText(bar.info, `frame ${clip.frame_indices[position]} · ${time} · ${position + 1} of ${clip.temporal.length}`);
  bar.info.title =
    "Frame number in the video file counted from 0, its time, and its place among the frames that the network sees";
  desk.stage.canvas.setAttribute(
    "aria-label",
    `${clip.label ?? clip.name}, frame ${position + 1} of ${clip.temporal.length}`,
  );
  const { playing } = desk.player;
  if (bar.play.dataset.playing !== String(playing)) {
    bar.play.dataset.playing = playing;
    bar.play.replaceChildren(icon(playing ? "pause" : "play"));
    bar.play.setAttribute("aria-label", playing ? "Stop" : "Play");
    bar.play.title = playing ? "Stop (Space)" : "Play at true speed (Space)";
  }
  for (const button of tools.levels) button.setAttribute("aria-pressed", String(desk.brush) === button.dataset.level);
  tools.value.disabled = desk.brush !== "fine";
  if (document.activeElement !== tools.value)
    tools.value.value = scores ? String(Math.round(100 * scores[position]) / 100) : "";
  tools.undo.disabled = !editing.strokes.canUndo;
  tools.redo.disabled = !editing.strokes.canRedo;
  desk.starts.remove.disabled = scores === null;
  setText(tools.chosen, desk.anchor === null ? "" : `Frames ${from + 1} to ${to + 1} selected`);
  const { comment } = desk.starts;
  if (document.activeElement !== comment && comment.value !== editing.comment) comment.value = editing.comment;
}

function setText(place, text) {
  if (place.textContent !== text) place.textContent = text;
}
