// Changes on their way to the server. Each lies in the browser's storage before it is sent and until the server has
// acknowledged it, so that a closed tab, a crash or a server that is away loses nothing. No DOM here.

/** @typedef {{id: string, author: string, request: string, kind: string, scores: number[]|null, comment: string}} Change */

/** A change's unique name; the server stores a name once, so that sending twice is harmless. */
export function newRequest() {
  return Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

// Answers after which the same change may succeed later: nothing arrived, a lost cookie, too busy, a failing server.
const later = (status) =>
  status === 0 || status === 401 || status === 403 || status === 408 || status === 429 || status >= 500;

export class Outbox {
  #listeners = new Set();
  #memory = new Map(); // where storage is forbidden or full
  #running = null;
  #again = false;
  #timer = 0;
  #failures = 0;
  #trouble = "";
  #last = 0;

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
      parked: `stabn-refused|${project}|`,
    });
    for (const key of this.#keys())
      this.#last = Math.max(this.#last, parseInt(key.slice(this.prefix.length).split("-")[0], 36) || 0);
  }

  /** @param {(event: {type: "state"|"acknowledged"|"refused", change?: Change, answer?: any, error?: Error}) => void} listener */
  listen(listener) {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Changes not yet acknowledged, oldest first. @param {string} [id] of one clip @param {string} [author] */
  waiting(id, author) {
    const changes = this.#keys()
      .map((key) => this.#read(key))
      .filter(Boolean);
    return changes.filter(
      (change) => (id === undefined || change.id === id) && (author === undefined || change.author === author),
    );
  }

  /** "saved", "saving", "offline" (no answer) or "locked" (the token's cookie is gone). */
  get state() {
    return this.#keys().length ? this.#trouble || "saving" : "saved";
  }

  /** Changes that the server refused, kept so that their text is not lost. @returns {Array<Change & {error: string}>} */
  refused() {
    return this.#keys(this.parked)
      .map((key) => this.#read(key))
      .filter(Boolean);
  }

  /** @param {string} request */
  forget(request) {
    for (const key of this.#keys(this.parked)) if (key.endsWith(request)) this.#remove(key);
    this.#tell({ type: "state" });
  }

  /** Keep a change and begin to send it. @param {Change} change */
  add(change) {
    this.#last = Math.max(Date.now(), this.#last + 1); // a clock set back must not change the order
    this.#write(`${this.prefix}${this.#last.toString(36).padStart(10, "0")}-${change.request}`, change);
    this.#tell({ type: "state" });
    this.flush();
  }

  /** Send what waits, one after the other; what fails is tried again later. */
  async flush() {
    clearTimeout(this.#timer);
    if (this.#running) {
      this.#again = true;
      return this.#running;
    }
    const locked = this.locks ? (work) => this.locks.request(this.prefix, work) : (work) => work();
    this.#running = locked(() => this.#pass());
    try {
      await this.#running;
    } finally {
      this.#running = null;
      this.#tell({ type: "state" });
      if (this.#again && !this.#trouble) this.flush();
      else if (this.#keys().length)
        this.#timer = setTimeout(() => this.flush(), Math.min(15000, 500 * 2 ** this.#failures));
      this.#again = false;
    }
  }

  async #pass() {
    const stuck = new Set(); // a clip whose change must wait does not hold up the others
    for (;;) {
      const key = this.#keys().find((candidate) => !stuck.has(this.#read(candidate)?.id));
      if (!key) break;
      const status = await this.#sendOne(key);
      if (status === 0 || status === 401 || status === 403) break;
      if (status > 0) stuck.add(this.#read(key)?.id);
    }
    if (!this.#keys().length) this.#trouble = "";
  }

  /** @returns {Promise<number>} -1 if the change is dealt with, else the status of the failure */
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
      this.#trouble = "";
      this.#tell({ type: "acknowledged", change, answer });
    } catch (error) {
      const status = error.status ?? 0;
      if (later(status)) {
        this.#failures = Math.min(this.#failures + 1, 6);
        this.#trouble = status === 401 || status === 403 ? "locked" : "offline";
        this.#tell({ type: "state" });
        return status;
      }
      this.#remove(key);
      this.#write(`${this.parked}${key.slice(this.prefix.length)}`, { ...change, error: error.message });
      this.#tell({ type: "refused", change, error });
    }
    return -1;
  }

  /** The page is being left: hand everything to the browser now, in order, without waiting for answers. */
  burst() {
    for (const key of this.#keys()) this.#sendOne(key);
  }

  /** Wait until nothing of a clip waits. @param {string} id @param {number} patience in ms @returns {Promise<boolean>} */
  async settled(id, patience) {
    if (!this.waiting(id).length) return true;
    return new Promise((resolve) => {
      const end = (answer) => {
        clearTimeout(timer);
        stop();
        resolve(answer);
      };
      const timer = setTimeout(() => end(false), patience);
      const stop = this.listen(() => this.waiting(id).length || end(true));
      this.flush();
    });
  }

  /** Another tab changed the storage. */
  refresh() {
    this.#tell({ type: "state" });
  }

  #tell(event) {
    for (const listener of [...this.#listeners]) listener(event);
  }

  #keys(prefix = this.prefix) {
    const keys = [...this.#memory.keys()];
    try {
      for (let i = 0; i < this.storage.length; i++) keys.push(this.storage.key(i));
    } catch {
      // forbidden: what is in memory is all there is
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
      this.warn("The browser does not let the studio keep changes. Leave this page open until it says “Saved”.");
    }
  }

  #remove(key) {
    this.#memory.delete(key);
    try {
      this.storage.removeItem(key);
    } catch {
      // it was never there
    }
  }
}
