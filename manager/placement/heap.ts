// A binary heap, the best first.

/** Negative when the first is better. */
export type Order<T> = (a: T, b: T) => number;

export class Heap<T> {
  readonly #items: T[];
  readonly #order: Order<T>;

  constructor(items: Iterable<T>, order: Order<T>) {
    this.#items = [...items];
    this.#order = order;
    for (let at = (this.#items.length >> 1) - 1; at >= 0; at--) this.#sink(at);
  }

  get best(): T | undefined {
    return this.#items[0];
  }

  /** Leaves out the best one. */
  dropBest(): void {
    const last = this.#items.pop();
    if (last === undefined || this.#items.length === 0) return;
    this.#items[0] = last;
    this.#sink(0);
  }

  /** The best one has become better or worse. */
  settleBest(): void {
    if (this.#items.length > 1) this.#sink(0);
  }

  #sink(from: number): void {
    const items = this.#items;
    const order = this.#order;
    const item = items[from] as T;
    let at = from;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= items.length) break;
      if (child + 1 < items.length && order(items[child + 1] as T, items[child] as T) < 0) child++;
      const below = items[child] as T;
      if (order(below, item) >= 0) break;
      items[at] = below;
      at = child;
    }
    items[at] = item;
  }
}
