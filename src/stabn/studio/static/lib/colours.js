// The two colour scales of attention. Blue-red has the stops of our pictures (explain/canvas.py).

const SCHEMES = {
  // blue 0, pale yellow 0.5, red 1
  "blue-red": [
    [0.0, 34, 56, 176],
    [0.18, 56, 118, 208],
    [0.36, 128, 192, 232],
    [0.44, 206, 222, 220],
    [0.5, 250, 238, 158],
    [0.64, 255, 176, 72],
    [0.82, 236, 84, 40],
    [1.0, 182, 4, 34],
  ],
  // cividis: its lightness rises evenly, so that it reads alike with every kind of colour vision and in grey
  safe: [
    [0.0, 0, 34, 78],
    [0.125, 28, 53, 109],
    [0.25, 66, 78, 108],
    [0.375, 95, 103, 111],
    [0.5, 124, 123, 120],
    [0.625, 157, 148, 115],
    [0.75, 192, 176, 103],
    [0.875, 227, 205, 84],
    [1.0, 254, 232, 56],
  ],
};

let scheme = "blue-red";
let table = tableOf(scheme);

function tableOf(name) {
  const stops = SCHEMES[name];
  const rgb = new Uint8ClampedArray(256 * 3);
  for (let i = 0, s = 0; i < 256; i++) {
    const value = i / 255;
    while (s < stops.length - 2 && value > stops[s + 1][0]) s++;
    const share = (value - stops[s][0]) / (stops[s + 1][0] - stops[s][0]);
    for (let c = 0; c < 3; c++)
      rgb[3 * i + c] = Math.round(stops[s][c + 1] + share * (stops[s + 1][c + 1] - stops[s][c + 1]));
  }
  return rgb;
}

const place = (value) => 3 * Math.round(255 * Math.min(1, Math.max(0, value)));

export const colours = {
  /** Name of the scale in use: "blue-red" or "safe". */
  get scheme() {
    return scheme;
  },
  /** Names of all scales. */
  names: Object.keys(SCHEMES),
  /** Use another scale; what is drawn already must be drawn again. @param {string} name */
  use(name) {
    scheme = name in SCHEMES ? name : "blue-red";
    table = tableOf(scheme);
  },
  /** CSS colour of an attention value in 0..1; what lies outside takes the end's colour. @param {number} value */
  heat(value) {
    const i = place(value);
    return `rgb(${table[i]}, ${table[i + 1]}, ${table[i + 2]})`;
  },
  /** 256 RGB triples from 0 to 1, for pixels. @returns {Uint8ClampedArray} */
  table: () => table,
  /** The scale from left to right as a CSS gradient. */
  gradient: () =>
    `linear-gradient(to right, ${SCHEMES[scheme].map(([at, r, g, b]) => `rgb(${r}, ${g}, ${b}) ${100 * at}%`).join(", ")})`,
};
