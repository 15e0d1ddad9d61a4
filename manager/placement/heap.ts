// A binary heap, the best first.

/** Negative when the first is better. */
export type Order<T> = (a: T, b: T) => number;

export class Heap<T> {
  readonly #items: T[] = [];
  readonly #order: Order<T>;

  constructor(items: Iterable<T>, order: Order<T>) {
    this.#order = order;
    for (const item of items) this.push(item);
  }

  get best(): T | undefined {
    return this.#items[0];
  }

  push(item: T): void {
    const items = this.#items;
    items.push(item);
    for (let child = items.length - 1; child > 0; ) {
      const parent = (child - 1) >> 1;
      if (!this.#isBefore(child, parent)) break;
      this.#swap(child, parent);
      child = parent;
    }
  }

  pop(): T | undefined {
    const items = this.#items;
    if (items.length === 0) return undefined;
    this.#swap(0, items.length - 1);
    const best = items.pop();
    this.#sink();
    return best;
  }

  /** The best one has become worse. */
  settleBest(): void {
    this.#sink();
  }

  #sink(): void {
    const items = this.#items;
    for (let parent = 0; ; ) {
      const [left, right] = [2 * parent + 1, 2 * parent + 2];
      let smallest = parent;
      if (left < items.length && this.#isBefore(left, smallest)) smallest = left;
      if (right < items.length && this.#isBefore(right, smallest)) smallest = right;
      if (smallest === parent) return;
      this.#swap(parent, smallest);
      parent = smallest;
    }
  }

  #isBefore(a: number, b: number): boolean {
    return this.#order(this.#items[a] as T, this.#items[b] as T) < 0;
  }

  #swap(a: number, b: number): void {
    const items = this.#items;
    [items[a], items[b]] = [items[b] as T, items[a] as T];
  }
}
