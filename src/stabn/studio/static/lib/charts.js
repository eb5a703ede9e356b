// Small charts: curves as SVG, frame scores and intervals as bars. Colours come from pages.css, light or dark.

import { element } from "./dom.js";

const SVG = "http://www.w3.org/2000/svg";
const [WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM] = [480, 230, 50, 14, 12, 34];
const DOTS_TO = 30; // epochs up to which each value gets a mark

/** @typedef {{name: string, kind: "fine-tuned"|"control", dashed: boolean, points: [number, number][]}} Line */

/**
 * Curves over epochs with axes, a legend and the numbers as a table behind "Numbers".
 * @param {{id: string, title: string, description: string, format: (value: number) => string, zero?: boolean}} chart
 * @returns {{root: HTMLElement, draw: (data: {lines: Line[], last: number, reference: {name: string, value: number}|null}) => void}}
 */
export function lineChart({ id, title, description, format, zero = false }) {
  const svg = shape("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-labelledby": `${id}-title ${id}-text`, class: "chart" });
  const legend = element("ul", { class: "chart-legend small" });
  const numbers = element("div", { class: "scroll" });
  const root = element("figure", { id, class: "chart-figure" }, element("figcaption", {}, title), svg, legend,
    element("details", { class: "numbers small" }, element("summary", {}, "Numbers"), numbers));
  return { root, draw };

  function draw({ lines, last, reference }) {
    const drawn = lines.map((line) => ({ ...line, points: line.points.filter(([, y]) => Number.isFinite(y)) }));
    const values = [...drawn.flatMap(({ points }) => points.map(([, y]) => y)), ...(reference ? [reference.value] : [])];
    const ticks = niceTicks(zero ? 0 : Math.min(...values, Infinity), Math.max(...values, -Infinity));
    const [low, high] = [ticks[0], ticks.at(-1)];
    const first = last > 1 ? 1 : 0.5;
    const x = (epoch) => LEFT + ((epoch - first) / Math.max(0.5, (last > 1 ? last : 1.5) - first)) * (WIDTH - LEFT - RIGHT);
    const y = (value) => HEIGHT - BOTTOM - ((value - low) / (high - low)) * (HEIGHT - TOP - BOTTOM);
    const parts = [shape("title", { id: `${id}-title` }, title), shape("desc", { id: `${id}-text` }, `${description} ${spoken(drawn, reference, format)}`)];
    for (const tick of ticks) {
      parts.push(shape("path", { class: "grid", d: `M${LEFT} ${y(tick)}H${WIDTH - RIGHT}` }));
      parts.push(shape("text", { x: LEFT - 7, y: y(tick) + 4, "text-anchor": "end" }, format(tick)));
    }
    for (const epoch of epochTicks(last)) parts.push(shape("text", { x: x(epoch), y: HEIGHT - BOTTOM + 16, "text-anchor": "middle" }, epoch));
    parts.push(shape("text", { class: "axis", x: WIDTH - RIGHT, y: HEIGHT - 3, "text-anchor": "end" }, "epoch"));
    if (reference) parts.push(shape("path", { class: "reference", d: `M${LEFT} ${y(reference.value)}H${WIDTH - RIGHT}` }));
    for (const line of drawn) parts.push(...curve(line, x, y));
    svg.replaceChildren(...parts);
    legend.replaceChildren(...drawn.map((line) => legendEntry(line.name, `line ${line.kind}${line.dashed ? " dashed" : ""}`)), ...(reference ? [legendEntry(reference.name, "reference")] : []));
    numbers.replaceChildren(table(drawn, last, reference, format));
  }
}

function curve({ kind, dashed, points }, x, y) {
  const name = `line ${kind}${dashed ? " dashed" : ""}`;
  const d = points.map(([epoch, value], i) => `${i ? "L" : "M"}${x(epoch).toFixed(1)} ${y(value).toFixed(1)}`).join("");
  const dots = points.length <= DOTS_TO ? points : points.slice(-1);
  return [d ? shape("path", { class: name, d }) : null, ...dots.map(([epoch, value]) => (kind === "control"
    ? shape("rect", { class: `dot ${kind}`, x: x(epoch) - 3, y: y(value) - 3, width: 6, height: 6 })
    : shape("circle", { class: `dot ${kind}`, cx: x(epoch), cy: y(value), r: dashed ? 2.2 : 3.2 })))].filter(Boolean);
}

