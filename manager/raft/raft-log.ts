// The log as the core sees it: the entries after the last compaction, in memory, and how far they are written,
// committed and handed out to be applied. It holds no disk: the host writes what `takeAppend` hands out.
//
//   compacted … handedOut ≤ committed ≤ last        stable ≤ last        handedOut ≤ stable
//
// An entry is handed out for applying only when it is committed and durable here.

import { assert } from '../../core/assert.ts';
import type { Entry, SnapshotMark } from '../../proto/generated/raft.ts';
import { entryBytes, NO_ENTRIES } from './message.ts';

/** What one append in flight makes durable when it ends. Shrinks when a part of it is overwritten meanwhile. */
export interface Attestation {
  lastIndex: number;
}

export class RaftLog {
  /** Entry `#compactedIndex + 1` is `#entries[0]`. */
  #entries: Entry[] = [];
  #compactedIndex: number;
  #compactedTerm: number;
  #stableIndex: number;
  /** The last entry given to the host to write. */
  #takenIndex: number;
  #inFlight: Attestation[] = [];
  committedIndex: number;
  handedOutIndex: number;

  /** Begins after a snapshot (or at 0), with entries that are on disk. */
  constructor(start: { index: number; term: number }, entries: readonly Entry[], committedIndex: number) {
    this.#compactedIndex = start.index;
    this.#compactedTerm = start.term;
    for (const [position, entry] of entries.entries())
      assert(
        entry.index === start.index + 1 + position,
        () => `entry ${entry.index} is out of place in the log`,
      );
    this.#entries = [...entries];
    this.#stableIndex = this.lastIndex;
    this.#takenIndex = this.lastIndex;
    this.handedOutIndex = start.index;
    this.committedIndex = Math.max(start.index, committedIndex);
    assert(this.committedIndex <= this.lastIndex, `commit ${committedIndex} is beyond the log's end`);
  }

  get lastIndex(): number {
    return this.#compactedIndex + this.#entries.length;
  }

  get lastTerm(): number {
    return this.#entries.at(-1)?.term ?? this.#compactedTerm;
  }

  /** The first entry that is still here; `lastIndex + 1` when there is none. */
  get firstIndex(): number {
    return this.#compactedIndex + 1;
  }

  get stableIndex(): number {
    return this.#stableIndex;
  }

