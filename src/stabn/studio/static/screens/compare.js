// One clip before and after: the same frames under both heat maps, frame scores, and what both networks answered.

import { scoreBars } from "../lib/charts.js";
import { HeatMaps } from "../editor/heat.js";
import { Frames, Player } from "../editor/player.js";
import { Stage } from "../editor/stage.js";
import { clipAddress, percent } from "../lib/wording.js";

const SIDES = [["before", "Before"], ["after", "Fine-tuned"]];
const ROWS = 5; // classes listed

export class ClipComparison {
  position = 0;

  /**
   * @param {HTMLElement} root what was in it is replaced
   * @param {import("../main.js").Context} context
   * @param {object} clip answer of GET /api/job/clip
   */
  constructor(root, context, clip) {
    Object.assign(this, { context, clip, opacity: context.recall("opacity", 0.5) });
    this.#build(root);
    this.frames = new Frames(clip.timestamps.length, (position) => context.api.address("frame", { id: clip.id, position }), {
      fetchBlob: async (url, signal) => (await context.api.request("GET", url, { signal, cache: "default" })).blob(),
      onLoaded: (position) => position === this.position && this.draw(),
      onError: (position, error) => this.#failed(error),
      onFinished: () => this.#ready(),
    });
    this.player = new Player(clip.timestamps, (position) => this.frames.pictures[position] !== null, (position) => this.goTo(position));
    this.recolour = (event) => {
      event.preventDefault(); // the page redraws itself and need not be rebuilt
      for (const side of this.sides) side.maps.clear();
      for (const { bars } of this.tracks) bars.recolour(context.colours.heat);
      this.legend.style.setProperty("background", context.colours.gradient());
      this.draw();
    };
    window.addEventListener("stabn-scheme", this.recolour);
    this.goTo(0);
  }

  close() {
    this.player.pause();
    this.frames.close();
    for (const { stage } of this.sides) stage.close();
    window.removeEventListener("stabn-scheme", this.recolour);
  }

  #build(root) {
    const { element, colours } = this.context;
    const { clip } = this;
    const last = clip.timestamps.length - 1;
    this.sides = SIDES.map(([name, title]) => {
      const box = element("div", { class: "compare-stage" });
      const stage = new Stage(box, () => this.draw());
      stage.canvas.id = `stage-${name}`;
      stage.canvas.setAttribute("aria-label", `${title}: the frame with its heat map`);
      const right = clip[name].predicted === clip.label;
      const figure = element("figure", { class: "compare-side", dataset: { side: name } }, element("figcaption", { class: "row" }, element("strong", {}, title),
        element("span", { class: `chip ${right ? "right" : "wrong"}`, title: clip[name].predicted }, element("span", { class: "ellipsis" }, `${right ? "✓" : "✗"} ${clip[name].predicted}`), ` ${percent(Math.max(...clip[name].probabilities))}`)), box);
      return { stage, figure, maps: new HeatMaps(clip[name].spatial) };
    });
    const range = [Math.min(...this.sides.map(({ maps }) => maps.range[0])), Math.max(...this.sides.map(({ maps }) => maps.range[1]))];
    for (const { maps } of this.sides) maps.range = range; // so that a colour means the same value on both sides
    this.play = element("button", { id: "play", class: "button icon", type: "button", onclick: () => this.toggle() });
    this.slider = element("input", { id: "frame", type: "range", min: 0, max: last, step: 1, value: "0", "aria-label": "Frame", class: "spacer" });
    this.slider.addEventListener("input", () => {
      this.pause();
      this.goTo(this.slider.valueAsNumber);
    });
    this.info = element("span", { id: "frame-info", class: "muted" });
    this.legend = element("span", { class: "compare-legend", style: { background: colours.gradient() } });
    const opacity = element("input", { id: "opacity", type: "range", min: 0, max: 100, step: 5, value: String(Math.round(100 * this.opacity)), "aria-label": "Heat map: how strong" });
    opacity.addEventListener("input", () => {
      this.opacity = opacity.valueAsNumber / 100;
      this.context.remember("opacity", this.opacity);
      this.draw();
    });
    this.trouble = element("p", { class: "wrong small", role: "alert", hidden: true });
    this.#showPlaying();
    root.replaceChildren(
      element("div", { class: "row" }, element("h2", { class: "detail-title", title: clip.label }, clip.label), element("span", { class: "spacer" }), element("a", { class: "detail-open", href: clipAddress(clip.id), title: clip.id }, "Open in the editor")),
      element("div", { class: "compare-sides" }, this.sides.map(({ figure }) => figure)), this.trouble,
      element("div", { class: "row compare-bar" }, this.play, this.slider, this.info, element("label", { class: "row small muted" }, "Heat map", opacity), element("span", { class: "row tight small muted", title: "Both heat maps have this scale" }, range[0].toFixed(2), this.legend, range[1].toFixed(2))),
      this.#tracks(), this.#probabilities());
    root.onkeydown = (event) => this.#key(event);
  }

