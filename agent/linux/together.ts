// Work that comes in while some of it is being done, and is done together next.

export class Together<T> {
  readonly #act: (items: readonly T[]) => Promise<void>;
  #waiting: T[] = [];
  /** Of those that wait. */
  #next: Promise<void> | undefined;
  #last: Promise<void> = Promise.resolve();
  #isClosed = false;

  constructor(act: (items: readonly T[]) => Promise<void>) {
    this.#act = act;
  }

  /** Resolves when these are done, rejects as they do; at once after `close`, with nothing done. */
  add(items: readonly T[]): Promise<void> {
    if (items.length === 0 || this.#isClosed) return Promise.resolve();
    this.#waiting.push(...items);
    if (this.#next !== undefined) return this.#next;
    const next = this.#last.then(() => this.#actOnWaiting());
    this.#next = next;
    this.#last = next.catch(() => undefined);
    return next;
  }

  /** Takes nothing more. Resolves when all that came before is done. */
  async close(): Promise<void> {
    this.#isClosed = true;
    await this.#last;
  }

  #actOnWaiting(): Promise<void> {
    const items = this.#waiting;
    this.#waiting = [];
    this.#next = undefined;
    return this.#act(items);
  }
}
