// Cards in columns. Of many cards only those near the window are in the page; the layout has room for all.

const MARGIN = 900; // pixels above and below the window that are filled
const MAX_UNWINDOWED = 150; // up to this many cards are all in the page

/** A grid of equally high cards that follows the window. */
export class Grid {
  #frame = 0;

  /**
   * @param {HTMLElement} list takes the cards; its style says --card-width (least), --card-height and --card-gap
   */
  constructor(list) {
    Object.assign(this, { list, cards: [], columns: 1 });
    this.scheduleFill = () => (this.#frame ||= requestAnimationFrame(() => {
      this.#frame = 0;
      this.#fill();
    }));
    window.addEventListener("scroll", this.scheduleFill, { passive: true });
    this.observer = new ResizeObserver(() => this.#measure());
    this.observer.observe(list);
  }

  close() {
    window.removeEventListener("scroll", this.scheduleFill);
    cancelAnimationFrame(this.#frame);
    this.observer.disconnect();
  }

  /** Show these cards. @param {{root: HTMLElement}[]} cards */
  show(cards) {
    this.cards = cards;
    this.list.replaceChildren();
    this.#measure();
  }

  /** Append cards. @param {{root: HTMLElement}[]} cards */
  append(cards) {
    this.cards.push(...cards);
    this.#measure();
  }

  /** Make sure that a card is in the page. @param {number} index */
  reveal(index) {
    this.#fill(index);
  }

  #measure() {
    const style = getComputedStyle(this.list);
    const [least, height, gap] = ["width", "height", "gap"].map((name) => parseFloat(style.getPropertyValue(`--card-${name}`)));
    const available = this.list.clientWidth;
    if (!available) return;
    this.columns = Math.max(1, Math.floor((available + gap) / (least + gap)));
    this.width = (available - gap * (this.columns - 1)) / this.columns;
    this.rowHeight = height + gap;
    this.columnWidth = this.width + gap;
    const rows = Math.ceil(this.cards.length / this.columns);
    this.list.style.setProperty("height", `${Math.max(0, rows * this.rowHeight - gap)}px`);
    this.#fill();
  }

  #place(index) {
    const { style } = this.cards[index].root;
    style.setProperty("width", `${this.width}px`);
    style.setProperty("left", `${(index % this.columns) * this.columnWidth}px`);
    style.setProperty("top", `${Math.floor(index / this.columns) * this.rowHeight}px`);
  }

  /** Add the cards near the window; the focused card is not moved or removed, because it would lose the focus. */
  #fill(required = -1) {
    const { cards, columns, list } = this;
    if (!this.rowHeight) return;
    const top = -list.getBoundingClientRect().top;
    const few = cards.length <= MAX_UNWINDOWED;
    const from = few ? 0 : Math.max(0, Math.floor((top - MARGIN) / this.rowHeight) * columns);
    const to = few ? cards.length : Math.min(cards.length, Math.ceil((top + window.innerHeight + MARGIN) / this.rowHeight) * columns);
    const near = new Map(); // element -> index, ascending
    const focused = cards.findIndex(({ root }) => root.contains(document.activeElement));
    const extra = [focused, required].filter((index) => index >= 0 && (index < from || index >= to));
    const indices = [...extra.filter((index) => index < from), ...Array.from({ length: Math.max(0, to - from) }, (_, i) => from + i), ...extra.filter((index) => index >= to)];
    for (const index of [...new Set(indices)].sort((a, b) => a - b)) near.set(cards[index].root, index);
    for (const child of [...list.children]) if (!near.has(child)) child.remove();
    let next = list.firstElementChild;
    for (const [root, index] of near) {
      if (root === next) next = next.nextElementSibling;
      else list.insertBefore(root, next);
      this.#place(index);
      root.setAttribute("aria-posinset", String(index + 1));
      root.setAttribute("aria-setsize", String(cards.length));
    }
  }
}