function legendEntry(name, kind) {
  const sample = shape("svg", { viewBox: "0 0 28 10", width: 28, height: 10, "aria-hidden": "true", class: "chart" }, shape("path", { class: kind, d: "M1 5H27" }));
  return element("li", {}, sample, name);
}

function table(lines, last, reference, format) {
  const rows = Array.from({ length: last }, (_, i) => i + 1).filter((epoch) => lines.some(({ points }) => points.some(([at]) => at === epoch)));
  return element("table", { class: "table" },
    element("thead", {}, element("tr", {}, element("th", { scope: "col" }, "Epoch"), lines.map(({ name }) => element("th", { scope: "col", class: "number" }, name)))),
    element("tbody", {},
      reference ? element("tr", {}, element("th", { scope: "row" }, reference.name), element("td", { class: "number", colspan: lines.length || 1 }, format(reference.value))) : null,
      rows.map((epoch) => element("tr", {}, element("th", { scope: "row" }, epoch), lines.map(({ points }) => {
        const found = points.find(([at]) => at === epoch);
        return element("td", { class: "number" }, found ? format(found[1]) : "–");
      })))));
}

function spoken(lines, reference, format) {
  const ends = lines.filter(({ points }) => points.length).map(({ name, points }) => `${name}: ${format(points.at(-1)[1])} after epoch ${points.at(-1)[0]}`);
  if (reference) ends.unshift(`${reference.name}: ${format(reference.value)}`);
  return `${ends.join("; ") || "No values yet"}.`;
}

/** Three to six round numbers that enclose the range; 0 to 1 for no range. */
function niceTicks(low, high) {
  if (!Number.isFinite(low) || !Number.isFinite(high)) return [0, 0.25, 0.5, 0.75, 1];
  const span = Math.max(high - low, 0.02 * Math.max(1, Math.abs(high)));
  const raw = span / 4;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = power * [1, 2, 2.5, 5, 10].find((factor) => factor * power >= raw * 0.999);
  const from = Math.floor(low / step + 1e-9);
  const to = Math.max(from + 2, Math.ceil(high / step - 1e-9));
  return Array.from({ length: to - from + 1 }, (_, i) => Number(((from + i) * step).toPrecision(6)));
}

function epochTicks(last) {
  const step = [1, 2, 5, 10, 20, 50, 100, 200, 500].find((size) => last / size <= 8) ?? 1000;
  const ticks = Array.from({ length: Math.floor(last / step) }, (_, i) => (i + 1) * step);
  return step === 1 ? ticks : [1, ...ticks.filter((tick) => tick > step / 2 + 1)];
}

function shape(tag, attributes = {}, ...children) {
  const created = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) created.setAttribute(name, String(value));
  created.append(...children.map((child) => (child instanceof Node ? child : String(child))));
  return created;
}

/**
 * One bar per frame, 0 at the bottom and 1 at the top.
 * @param {string} name what a screen reader says first
 * @param {number[]} scores T
 * @param {((value: number) => string)|null} heat colour of a value; null for what people said
 * @returns {{root: HTMLElement, mark: (position: number) => void, recolour: (heat: (value: number) => string) => void}}
 */
export function scoreBars(name, scores, heat) {
  const bars = scores.map((score, position) => element("span", { class: "score", dataset: { position }, title: `frame ${position + 1}: ${score.toFixed(2)}` }, element("i", { style: { "--v": score, "--colour": heat ? heat(score) : "var(--edited)" } })));
  const root = element("div", { class: "scores", role: "img", "aria-label": `${name}: ${scores.map((score) => score.toFixed(2)).join(", ")}` }, bars);
  let marked = null;
  return {
    root,
    mark(position) {
      marked?.classList.remove("now");
      marked = bars[position];
      marked?.classList.add("now");
    },
    recolour(next) {
      if (heat) bars.forEach((bar, i) => bar.firstChild.style.setProperty("--colour", next(scores[i])));
    },
  };
}

/**
 * A value with its 95 % interval on a scale that the rows of a table share.
 * @param {{low: number, high: number, value: number}} interval
 * @param {[number, number]} scale
 * @param {"before"|"control"|"fine-tuned"} kind
 */
export function intervalBar({ low, high, value }, [from, to], kind) {
  const at = (number) => `${((100 * (number - from)) / (to - from)).toFixed(2)}%`;
  return element("span", { class: `interval ${kind}`, "aria-hidden": "true", style: { "--low": at(low), "--high": at(high), "--at": at(value) } }, element("i"), element("b"));
}
