// Hands values from callbacks to an async iterator, in order.

/** A queue with one reader. `push` never waits: who feeds it that way bounds it by `size`; `offer` waits for room. */
export class AsyncQueue<T> implements AsyncIterable<T> {
  #values: T[] = [];
  #wake: (() => void) | undefined;
  #ended = false;
  #failure: unknown;
  #waiting: (() => void)[] = [];

  get size(): number {
    return this.#values.length;
  }

  push(value: T): void {
    if (this.#ended) return;
    this.#values.push(value);
    this.#wake?.();
  }

  /** Adds the value once fewer than `limit` are unread; returns at once after the end. */
  async offer(value: T, limit: number): Promise<void> {
    while (this.#values.length >= limit && !this.#ended)
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    this.push(value);
  }

  /** The reader sees what was pushed before, then the end (or `failure` thrown). */
  end(failure?: unknown): void {
    this.#ended = true;
    this.#failure ??= failure;
    this.#wake?.();
    this.#release();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<T, void, undefined> {
    for (;;) {
      const values = this.#values;
      this.#values = [];
      this.#release();
      yield* values;
      if (this.#values.length > 0) continue;
      if (this.#ended) {
        if (this.#failure !== undefined) throw this.#failure;
        return;
      }
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
      this.#wake = undefined;
    }
  }

  #release(): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const resolve of waiting) resolve();
  }
}