  /** The term of an entry, or undefined when it is compacted away or not there yet. */
  termOf(index: number): number | undefined {
    if (index === this.#compactedIndex) return this.#compactedTerm;
    return this.#entries[index - this.#compactedIndex - 1]?.term;
  }

  /** True when a candidate whose log ends so may be voted for (thesis §3.6.1). */
  isUpToDate(index: number, term: number): boolean {
    return term > this.lastTerm || (term === this.lastTerm && index >= this.lastIndex);
  }

  /** Entries `from` … `to`, as many as fit in `bytesMax` but at least one; undefined when `from` is compacted away. */
  slice(from: number, to: number, bytesMax: number): readonly Entry[] | undefined {
    if (from <= this.#compactedIndex) return undefined;
    const end = Math.min(to, this.lastIndex);
    let bytes = 0;
    let next = from;
    for (; next <= end; next++) {
      bytes += entryBytes(this.#at(next));
      if (bytes > bytesMax && next > from) break;
    }
    if (next === from) return NO_ENTRIES;
    return this.#entries.slice(from - this.firstIndex, next - this.firstIndex);
  }

  /** Leader: adds new entries at the end. */
  append(entries: readonly Entry[]): void {
    for (const entry of entries) {
      assert(
        entry.index === this.lastIndex + 1,
        () => `entry ${entry.index} does not follow ${this.lastIndex}`,
      );
      this.#entries.push(entry);
    }
  }

  /**
   * Follower: makes the log equal to the leader's for the span of `entries`, which follow `index` of `term`.
   * Returns the last index that is now known to be the leader's, or undefined when the logs part before.
   */
  accept(index: number, term: number, entries: readonly Entry[]): number | undefined {
    if (this.termOf(index) !== term) return undefined;
    for (const [position, entry] of entries.entries()) {
      if (this.termOf(entry.index) === entry.term) continue;
      this.#truncate(entry.index);
      this.append(entries.slice(position));
      break;
    }
    return index + entries.length;
  }

  /**
   * The largest index ≤ `index` whose term is ≤ `term`: where a log that disagrees at `index` may agree with one whose
   * entry there has `term` (thesis §5.3, fast back-up). `term` of what is compacted is unknown and counts as 0.
   */
  findConflict(index: number, term: number): { index: number; term: number } {
    let at = Math.min(index, this.lastIndex);
    while (at > this.#compactedIndex && (this.termOf(at) ?? 0) > term) at--;
    return { index: at, term: this.termOf(at) ?? 0 };
  }

  commitTo(index: number): void {
    if (index <= this.committedIndex) return;
    assert(index <= this.lastIndex, `commit ${index} is beyond the log's end ${this.lastIndex}`);
    this.committedIndex = index;
  }

  hasUnwritten(): boolean {
    return this.#takenIndex < this.lastIndex;
  }

  /** Entries not yet given to the host, and the attestation to hand back when they are durable. */
  takeAppend(): { entries: readonly Entry[]; attestation: Attestation } {
    const entries = this.#entries.slice(this.#takenIndex - this.#compactedIndex);
    this.#takenIndex = this.lastIndex;
    const attestation = { lastIndex: this.lastIndex };
    this.#inFlight.push(attestation);
    return { entries, attestation };
  }

  /** An append handed out is durable. Appends end in the order in which they were taken. */
  persisted(attestation: Attestation): void {
    assert(this.#inFlight.shift() === attestation, 'appends became durable out of order');
    this.#stableIndex = Math.max(this.#stableIndex, attestation.lastIndex);
  }

  /** Entries that are committed and durable, and not handed out yet. */
  get waitingCount(): number {
    return Math.min(this.committedIndex, this.#stableIndex) - this.handedOutIndex;
  }

  /** The first of those that wait. */
  takeCommitted(bytesMax: number): readonly Entry[] {
    const first = this.handedOutIndex + 1;
    const entries = this.slice(first, this.handedOutIndex + this.waitingCount, bytesMax);
    assert(entries !== undefined, 'entries were compacted before they were applied');
    this.handedOutIndex += entries.length;
    return entries;
  }

  /** True when a configuration change is among what is committed but not applied: nobody may campaign then. */
  hasUnappliedConfiguration(): boolean {
    for (let index = this.handedOutIndex + 1; index <= this.committedIndex; index++)
      if (this.#at(index).kind === 'configuration') return true;
    return false;
  }

  /** Forgets entries up to `index`, which must have been applied. */
  compact(index: number): void {
    if (index <= this.#compactedIndex) return;
    assert(index <= this.handedOutIndex, `compaction at ${index} before it is applied`);
    const term = this.termOf(index);
    assert(term !== undefined, `compaction at ${index} beyond the log`);
    this.#entries = this.#entries.slice(index - this.#compactedIndex);
    this.#compactedIndex = index;
    this.#compactedTerm = term;
  }

  /** Replaces everything by a snapshot that the host has to install. */
  restore({ index, term }: SnapshotMark): void {
    assert(index > this.committedIndex, `snapshot ${index} is older than what is committed`);
    this.#entries = [];
    this.#compactedIndex = index;
    this.#compactedTerm = term;
    for (const attestation of this.#inFlight) attestation.lastIndex = 0;
    this.#stableIndex = index;
    this.#takenIndex = index;
    this.committedIndex = index;
    this.handedOutIndex = index;
  }

  #at(index: number): Entry {
    const entry = this.#entries[index - this.#compactedIndex - 1];
    assert(entry !== undefined, () => `entry ${index} is not in the log`);
    return entry;
  }

  #truncate(from: number): void {
    assert(from > this.committedIndex, `entry ${from} is committed and may not change`);
    if (from > this.lastIndex) return;
    this.#entries.length = from - this.firstIndex;
    this.#stableIndex = Math.min(this.#stableIndex, from - 1);
    this.#takenIndex = Math.min(this.#takenIndex, from - 1);
    // What is being written is about to be overwritten: its end proves nothing about the new entries.
    for (const attestation of this.#inFlight)
      attestation.lastIndex = Math.min(attestation.lastIndex, from - 1);
  }
}
