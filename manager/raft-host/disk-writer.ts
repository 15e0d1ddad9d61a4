// Hands the core's appends to the disk, in order, and says when each is durable. While the disk is full, or a snapshot
// takes the log's place, what follows waits: nothing overtakes, nothing is acknowledged that is not there.

import { type Clock, sleep } from '../../core/clock.ts';
import { hasCode } from '../../core/errors.ts';
import type { Append } from '../raft/contract.ts';
import type { LogOnDisk } from './log-on-disk.ts';
import type { WriteTimes } from './write-times.ts';

export interface DiskWriterOptions {
  readonly disk: LogOnDisk;
  readonly clock: Clock;
  readonly signal: AbortSignal;
  readonly onDurable: (append: Append) => void;
  /** Makes a received snapshot this member's state; durable when it resolves. */
  readonly install: (append: Append) => Promise<void>;
  readonly times: WriteTimes;
  readonly onFull: () => void;
  readonly onFatal: (error: unknown) => void;
}

// How often a full disk is looked at again.
const FULL_RETRY_MS = 500;

export class DiskWriter {
  readonly #options: DiskWriterOptions;
  /** Set while something has to end before more can be written. */
  #held: Append[] | undefined;
  isFull = false;

  constructor(options: DiskWriterOptions) {
    this.#options = options;
  }

  write(append: Append): void {
    if (this.#held !== undefined) this.#held.push(append);
    else if (append.snapshot !== undefined) void this.#install(append);
    else this.#append(append);
  }

  #append(append: Append): void {
    const { hardState, entries } = append;
    const { disk, times, onDurable } = this.#options;
    const pending = times.begin(entries.at(-1)?.index ?? 0);
    disk.append(hardState === undefined ? { entries } : { hardState, entries }).then(
      () => {
        times.end(pending);
        onDurable(append);
      },
      (error) => {
        times.drop(pending);
        this.#refused(append, error);
      },
    );
  }

  async #install(append: Append): Promise<void> {
    this.#held = [];
    try {
      await this.#options.install(append);
    } catch (error) {
      // The core has left its old log behind: there is no way back but a restart from what is on the disk.
      this.#options.onFatal(error);
      return;
    }
    this.#options.onDurable(append);
    this.#release();
  }

  /** Appends are refused in order, with all that followed them. */
  #refused(append: Append, error: unknown): void {
    if (this.#options.signal.aborted) return;
    if (!hasCode(error, 'resource-exhausted')) {
      this.#options.onFatal(error);
      return;
    }
    if (this.#held !== undefined && this.isFull) {
      this.#held.push(append);
      return;
    }
    this.isFull = true;
    this.#held = [append];
    this.#options.onFull();
    void this.#waitForRoom();
  }

  async #waitForRoom(): Promise<void> {
    const { disk, clock, signal } = this.#options;
    try {
      do await sleep(clock, FULL_RETRY_MS, signal);
      while ((await disk.reviewSpace()) === 'full');
    } catch (error) {
      if (!signal.aborted) this.#options.onFatal(error);
      return;
    }
    this.isFull = false;
    this.#release();
  }

  #release(): void {
    const held = this.#held ?? [];
    this.#held = undefined;
    for (const append of held) this.write(append);
  }
}
