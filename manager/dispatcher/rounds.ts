// Whose turn it is to hear of changes. A message costs managers and agents as much as ten tasks in it: when many sessions have
// something to hear they take turns, and what comes together until then is one message.

import type { Clock } from '../../core/clock.ts';

/** Turns in one round; with few waiting, that of each comes with the end of this turn of the event loop. */
const TURNS_PER_ROUND = 20;
/** Between rounds, while some have to wait: 1,000 turns a second. */
const ROUND_MS = 20;

export class Rounds<T> {
  readonly #clock: Clock;
  readonly #act: (item: T) => void;
  /** Those that wait longest first. */
  readonly #waiting = new Set<T>();
  #isPlanned = false;
  #notBeforeMs = 0;

  /** `act` is called once for every turn. */
  constructor(clock: Clock, act: (item: T) => void) {
    this.#clock = clock;
    this.#act = act;
  }

  /** Who waits already has nothing more to wait for. */
  add(item: T): void {
    this.#waiting.add(item);
    if (this.#isPlanned) return;
    this.#isPlanned = true;
    this.#clock.after(Math.max(0, this.#notBeforeMs - this.#clock.elapsedMs()), () => this.#round());
  }

  #round(): void {
    let left = TURNS_PER_ROUND;
    for (const item of this.#waiting) {
      if (left-- === 0) break;
      this.#waiting.delete(item);
      this.#act(item);
    }
    this.#isPlanned = this.#waiting.size > 0;
    if (!this.#isPlanned) return;
    this.#notBeforeMs = this.#clock.elapsedMs() + ROUND_MS;
    this.#clock.after(ROUND_MS, () => this.#round());
  }
}
