// Changes that are not acknowledged yet. Each is in the browser's storage before it is sent and until the server has
// acknowledged it, so that a closed tab, a crash or a server that is away loses nothing. No DOM here.

/** @typedef {{id: string, author: string, request: string, kind: string, scores: number[]|null, comment: string}} Change */

/** A change's unique name; the server stores a name once, so that sending twice is harmless. */
export function newRequest() {
  return Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

// Responses after which the same change may succeed later: none, a lost cookie, a busy or failing server.
const isTemporary = (status) =>
  status === 0 || status === 401 || status === 403 || status === 408 || status === 429 || status >= 500;

export class Outbox {
  #listeners = new Set();
  #memory = new Map(); // used if storage is forbidden or full
  #running = null;
  #flushAgain = false;
  #timer = 0;
  #failures = 0;
  #problem = "";
  #lastTime = 0;

  /**
   * @param {object} parts
   * @param {Storage} parts.storage
   * @param {string} parts.project changes of another project in the same storage are left alone
   * @param {(change: Change) => Promise<{event: number, version: number}>} parts.send fails with a `status`
   * @param {LockManager} [parts.locks] lets one tab at a time send
   * @param {(text: string) => void} [parts.warn]
   */
  constructor({ storage, project, send, locks, warn = () => {} }) {
    Object.assign(this, {
      storage,
      send,
      locks,
      warn,
      prefix: `stabn-outbox|${project}|`,
      refusedPrefix: `stabn-refused|${project}|`,
    });
    for (const key of this.#keys())
      this.#lastTime = Math.max(this.#lastTime, parseInt(key.slice(this.prefix.length).split("-")[0], 36) || 0);
  }

  /** @param {(event: {type: "state"|"acknowledged"|"refused", change?: Change, answer?: any, error?: Error}) => void} listener */
  listen(listener) {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Changes not yet acknowledged, oldest first. @param {string} [id] of one clip @param {string} [author] */
  pending(id, author) {
    const changes = this.#keys()
      .map((key) => this.#read(key))
      .filter(Boolean);
    return changes.filter(
      (change) => (id === undefined || change.id === id) && (author === undefined || change.author === author),
    );
  }

  /** "saved", "saving", "offline" (no answer) or "locked" (the token's cookie is gone). */
  get state() {
    return this.#keys().length ? this.#problem || "saving" : "saved";
  }

  /** Changes that the server refused, kept so that their text is not lost. @returns {Array<Change & {error: string}>} */
  refused() {
    return this.#keys(this.refusedPrefix)
      .map((key) => this.#read(key))
      .filter(Boolean);
  }

  /** @param {string} request */
  forget(request) {
    for (const key of this.#keys(this.refusedPrefix)) if (key.endsWith(request)) this.#remove(key);
    this.#emit({ type: "state" });
  }

  /** Store a change and start to send it. @param {Change} change */
  add(change) {
    this.#lastTime = Math.max(Date.now(), this.#lastTime + 1); // a clock set back must not change the order
    this.#write(`${this.prefix}${this.#lastTime.toString(36).padStart(10, "0")}-${change.request}`, change);
    this.#emit({ type: "state" });
    this.flush();
  }

  /** Send the pending changes in order; failed ones are repeated later. */
  async flush() {
    clearTimeout(this.#timer);
    if (this.#running) {
      this.#flushAgain = true;
      return this.#running;
    }
    const withLock = this.locks ? (work) => this.locks.request(this.prefix, work) : (work) => work();
    this.#running = withLock(() => this.#sendPending());
    try {
      await this.#running;
    } finally {
      this.#running = null;
      this.#emit({ type: "state" });
      if (this.#flushAgain && !this.#problem) this.flush();
      else if (this.#keys().length)
        this.#timer = setTimeout(() => this.flush(), Math.min(15000, 500 * 2 ** this.#failures));
      this.#flushAgain = false;
    }
  }

  async #sendPending() {
    const stuck = new Set(); // a clip whose change failed does not block other clips
    for (;;) {
      const key = this.#keys().find((candidate) => !stuck.has(this.#read(candidate)?.id));
      if (!key) break;
      const status = await this.#sendOne(key);
      if (status === 0 || status === 401 || status === 403) break;
      if (status > 0) stuck.add(this.#read(key)?.id);
    }
    if (!this.#keys().length) this.#problem = "";
  }

  /** @returns {Promise<number>} -1 if the change was acknowledged or refused, else the status of the failure */
  async #sendOne(key) {
    const change = this.#read(key);
    if (!change) {
      this.#remove(key);
      return -1;
    }
    try {
      const answer = await this.send(change);
      this.#remove(key);
      this.#failures = 0;
      this.#problem = "";
      this.#emit({ type: "acknowledged", change, answer });
    } catch (error) {
      const status = error.status ?? 0;
      if (isTemporary(status)) {
        this.#failures = Math.min(this.#failures + 1, 6);
        this.#problem = status === 401 || status === 403 ? "locked" : "offline";
        this.#emit({ type: "state" });
        return status;
      }
      this.#remove(key);
      this.#write(`${this.refusedPrefix}${key.slice(this.prefix.length)}`, { ...change, error: error.message });
      this.#emit({ type: "refused", change, error });
    }
    return -1;
  }

  /** Send everything now, in order, without waiting for responses, because the page is being closed. */
  sendAll() {
    for (const key of this.#keys()) this.#sendOne(key);
  }

  /** Wait until no change of a clip is pending. @param {string} id @param {number} timeout in ms @returns {Promise<boolean>} */
  async waitUntilSent(id, timeout) {
    if (!this.pending(id).length) return true;
    return new Promise((resolve) => {
      const end = (answer) => {
        clearTimeout(timer);
        stop();
        resolve(answer);
      };
      const timer = setTimeout(() => end(false), timeout);
      const stop = this.listen(() => this.pending(id).length || end(true));
      this.flush();
    });
  }

  /** Notify the listeners, because another tab changed the storage. */
  refresh() {
    this.#emit({ type: "state" });
  }

  #emit(event) {
    for (const listener of [...this.#listeners]) listener(event);
  }

  #keys(prefix = this.prefix) {
    const keys = [...this.#memory.keys()];
    try {
      for (let i = 0; i < this.storage.length; i++) keys.push(this.storage.key(i));
    } catch {
      // storage is forbidden: all changes are in memory
    }
    return keys.filter((key) => key.startsWith(prefix)).sort();
  }

  #read(key) {
    if (this.#memory.has(key)) return this.#memory.get(key);
    try {
      return JSON.parse(this.storage.getItem(key));
    } catch {
      return null;
    }
  }

  #write(key, value) {
    try {
      this.storage.setItem(key, JSON.stringify(value));
    } catch {
      this.#memory.set(key, value);
      this.warn("The browser does not let the studio store changes. Leave this page open until it says “Saved”.");
    }
  }

  #remove(key) {
    this.#memory.delete(key);
    try {
      this.storage.removeItem(key);
    } catch {
      // storage is forbidden
    }
  }
}
