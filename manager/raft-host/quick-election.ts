// When the leader's connections break its process is probably gone: the others need not wait for a whole election
// timeout. They ask for votes at once, and again while some still believe in it or votes are split. Pre-vote sees to it
// that a leader which others still hear is not disturbed.

import type { Clock, Random } from '../../core/clock.ts';
import type { Raft } from '../raft/raft.ts';

export interface QuickElectionOptions {
  readonly clock: Clock;
  readonly random: Random;
  readonly signal: AbortSignal;
  readonly raft: Raft;
  /** Carries out what the core wants. */
  readonly drain: () => void;
}

// Chances of an attempt come this far apart, at random.
const ATTEMPT_MS = 30;
// The others notice within milliseconds; after this many attempts the ordinary timeout is as good.
const ATTEMPTS_MAX = 20;

export class QuickElection {
  readonly #options: QuickElectionOptions;

  constructor(options: QuickElectionOptions) {
    this.#options = options;
  }

  /** The leader is probably gone. */
  begin(): void {
    this.#options.raft.forgetLeader();
    this.#attempt(ATTEMPTS_MAX, 0);
  }

  #attempt(attempts: number, atLeastMs: number): void {
    const { clock, random, signal, raft, drain } = this.#options;
    clock.after(atLeastMs + random() * ATTEMPT_MS, () => {
      if (signal.aborted || raft.leaderId !== 0 || attempts === 0) return;
      // Also as a candidate: votes that were split are not won by waiting.
      raft.campaign();
      drain();
      this.#attempt(attempts - 1, ATTEMPT_MS);
    });
  }
}
