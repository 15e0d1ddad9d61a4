// Takes snapshots of this member's own state when the log has grown enough, and lets the log before them go.

import { messageOf } from '../../core/errors.ts';
import type { SnapshotMark } from '../../proto/generated/raft.ts';
import { logLog } from '../log.ts';
import type { LogOnDisk } from './log-on-disk.ts';

export interface SnapshotTakerOptions {
  readonly disk: Pick<LogOnDisk, 'writeSnapshot' | 'compact'>;
  /** Entries between two snapshots. */
  readonly interval: () => number;
  /** The state as it is now, and where that is in the log; undefined while it is in flux. */
  readonly capture: () => { mark: SnapshotMark; records: Iterable<Uint8Array> } | undefined;
  /** Entries up to this index are not needed in memory any more. */
  readonly onCompacted: (index: number) => void;
  readonly defer: (callback: () => void) => void;
  /** From 0 to below 1. */
  readonly random: () => number;
  readonly signal: AbortSignal;
}

// Swarm keeps this many entries for slow followers beside a snapshot.
const ENTRIES_KEPT = 500;
// A snapshot comes sooner than the interval says when the log since the last has grown to this, and to the size of that one:
// those that come for this write hardly more than the log does.
const LOG_BYTES_MIN = 128 * 2 ** 20;
// Members apply the same entries: up to this part of that earlier, so that they do not all write theirs at the same time.
const EARLIER_MAX = 0.25;
// Records that are made at a time: some hundredths of a millisecond, so that what else is to do goes in between.
const SLICE = 8;

export class SnapshotTaker {
  readonly #options: SnapshotTakerOptions;
  #running: Promise<void> | undefined;
  #bytes = 0;
  /** Of the last snapshot. */
  #stateBytes = 0;
  #share: number;
  /** Of the newest snapshot, also while it is being written. */
  index = 0;

  constructor(options: SnapshotTakerOptions) {
    this.#options = options;
    this.#share = this.#drawShare();
  }

  /** Entries have been applied up to `appliedIndex`, so many bytes more. */
  applied(appliedIndex: number, bytes: number): void {
    this.#bytes += bytes;
    const bytesMax = Math.max(LOG_BYTES_MIN, this.#stateBytes) * this.#share;
    if (appliedIndex - this.index >= this.#options.interval() || this.#bytes >= bytesMax) this.start();
  }

  /** A snapshot of the leader took the place of all that. */
  replaced(index: number): void {
    this.index = index;
    this.#bytes = 0;
  }

  start(): void {
    if (this.#running !== undefined) return;
    const captured = this.#options.capture();
    if (captured === undefined) return;
    this.index = captured.mark.index;
    this.#bytes = 0;
    this.#share = this.#drawShare();
    this.#running = this.#write(captured)
      .catch((error) => {
        if (this.#options.signal.aborted) return;
        logLog.error({ error: messageOf(error) }, 'snapshot failed, the next will be tried in time');
      })
      .finally(() => {
        this.#running = undefined;
      });
  }

  /** Resolves when there is a snapshot of now, or none could be taken. */
  async renew(): Promise<void> {
    await this.settled();
    this.start();
    await this.settled();
  }

  /** Resolves when no snapshot is being written. */
  async settled(): Promise<void> {
    await this.#running;
  }

  async #write({ mark, records }: { mark: SnapshotMark; records: Iterable<Uint8Array> }): Promise<void> {
    const { disk, signal, onCompacted } = this.#options;
    this.#stateBytes = await disk.writeSnapshot(mark, records, { every: SLICE, pause: () => this.#pause() });
    if (signal.aborted) return;
    const index = Math.max(0, mark.index - ENTRIES_KEPT);
    onCompacted(index);
    await disk.compact(index);
  }

  #drawShare(): number {
    return 1 - EARLIER_MAX * this.#options.random();
  }

  /** Lets everything else run. */
  async #pause(): Promise<void> {
    await new Promise<void>((resolve) => this.#options.defer(resolve));
    this.#options.signal.throwIfAborted();
  }
}