  #tracks() {
    const { element, colours } = this.context;
    const { clip } = this;
    const rows = [["before", "Before", clip.before.temporal, true], ["control", "Control", clip.control?.temporal, true], ["after", "Fine-tuned", clip.after.temporal, true], ["edited", "Corrected", clip.edited, false]].filter(([, , scores]) => scores);
    this.tracks = rows.map(([name, title, scores, network]) => ({ name, title, bars: scoreBars(`${title}, score of each frame`, scores, network ? colours.heat : null) }));
    const root = element("div", { id: "tracks", class: "score-tracks", style: { "--frames": clip.timestamps.length } }, this.tracks.map(({ name, title, bars }) => {
      bars.root.dataset.track = name;
      return [element("span", { class: "track-name muted small" }, title), bars.root];
    }));
    root.addEventListener("click", ({ target }) => {
      const bar = target.closest("[data-position]");
      if (!bar) return;
      this.pause();
      this.goTo(Number(bar.dataset.position));
    });
    return element("div", { class: "stack" }, element("h3", {}, "How much each frame counts"), root);
  }

  /** The classes that either network found most probable, and the true one. */
  #probabilities() {
    const { element, session } = this.context;
    const { before, after, control, label } = this.clip;
    const names = session.class_names;
    const truth = names.indexOf(label);
    const order = names.map((_, i) => i).sort((a, b) => Math.max(before.probabilities[b], after.probabilities[b]) - Math.max(before.probabilities[a], after.probabilities[a]));
    const shown = [...new Set([...(truth >= 0 ? [truth] : []), ...order])].slice(0, ROWS).sort((a, b) => after.probabilities[b] - after.probabilities[a]);
    const sides = [["Before", before, "network"], ...(control ? [["Control", control, "control"]] : []), ["Fine-tuned", after, "edited"]];
    return element("div", { class: "scroll" }, element("table", { id: "probabilities", class: "table probabilities" },
      element("thead", {}, element("tr", {}, element("th", { scope: "col" }, "Answer"), sides.map(([title]) => element("th", { scope: "col" }, title)))),
      element("tbody", {}, shown.map((i) => element("tr", { dataset: { class: names[i] } },
        element("th", { scope: "row", class: "name" }, i === truth ? element("span", { class: "right" }, "✓ ") : "", names[i], i === truth ? element("span", { class: "visually-hidden" }, " (true label)") : null),
        sides.map(([, side, kind]) => element("td", {}, element("span", { class: `probability ${kind}`, style: { "--v": side.probabilities[i] } }, percent(side.probabilities[i], side.probabilities[i] < 0.095 ? 1 : 0)))))))));
  }

  /** @param {number} position 0..T-1 */
  goTo(position) {
    const { timestamps } = this.clip;
    this.position = position;
    this.slider.value = String(position);
    const time = `frame ${position + 1} of ${timestamps.length}, ${(timestamps[position] - timestamps[0]).toFixed(2)} s`;
    this.info.textContent = time;
    this.slider.setAttribute("aria-valuetext", time);
    for (const { bars } of this.tracks) bars.mark(position);
    this.draw();
  }

  draw() {
    if (!this.frames) return; // the stages are measured before the first picture is requested
    for (const { stage, maps } of this.sides) stage.draw(this.frames.pictures[this.position], this.position, this.clip.crop, maps, this.opacity, this.context.colours.table());
  }

  toggle() {
    if (this.player.playing) this.pause();
    else {
      this.player.play(this.position);
      this.#showPlaying();
    }
  }

  pause() {
    this.touched = true; // a person who looks for a frame does not want the clip to start playing
    this.player.pause();
    this.#showPlaying();
  }

  #showPlaying() {
    const playing = this.player?.playing ?? false;
    this.play.replaceChildren(this.context.icon(playing ? "pause" : "play"));
    this.play.setAttribute("aria-label", playing ? "Pause" : "Play");
    this.play.title = playing ? "Pause (space)" : "Play (space)";
  }

  #ready() {
    const complete = this.frames.pictures.every(Boolean);
    if (complete && !this.touched && !window.matchMedia("(prefers-reduced-motion: reduce)").matches) this.toggle();
  }

  #failed(error) {
    this.trouble.hidden = false;
    this.trouble.textContent = `Some frames could not be shown: ${error.message}`;
  }

  #key(event) {
    if (event.key !== " " || event.target.closest("button, a, summary")) return;
    event.preventDefault();
    this.toggle();
  }
}
