// The colour scales of attention; the session brings them from explain/drawing.py, which colours our pictures.

/** Name -> 256 RGB triples from 0 to 1. @type {Record<string, Uint8ClampedArray>} */
let tables = {};
let scheme = "blue-red";

/** CSS colour of a table's entry 0..255. */
const css = (i) => `rgb(${tables[scheme].subarray(3 * i, 3 * i + 3).join(", ")})`;

export const colours = {
  /** Take the scales of a session. @param {Record<string, number[][]>} scales */
  load(scales) {
    tables = Object.fromEntries(
      Object.entries(scales).map(([name, triples]) => [name, Uint8ClampedArray.from(triples.flat())]),
    );
  },
  /** Name of the scale in use: "blue-red" or "safe". */
  get scheme() {
    return scheme;
  },
  /** Names of all scales. */
  get names() {
    return Object.keys(tables);
  },
  /** Use another scale; what is drawn already must be drawn again. @param {string} name */
  use(name) {
    scheme = name in tables ? name : "blue-red";
  },
  /** CSS colour of an attention value in 0..1; what lies outside takes the end's colour. @param {number} value */
  heat: (value) => css(Math.round(255 * Math.min(1, Math.max(0, value)))),
  /** 256 RGB triples from 0 to 1, for pixels. @returns {Uint8ClampedArray} */
  table: () => tables[scheme],
  /** The scale from left to right as a CSS gradient. */
  gradient: () => `linear-gradient(to right, ${Array.from({ length: 18 }, (_, i) => css(15 * i)).join(", ")})`,
};
