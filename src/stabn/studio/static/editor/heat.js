// Spatial attention as a picture: values are interpolated, then coloured, as explain/heatmap.py does.

const MIN_RANGE = 1e-6; // a map with a smaller range counts as constant
const MAX_SIZE = 320; // pixels of the longer side; the canvas enlarges smoothly, with no visible difference

/**
 * The values drawn in the scale's two ends: the clip's own range, or 0 and 1 for a constant map.
 * @param {number[]} values
 * @returns {[number, number]}
 */
export function shownRange(values) {
  let low = Infinity;
  let high = -Infinity;
  for (const value of values) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return high - low > MIN_RANGE ? [low, high] : [0, 1];
}

/** For each of `size` pixels: the two source cells and the share of the second (bilinear, align_corners=false). */
function interpolation(size, cells) {
  return Array.from({ length: size }, (_, i) => {
    const at = Math.max(0, ((i + 0.5) * cells) / size - 0.5);
    const first = Math.min(Math.floor(at), cells - 1);
    return [first, Math.min(first + 1, cells - 1), at - first];
  });
}

/**
 * One frame's map, width x height pixels.
 * @param {{height: number, width: number, values: number[]}} spatial
 * @param {number} position
 * @param {[number, number]} range
 * @param {number} width
 * @param {number} height
 * @param {Uint8ClampedArray} table 256 RGB triples
 * @returns {ImageData}
 */
export function heatImage(spatial, position, [low, high], width, height, table) {
  const { values } = spatial;
  const start = position * spatial.height * spatial.width;
  const image = new ImageData(width, height);
  const columns = interpolation(width, spatial.width);
  let out = 0;
  for (const [top, bottom, down] of interpolation(height, spatial.height)) {
    const upper = start + top * spatial.width;
    const lower = start + bottom * spatial.width;
    for (const [left, right, across] of columns) {
      const above = values[upper + left] + across * (values[upper + right] - values[upper + left]);
      const below = values[lower + left] + across * (values[lower + right] - values[lower + left]);
      const value = (above + down * (below - above) - low) / (high - low);
      const colour = 3 * Math.round(255 * Math.min(1, Math.max(0, value)));
      image.data[out++] = table[colour];
      image.data[out++] = table[colour + 1];
      image.data[out++] = table[colour + 2];
      image.data[out++] = 255;
    }
  }
  return image;
}

/** Maps of a clip as canvases, created on demand. */
export class HeatMaps {
  #canvases = new Map();

  /** @param {{height: number, width: number, values: number[]}} spatial */
  constructor(spatial) {
    this.spatial = spatial;
    this.range = shownRange(spatial.values);
  }

  /** Discard the canvases, because the colours have changed. */
  clear() {
    this.#canvases.clear();
  }

  /**
   * @param {number} position
   * @param {number} width of the part it will cover, in pixels
   * @param {number} height
   * @param {Uint8ClampedArray} table
   */
  at(position, width, height, table) {
    const scale = Math.min(1, MAX_SIZE / Math.max(width, height));
    const [w, h] = [Math.max(1, Math.round(width * scale)), Math.max(1, Math.round(height * scale))];
    const cached = this.#canvases.get(position);
    if (cached?.width === w && cached?.height === h) return cached;
    const canvas = document.createElement("canvas");
    canvas.width = w;
    canvas.height = h;
    canvas.getContext("2d").putImageData(heatImage(this.spatial, position, this.range, w, h, table), 0, 0);
    this.#canvases.set(position, canvas);
    return canvas;
  }
}
