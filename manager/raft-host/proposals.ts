// Proposals of this manager on their way: waiting to enter the log, and in it until they are applied.

import { SwarmError } from '../../core/errors.ts';
import type { ApplyResult } from '../store/replicated-log.ts';

export interface Proposal {
  readonly payload: Uint8Array;
  readonly startedMs: number;
  readonly resolve: (result: ApplyResult) => void;
  readonly reject: (error: unknown) => void;
}

interface Placed extends Proposal {
  readonly term: number;
}

export class Proposals {
  /** Not in the log yet, in order. */
  #waiting: Proposal[] = [];
  /** By the index of their entry. */
  readonly #placed = new Map<number, Placed>();

  get waitingCount(): number {
    return this.#waiting.length;
  }

  add(proposal: Proposal): void {
    this.#waiting.push(proposal);
  }

  /** Those that may enter the log now, up to so many bytes but at least one. */
  takeWaiting(bytesMax: number): Proposal[] {
    let bytes = 0;
    const end = this.#waiting.findIndex(({ payload }, position) => {
      bytes += payload.length;
      return bytes > bytesMax && position > 0;
    });
    return this.#waiting.splice(0, end < 0 ? this.#waiting.length : end);
  }

  /** Puts back what could not enter; it stays first. */
  putBack(proposals: readonly Proposal[]): void {
    this.#waiting.unshift(...proposals);
  }

  place(proposals: readonly Proposal[], firstIndex: number, term: number): void {
    for (const [position, proposal] of proposals.entries())
      this.#placed.set(firstIndex + position, { ...proposal, term });
  }

  /** The entry at `index` is applied: whose it was is told. Undefined when it was not proposed here. */
  takeApplied(index: number, term: number): Proposal | undefined {
    const placed = this.#placed.get(index);
    if (placed === undefined) return undefined;
    this.#placed.delete(index);
    if (placed.term === term) return placed;
    // Another leader's entry took the place.
    placed.reject(leadershipLost('it was not stored'));
    return undefined;
  }

  /** A snapshot took the place of entries up to `index`. */
  skip(index: number): void {
    for (const [at, { reject }] of this.#placed)
      if (at <= index) {
        this.#placed.delete(at);
        reject(leadershipLost());
      }
  }

  rejectWaiting(error: unknown): void {
    for (const { reject } of this.#waiting.splice(0)) reject(error);
  }

  /** Nobody can say any more what becomes of those in the log. */
  abandon(reason: unknown): void {
    for (const { reject } of this.#placed.values()) reject(reason);
    this.#placed.clear();
  }
}

/** The answer to a proposal that is in the log of a manager which does not lead any more. */
export function leadershipLost(what = 'it may have been stored'): SwarmError {
  return new SwarmError('unavailable', `leadership was lost while a change was under way: ${what}`, {
    hint: 'Look at the object before you repeat the change.',
  });
}

/** The answer to a proposal that this disk has no room for. */
export function diskFull(): SwarmError {
  return new SwarmError('resource-exhausted', 'the disk of this manager is full: changes cannot be stored', {
    hint: 'Make room in its state directory; it goes on by itself.',
  });
}
