// Who waits for an index to be applied, or for a read to be confirmed.

export class Waiters {
  #appliedIndex = 0;
  #applied: { readonly index: number; readonly resolve: () => void }[] = [];
  readonly #reads = new Map<number, PromiseWithResolvers<number>>();

  /** Resolves once `index` is applied. */
  applied(index: number): Promise<void> {
    if (this.#appliedIndex >= index) return Promise.resolve();
    return new Promise((resolve) => this.#applied.push({ index, resolve }));
  }

  advance(appliedIndex: number): void {
    this.#appliedIndex = appliedIndex;
    if (this.#applied.length === 0) return;
    const done = this.#applied.filter(({ index }) => index <= appliedIndex);
    this.#applied = this.#applied.filter(({ index }) => index > appliedIndex);
    for (const { resolve } of done) resolve();
  }

  /** Resolves with the index that the state must have when the read of this number is confirmed. */
  confirmed(read: number): Promise<number> {
    const waiter = Promise.withResolvers<number>();
    this.#reads.set(read, waiter);
    return waiter.promise;
  }

  confirm(read: number, index: number): void {
    this.#reads.get(read)?.resolve(index);
    this.#reads.delete(read);
  }

  rejectReads(reason: unknown): void {
    for (const { reject } of this.#reads.values()) reject(reason);
    this.#reads.clear();
  }
}
