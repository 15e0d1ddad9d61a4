// Brings what is committed into the state machine: entries in order, snapshots as a whole. Tells whoever waits for it.

import { assert, defined } from '../../core/assert.ts';
import type { Entry } from '../../proto/generated/raft.ts';
import type { StateMachine } from '../store/replicated-log.ts';
import type { LogOnDisk } from './log-on-disk.ts';
import type { Proposals } from './proposals.ts';
import type { StateHash } from './state-hash.ts';
import type { Waiters } from './waiters.ts';

export interface ApplierOptions {
  readonly machine: StateMachine;
  readonly disk: LogOnDisk;
  readonly proposals: Proposals;
  readonly waiters: Waiters;
  readonly stateHash: StateHash;
  readonly observe: (operation: 'transaction', durationMs: number) => void;
  /** Entries of so many bytes have been applied. */
  readonly onApplied: (bytes: number) => void;
  /** The state is that of a snapshot now. */
  readonly onRestored: (index: number) => void;
}

export class Applier {
  readonly #options: ApplierOptions;
  #appliedIndex = 0;
  /** Set while the state machine takes in a snapshot; entries wait. */
  #isRestoring = false;
  #waiting: Entry[] = [];

  constructor(options: ApplierOptions) {
    this.#options = options;
  }

  get appliedIndex(): number {
    return this.#appliedIndex;
  }

  /** While true the state is nobody's. */
  get isRestoring(): boolean {
    return this.#isRestoring;
  }

  /** Entries that come from here on wait for `restore`. */
  hold(): void {
    this.#isRestoring = true;
  }

  apply(entries: readonly Entry[]): void {
    for (const entry of entries) this.#waiting.push(entry);
    if (!this.#isRestoring && this.#waiting.length > 0) this.#applyAll();
  }

  /** Gives the state machine the newest snapshot. */
  async restore(): Promise<void> {
    const { machine, disk, proposals, waiters, stateHash, onRestored } = this.#options;
    this.hold();
    const snapshot = defined(await disk.openSnapshot(), 'no snapshot to restore from');
    try {
      await machine.restore(snapshot.mark.index, snapshot.records());
      this.#appliedIndex = snapshot.mark.index;
      stateHash.restored(snapshot.mark.index, snapshot.mark.stateHash);
      onRestored(snapshot.mark.index);
    } finally {
      await snapshot.close();
    }
    proposals.skip(this.#appliedIndex);
    this.#isRestoring = false;
    this.apply([]);
    waiters.advance(this.#appliedIndex);
  }

  #applyAll(): void {
    const { machine, proposals, waiters, observe, stateHash, onApplied } = this.#options;
    const entries = this.#waiting;
    let bytes = 0;
    this.#waiting = [];
    for (const entry of entries) {
      assert(entry.index === this.#appliedIndex + 1, () => `entry ${entry.index} is out of order`);
      this.#appliedIndex = entry.index;
      bytes += entry.payload.length;
      const result = entry.kind === 'normal' ? machine.apply(entry.index, entry.payload) : undefined;
      stateHash.applied(entry, result);
      const proposal = proposals.takeApplied(entry.index, entry.term);
      if (proposal === undefined) continue;
      observe('transaction', performance.now() - proposal.startedMs);
      proposal.resolve(defined(result, 'a proposal is a normal entry'));
    }
    waiters.advance(this.#appliedIndex);
    onApplied(bytes);
  }
}
