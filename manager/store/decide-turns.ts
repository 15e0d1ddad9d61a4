// Many writers may want to decide in one turn of the event loop: what one commit tells all of them, say. Together they get a
// few milliseconds of it, whoever comes first; the others wait for the next turn, in which calls and messages come in between.

import { type Clock, sleep } from '../../core/clock.ts';

/** Of one turn. */
export const DECIDE_MS_MAX = 5;

export class DecideTurns {
  readonly #clock: Clock;
  #spentMs = 0;
  #turnOver: Promise<void> | undefined;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Nobody else is to begin in this turn. */
  get isSpent(): boolean {
    return this.#spentMs >= DECIDE_MS_MAX;
  }

  /** Resolves with the next turn. Others wait for it as well: look again whether it is spent, and decide in the same breath. */
  async over(): Promise<void> {
    await this.#turnOver;
  }

  /** Runs at once, and counts how long it took. */
  spend<T>(decide: () => T): T {
    const startedMs = this.#clock.elapsedMs();
    try {
      return decide();
    } finally {
      const tookMs = this.#clock.elapsedMs() - startedMs;
      this.#spentMs += tookMs;
      if (tookMs > 0) this.#turnOver ??= this.#endTurn();
    }
  }

  async #endTurn(): Promise<void> {
    await sleep(this.#clock, 0);
    this.#turnOver = undefined;
    this.#spentMs = 0;
  }
}
