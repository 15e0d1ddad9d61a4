// What all members have on their disks, the leader holds in memory for nobody but one that is added later; that one gets a
// snapshot. Entries that somebody lacks stay until a snapshot contains them.

import { participants } from '../raft/configuration.ts';
import type { Raft } from '../raft/raft.ts';

const HELD_BYTES = 4 * 2 ** 20;

export class EntryForgetter {
  readonly #raft: Raft;
  readonly #heldBytes: number;
  #bytes = 0;

  /** Looks at what can go after every so many bytes. */
  constructor(raft: Raft, heldBytes = HELD_BYTES) {
    this.#raft = raft;
    this.#heldBytes = heldBytes;
  }

  /** Entries have been applied up to `appliedIndex`, so many bytes more. */
  applied(appliedIndex: number, bytes: number): void {
    const raft = this.#raft;
    this.#bytes += bytes;
    if (raft.role !== 'leader' || this.#bytes < this.#heldBytes) return;
    this.#bytes = 0;
    const others = participants(raft.configuration).filter((id) => id !== raft.id);
    raft.compact(Math.min(appliedIndex, ...others.map((id) => raft.progressOf(id)?.match ?? 0)));
  }
}
