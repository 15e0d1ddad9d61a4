// Counts the turns of the event loop while it exists, for tests of what is done in one of them.

export class EventLoopTurns implements Disposable {
  /** The number of the one that is now. */
  current = 0;
  #next = setImmediate(() => this.#count());

  #count(): void {
    this.current++;
    this.#next = setImmediate(() => this.#count());
  }

  [Symbol.dispose](): void {
    clearImmediate(this.#next);
  }
}
