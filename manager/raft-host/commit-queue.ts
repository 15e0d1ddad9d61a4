// Group commit: one write is in flight, everything that arrives meanwhile is the next block. A write that fails ends the
// log, since what the disk holds is unknown from then on; a disk that is full refuses blocks before they are written.

import { assert, defined } from '../../core/assert.ts';
import { messageOf, SwarmError } from '../../core/errors.ts';
import type { Entry, HardState } from '../../proto/generated/raft.ts';
import { BLOCK_BYTES_MAX, BlockBuilder, entryBytes, type LogPosition, type LogRecord } from './block.ts';
import type { DataKey } from './data-key.ts';
import type { SegmentRecord } from './log-reader.ts';
import type { SegmentWriter, WritePosition } from './segment-writer.ts';

/** What a member has to remember before it says a word about it. */
export interface LogWrite {
  readonly hardState?: HardState;
  readonly entries: readonly Entry[];
}

export interface CommitQueueOptions {
  /** Runs a callback after what is happening now: those who wait for one block get into the next together. */
  readonly defer: (callback: () => void) => void;
  readonly key: () => DataKey;
  readonly observe: (operation: 'fsync', durationMs: number) => void;
  readonly onFatal: (error: unknown) => void;
}

interface DurableState {
  readonly last: LogPosition;
  readonly hardState: HardState;
}

/** What one block will hold, and who waits for it. */
interface Batch {
  hardState: HardState | undefined;
  readonly entries: Entry[];
  bytes: number;
  /** It is the first of a new segment. */
  readonly isFirst: boolean;
  /** The log restarts here. */
  readonly mark?: LogPosition;
  readonly beforeWrite?: () => Promise<void>;
  readonly done: PromiseWithResolvers<void>;
}

// A block grows to this before the next one is begun: what follows must not wait for megabytes.
const BATCH_BYTES = 1 << 20;
// Some slack for what a new segment puts in front.
const WRITE_BYTES_MAX = BLOCK_BYTES_MAX / 2;
// Of the record that a batch may have besides its entries.
const HARD_STATE_BYTES = 32;

export class CommitQueue {
  readonly #writer: SegmentWriter;
  readonly #options: CommitQueueOptions;
  readonly #builder = new BlockBuilder();
  #durable: DurableState;
  /** Of the last entry in the queue. */
  #queued: number;
  #batches: Batch[] = [];
  #draining: Promise<void> | undefined;
  /** Replaced and never changed: who deletes some of them waits meanwhile. */
  #sealed: readonly SegmentRecord[];
  #current: { keyId: number; lastIndex: number } = { keyId: 0, lastIndex: 0 };
  /** The first entry that was refused: until it comes again, what comes builds on something that is not there. */
  #refusedFrom = Number.POSITIVE_INFINITY;
  #failure: SwarmError | undefined;

  constructor(
    writer: SegmentWriter,
    durable: DurableState,
    segments: readonly SegmentRecord[],
    options: CommitQueueOptions,
  ) {
    this.#writer = writer;
    this.#durable = durable;
    this.#queued = durable.last.index;
    this.#sealed = segments;
    this.#options = options;
  }

  get lastDurableIndex(): number {
    return this.#durable.last.index;
  }

  /** Segments that are no longer written to, oldest first. */
  get sealedSegments(): readonly SegmentRecord[] {
    return this.#sealed;
  }

  get currentKeyId(): number {
    return this.#current.keyId;
  }

  forget(segments: readonly SegmentRecord[]): void {
    this.#sealed = this.#sealed.filter((segment) => !segments.includes(segment));
  }

  append({ hardState, entries }: LogWrite): Promise<void> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    const first = entries[0];
    if (first !== undefined && first.index > this.#refusedFrom) return Promise.reject(noRoom());
    let bytes = 0;
    for (const entry of entries) bytes += entryBytes(entry);
    if (bytes > WRITE_BYTES_MAX)
      return Promise.reject(
        new SwarmError('invalid-argument', `${bytes} bytes are too many for one write of the log`),
      );
    if (first !== undefined) {
      assert(first.index <= this.#queued + 1, `entry ${first.index} follows entry ${this.#queued}`);
      this.#refusedFrom = Number.POSITIVE_INFINITY;
    }
    const batch = this.#openBatch();
    for (const entry of entries) batch.entries.push(entry);
    batch.bytes += bytes;
    if (hardState !== undefined) batch.hardState = hardState;
    this.#queued = entries.at(-1)?.index ?? this.#queued;
    return batch.done.promise;
  }

  /** What comes next is in a new segment. */
  roll(): Promise<void> {
    return this.#push({ isFirst: true });
  }

  /** What was written before is gone; entries go on after `mark`. `beforeWrite` runs when there is room for it. */
  restart(mark: LogPosition, beforeWrite: () => Promise<void>): Promise<void> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    this.#queued = mark.index;
    this.#refusedFrom = Number.POSITIVE_INFINITY;
    return this.#push({ isFirst: true, mark, beforeWrite });
  }

