// The stage: the current frame with its heat map, and dimmed the part that the network did not see.

const PIXELATED_SCALE = 1.5; // from this enlargement on, the video's pixels are drawn as squares

export class Stage {
  #scaled = document.createElement("canvas");
  #scaledFrom = null;

  /** @param {HTMLElement} box holds the canvas and has a size of its own @param {() => void} resized */
  constructor(box, resized) {
    this.canvas = document.createElement("canvas");
    this.canvas.id = "stage";
    this.canvas.setAttribute("role", "img");
    box.append(this.canvas);
    this.observer = new ResizeObserver(([entry]) => {
      const pixelRatio = window.devicePixelRatio || 1;
      this.canvas.width = Math.max(1, Math.round(entry.contentRect.width * pixelRatio));
      this.canvas.height = Math.max(1, Math.round(entry.contentRect.height * pixelRatio));
      resized();
    });
    this.observer.observe(box);
  }

  close() {
    this.observer.disconnect();
  }

  /**
   * @param {ImageBitmap|null} picture
   * @param {number} position
   * @param {[number, number, number, number]} crop left, top, right, bottom as fractions
   * @param {import("./heat.js").HeatMaps} maps
   * @param {number} opacity of the heat map; 0 hides it
   * @param {Uint8ClampedArray} table
   */
  draw(picture, position, crop, maps, opacity, table) {
    const { canvas } = this;
    const context = canvas.getContext("2d");
    context.clearRect(0, 0, canvas.width, canvas.height);
    canvas.dataset.position = picture ? position : "";
    if (!picture) return;
    const scale = Math.min(canvas.width / picture.width, canvas.height / picture.height);
    const width = Math.round(picture.width * scale);
    const height = Math.round(picture.height * scale);
    const left = (canvas.width - width) >> 1;
    const top = (canvas.height - height) >> 1;
    context.imageSmoothingQuality = "high";
    context.drawImage(this.#enlarged(picture, scale), left, top, width, height);
    const x0 = left + Math.round(crop[0] * width);
    const y0 = top + Math.round(crop[1] * height);
    const x1 = left + Math.round(crop[2] * width);
    const y1 = top + Math.round(crop[3] * height);
    dim(context, [left, top, width, height], [x0, y0, x1 - x0, y1 - y0]);
    if (opacity > 0) {
      context.globalAlpha = opacity;
      context.drawImage(maps.at(position, x1 - x0, y1 - y0, table), x0, y0, x1 - x0, y1 - y0);
      context.globalAlpha = 1;
    }
  }

  /** Small videos are first enlarged by a whole factor without smoothing, so that every pixel has the same size. */
  #enlarged(picture, scale) {
    if (scale < PIXELATED_SCALE) return picture;
    if (this.#scaledFrom !== picture || this.#scaled.width !== picture.width * Math.ceil(scale)) {
      const factor = Math.ceil(scale);
      this.#scaled.width = picture.width * factor;
      this.#scaled.height = picture.height * factor;
      const context = this.#scaled.getContext("2d");
      context.imageSmoothingEnabled = false;
      context.drawImage(picture, 0, 0, this.#scaled.width, this.#scaled.height);
      this.#scaledFrom = picture;
    }
    return this.#scaled;
  }
}

/** Darken the part outside the crop (0.4 x grey + 20), so that no colour competes with the heat map. */
function dim(context, frame, crop) {
  context.save();
  context.beginPath();
  context.rect(...frame);
  context.rect(...crop);
  context.clip("evenodd");
  for (const [mode, colour] of [
    ["saturation", "#000"],
    ["multiply", "#666"],
    ["lighter", "#141414"],
  ]) {
    context.globalCompositeOperation = mode;
    context.fillStyle = colour;
    context.fillRect(...frame);
  }
  context.restore();
}
