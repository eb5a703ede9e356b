// The sampled frames: fetched in order, and played at the video's speed.

const PARALLEL_REQUESTS = 3; // of a browser's six connections, so that saving and asking "what if" never wait for pictures
const MAX_TRIES = 4;

/** The T pictures of a clip, each exactly a frame that the network saw. */
export class Frames {
  #closed = new AbortController();
  #next = 0;
  #left = PARALLEL_REQUESTS;

  /**
   * @param {number} count T
   * @param {(position: number) => string} address
   * @param {(position: number) => void} onLoaded
   * @param {(position: number, error: Error) => void} failed
   * @param {(url: string, signal: AbortSignal) => Promise<Blob>} fetchBlob
   */
  constructor(count, address, { onLoaded, onError, onFinished, fetchBlob }) {
    Object.assign(this, { count, address, onLoaded, onError, onFinished, fetchBlob });
    /** @type {Array<ImageBitmap|null>} */
    this.pictures = Array(count).fill(null);
    this.missing = new Set(); // positions that could not be loaded
    for (let i = 0; i < PARALLEL_REQUESTS; i++) this.#work();
  }

  async #work() {
    while (this.#next < this.count && !this.#closed.signal.aborted) await this.#fetch(this.#next++);
    if (--this.#left === 0 && !this.#closed.signal.aborted) this.onFinished();
  }

  async #fetch(position) {
    const { signal } = this.#closed;
    for (let tried = 1; ; tried++) {
      try {
        const picture = await createImageBitmap(await this.fetchBlob(this.address(position), signal));
        if (signal.aborted) return picture.close();
        this.pictures[position] = picture;
        return this.onLoaded(position);
      } catch (error) {
        if (signal.aborted) return undefined;
        if (tried === MAX_TRIES || (error.status >= 400 && error.status < 500)) {
          this.missing.add(position);
          return this.onError(position, error);
        }
        await new Promise((resolve) => setTimeout(resolve, 400 * 2 ** tried));
      }
    }
  }

  /** Stop fetching and free the memory. */
  close() {
    this.#closed.abort();
    for (const picture of this.pictures) picture?.close();
    this.pictures.fill(null);
  }
}

/**
 * When each frame begins and when the loop ends, in seconds from the first frame; frames that repeat count once.
 * @param {number[]} timestamps T, ascending
 * @returns {{starts: number[], length: number}}
 */
export function schedule(timestamps) {
  const starts = timestamps.map((time) => time - timestamps[0]);
  const gaps = starts
    .slice(1)
    .map((time, i) => time - starts[i])
    .filter((gap) => gap > 0)
    .sort((a, b) => a - b);
  if (!gaps.length) return { starts: starts.map((_, i) => i / 12), length: starts.length / 12 };
  return { starts, length: starts.at(-1) + gaps[gaps.length >> 1] };
}

/** @param {number[]} starts @param {number} time @returns {number} the frame shown then */
export function frameAt(starts, time) {
  let low = 0;
  let high = starts.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (starts[middle] <= time) low = middle;
    else high = middle - 1;
  }
  return low;
}

/** Calls `show(position)` for each frame at its time; waits, without skipping, while `ready` is false. */
export class Player {
  #handle = 0;
  #before = 0;
  #time = 0;

  /**
   * @param {number[]} timestamps
   * @param {(position: number) => boolean} ready
   * @param {(position: number) => void} show
   */
  constructor(timestamps, ready, show) {
    Object.assign(this, { ...schedule(timestamps), ready, show, playing: false });
  }

  /** @param {number} position to start from */
  play(position) {
    this.playing = true;
    this.#time = this.starts[position];
    this.#before = performance.now();
    this.#handle = requestAnimationFrame(this.#tick);
  }

  pause() {
    this.playing = false;
    cancelAnimationFrame(this.#handle);
  }

  #tick = (now) => {
    // a page that was hidden continues where it was; a missing frame stops the clock
    const passed = Math.min(0.25, Math.max(0, (now - this.#before) / 1000));
    this.#before = now;
    const time = (this.#time + passed) % this.length;
    const position = frameAt(this.starts, time);
    if (this.ready(position)) {
      this.#time = time;
      this.show(position);
    }
    this.#handle = requestAnimationFrame(this.#tick);
  };
}