  /**
   * The first block of a process, with what it recovered: all of it (`isWhole`), or what may have been lost from
   * `position` on. False when there is no room.
   */
  async begin(
    records: readonly LogRecord[],
    { last, position, isWhole }: { last: LogPosition; position: WritePosition; isWhole: boolean },
  ): Promise<boolean> {
    this.#builder.reset();
    for (const record of records) this.#builder.add(record);
    const key = this.#options.key();
    this.#writer.moveTo(position);
    if (!(await this.#writer.begin(this.#builder, { key, last }))) return false;
    if (isWhole) this.#outdateSealed();
    this.#current = { keyId: key.id, lastIndex: this.#durable.last.index };
    return true;
  }

  /** There is no room to begin with: the last segment stays the last until there is. */
  adopt(position: WritePosition): void {
    this.#writer.moveTo(position);
    this.#current = defined(this.#sealed.at(-1), 'a log without segments');
    this.#sealed = this.#sealed.slice(0, -1);
  }

  /** Resolves when everything that was appended has been written or refused. */
  async close(): Promise<void> {
    while (this.#draining !== undefined) await this.#draining;
    this.#failure ??= new SwarmError('unavailable', 'the log is closed');
    await this.#writer.close();
  }

  /** Whatever is done from here on is refused. */
  fail(cause: unknown): void {
    if (this.#failure !== undefined) return;
    this.#failure = new SwarmError('internal', `the log cannot be written: ${messageOf(cause)}`, {
      hint: 'Look at the disk. The manager ends, and continues from what is durable when it is started again.',
      cause,
    });
    for (const { done } of this.#batches.splice(0)) done.reject(this.#failure);
    this.#options.onFatal(this.#failure);
  }

  #openBatch(): Batch {
    const last = this.#batches.at(-1);
    if (last !== undefined && !last.isFirst && last.bytes < BATCH_BYTES) return last;
    void this.#push({ isFirst: false });
    return this.#batches.at(-1) as Batch;
  }

  #push(kind: Pick<Batch, 'isFirst' | 'mark' | 'beforeWrite'>): Promise<void> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    const done = Promise.withResolvers<void>();
    this.#batches.push({ ...kind, hardState: undefined, entries: [], bytes: 0, done });
    this.#draining ??= this.#drain();
    return done.promise;
  }

  async #drain(): Promise<void> {
    for (;;) {
      await new Promise<void>((resolve) => {
        this.#options.defer(resolve);
      });
      const batch = this.#batches.shift();
      if (batch === undefined) break;
      try {
        if (await this.#write(batch)) batch.done.resolve();
        else this.#refuse(batch);
      } catch (error) {
        this.fail(error);
        batch.done.reject(this.#failure);
      }
    }
    this.#draining = undefined;
  }

  async #write(batch: Batch): Promise<boolean> {
    const startedMs = performance.now();
    const isFirst = batch.isFirst || !this.#fits(batch);
    this.#build(batch, isFirst);
    const key = this.#options.key();
    const { beforeWrite } = batch;
    const last = batch.mark ?? this.#durable.last;
    const isWritten = isFirst
      ? await this.#writer.begin(this.#builder, { key, last, ...(beforeWrite && { beforeWrite }) })
      : await this.#writer.write(this.#builder);
    if (!isWritten) return false;
    if (isFirst) this.#seal(key);
    this.#remember(batch);
    this.#options.observe('fsync', performance.now() - startedMs);
    return true;
  }

  #fits({ bytes }: Batch): boolean {
    return this.#writer.fits(bytes + HARD_STATE_BYTES);
  }

  #build({ hardState, entries, mark }: Batch, isFirst: boolean): void {
    const builder = this.#builder;
    builder.reset();
    if (mark !== undefined) builder.addMark(mark);
    // Every segment says the hard state, so that those before it can be deleted.
    const state = hardState ?? (isFirst ? this.#durable.hardState : undefined);
    if (state !== undefined) builder.addHardState(state);
    for (const entry of entries) builder.addEntry(entry);
  }

  #seal(key: DataKey): void {
    this.#sealed = [...this.#sealed, { ...this.#current, sequence: this.#writer.segment - 1 }];
    this.#current = { keyId: key.id, lastIndex: 0 };
  }

  #remember({ hardState = this.#durable.hardState, entries, mark }: Batch): void {
    let { last } = this.#durable;
    if (mark !== undefined) {
      last = { index: mark.index, term: mark.term };
      this.#outdateSealed();
    }
    const entry = entries.at(-1);
    if (entry !== undefined) last = { index: entry.index, term: entry.term };
    for (const { index } of entries) this.#current.lastIndex = Math.max(this.#current.lastIndex, index);
    this.#durable = { last, hardState };
  }

  /** A newer segment says all that these do. */
  #outdateSealed(): void {
    this.#sealed = this.#sealed.map((segment) => ({ ...segment, lastIndex: 0 }));
  }

  /** Nothing of this batch and of those behind it is written: each builds on the one before. */
  #refuse(batch: Batch): void {
    this.#queued = this.#durable.last.index;
    const error = noRoom();
    for (const { done, entries } of [batch, ...this.#batches.splice(0)]) {
      for (const { index } of entries) this.#refusedFrom = Math.min(this.#refusedFrom, index);
      done.reject(error);
    }
  }
}

function noRoom(): SwarmError {
  return new SwarmError('resource-exhausted', 'the disk of the log is full', {
    hint: 'Make room in the directory of the manager; it goes on by itself.',
  });
}
