// What is committed is applied a little at a time. One answer of a follower may commit ten full entries, and whoever waited for
// one of them decides the next in the same breath: together a tenth of a second in which nobody else gets an answer.

import type { Raft } from '../raft/raft.ts';

export interface ApplyTurnsOptions {
  /** Calls back in the next turn of the event loop. */
  readonly defer: (callback: () => void) => void;
  readonly raft: Raft;
  /** Applies what may be applied. */
  readonly drain: () => void;
  readonly signal: AbortSignal;
  readonly bytesPerTurn?: number | undefined;
}

// A full entry, which has more and takes some milliseconds, goes alone; small ones go together.
const BYTES_PER_TURN = 32 * 1024;
// So many entries that wait double it: who lags behind is to catch up, whatever still comes in.
const LAG_ENTRIES = 16;

export class ApplyTurns {
  readonly #options: ApplyTurnsOptions;
  readonly #bytesPerTurn: number;
  #isTurnPlanned = false;
  /** What may still be applied in this turn. There are no turns before the first: a member begins with all that it has. */
  bytesLeft = Number.POSITIVE_INFINITY;

  constructor(options: ApplyTurnsOptions) {
    this.#options = options;
    this.#bytesPerTurn = options.bytesPerTurn ?? BYTES_PER_TURN;
  }

  /** From now on. */
  begin(): void {
    this.bytesLeft = this.#bytesPerTurn;
  }

  /** So much has been applied in this turn. */
  applied(bytes: number): void {
    if (bytes === 0) return;
    this.bytesLeft = Math.max(0, this.bytesLeft - bytes);
    if (this.#isTurnPlanned) return;
    this.#isTurnPlanned = true;
    this.#options.defer(() => this.#nextTurn());
  }

  #nextTurn(): void {
    const { raft, drain, signal } = this.#options;
    this.#isTurnPlanned = false;
    if (signal.aborted) return;
    const { waitingCount } = raft.log;
    this.bytesLeft = this.#bytesPerTurn * (1 + waitingCount / LAG_ENTRIES);
    if (waitingCount > 0) drain();
  }
}
