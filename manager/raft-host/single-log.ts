// A replicated log with one member: every entry is durable on this disk before it is applied and acknowledged.
// Group commit: one write is in flight, everything proposed meanwhile forms the next. Segments begin at snapshots;
// once a snapshot is on disk, the segments before it go.

import { constants, type FileHandle, mkdir, open, readdir, readFile, rename, unlink } from 'node:fs/promises';
import path from 'node:path';
import { assert } from '../../core/assert.ts';
import { SwarmError } from '../../core/errors.ts';
import { logLog } from '../log.ts';
import type { ApplyResult, ReplicatedLog, StateMachine } from '../store/replicated-log.ts';
import { encodeRecord, scanRecords } from './record.ts';

export interface SingleLogOptions {
  readonly directory: string;
  /** Entries between two snapshots. */
  readonly snapshotInterval: number;
  /** The disk has failed: the process must end, and never acknowledge what may not be durable. */
  readonly onFatal: (error: unknown) => void;
  readonly observe?: (operation: 'transaction' | 'fsync' | 'snapshot', durationMs: number) => void;
}

interface Proposal {
  readonly payload: Uint8Array;
  readonly startedMs: number;
  readonly resolve: (result: ApplyResult) => void;
  readonly reject: (error: unknown) => void;
}

const SEGMENT = /^segment-(\d{16})\.log$/;
const SNAPSHOT = /^snapshot-(\d{16})\.snap$/;
// The last record of a snapshot is the only one with this index; its payload is the number of the others.
const TRAILER_INDEX = 0;
// Snapshot records are joined into writes of about this size.
const SNAPSHOT_CHUNK_BYTES = 1 << 20;

export class SingleLog implements ReplicatedLog {
  readonly #options: SingleLogOptions;
  readonly #observe: NonNullable<SingleLogOptions['observe']>;
  #machine: StateMachine | undefined;
  #segment: FileHandle | undefined;
  #segmentBytes = 0;
  #appliedIndex = 0;
  #snapshotIndex = 0;
  #queue: Proposal[] = [];
  #writing: Promise<void> | undefined;
  #snapshotting: Promise<void> | undefined;
  #isClosed = false;

  constructor(options: SingleLogOptions) {
    this.#options = options;
    this.#observe = options.observe ?? (() => {});
  }

  get appliedIndex(): number {
    return this.#appliedIndex;
  }

  async open(machine: StateMachine): Promise<void> {
    await mkdir(this.#options.directory, { recursive: true, mode: 0o700 });
    const names = await readdir(this.#options.directory);
    for (const name of names) if (name.endsWith('.tmp')) await unlink(this.#path(name));
    await this.#restoreSnapshot(machine, names);
    await this.#replaySegments(machine, names);
    this.#machine = machine;
    logLog.info({ 'log.index': this.#appliedIndex, 'snapshot.index': this.#snapshotIndex }, 'log opened');
  }

  propose(payload: Uint8Array): Promise<ApplyResult> {
    if (this.#isClosed) return Promise.reject(new SwarmError('unavailable', 'the manager is stopping'));
    return new Promise((resolve, reject) => {
      this.#queue.push({ payload, startedMs: performance.now(), resolve, reject });
      this.#writing ??= this.#writeAll();
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isClosed = true;
    await this.#writing;
    await this.#snapshotting;
    await this.#segment?.close();
  }

  async #writeAll(): Promise<void> {
    let proposals: Proposal[] = [];
    try {
      while (this.#queue.length > 0) {
        proposals = this.#queue;
        this.#queue = [];
        const records = proposals.map(({ payload }, offset) =>
          encodeRecord(this.#appliedIndex + 1 + offset, payload),
        );
        await this.#append(Buffer.concat(records));
        for (const proposal of proposals) this.#applyProposal(proposal);
        if (this.#appliedIndex - this.#snapshotIndex >= this.#options.snapshotInterval)
          await this.#startSnapshot();
      }
    } catch (error) {
      // What the disk holds is unknown now (a failed fsync may have lost earlier writes): never retry.
      this.#isClosed = true;
      for (const { reject } of [...proposals, ...this.#queue.splice(0)]) reject(error);
      this.#options.onFatal(error);
    }
    // In the same turn as the look at the queue: a proposal that comes now starts a new round.
    this.#writing = undefined;
  }

  #applyProposal({ payload, startedMs, resolve }: Proposal): void {
    assert(this.#machine !== undefined, 'propose before open');
    const result = this.#machine.apply(++this.#appliedIndex, payload);
    this.#observe('transaction', performance.now() - startedMs);
    resolve(result);
  }

  async #append(bytes: Buffer): Promise<void> {
    assert(this.#segment !== undefined, 'append before open');
    const startedMs = performance.now();
    // The segment is open with O_DSYNC: a write that returns is on the disk.
    const { bytesWritten } = await this.#segment.write(bytes, 0, bytes.length, this.#segmentBytes);
    if (bytesWritten !== bytes.length) throw new SwarmError('internal', 'the log was written only in part');
    this.#segmentBytes += bytes.length;
    this.#observe('fsync', performance.now() - startedMs);
  }

  async #restoreSnapshot(machine: StateMachine, names: readonly string[]): Promise<void> {
    const latest = indexesOf(names, SNAPSHOT).at(-1);
    if (latest === undefined) return;
    const name = snapshotName(latest);
    const { records, validBytes, corruptAt } = scanRecords(await readFile(this.#path(name)));
    const trailer = records.at(-1);
    const isWhole =
      trailer?.index === TRAILER_INDEX && trailer.payload.toString() === String(records.length - 1);
    if (corruptAt !== undefined || !isWhole) throw this.#corrupt(name, corruptAt ?? validBytes);
    machine.restore(
      latest,
      records.slice(0, -1).map((record) => record.payload),
    );
    this.#snapshotIndex = latest;
    this.#appliedIndex = latest;
  }

  async #replaySegments(machine: StateMachine, names: readonly string[]): Promise<void> {
    const starts = indexesOf(names, SEGMENT);
    for (const [position, start] of starts.entries()) {
      const name = segmentName(start);
      const bytes = await readFile(this.#path(name));
      const { records, validBytes, corruptAt } = scanRecords(bytes);
      const isLast = position === starts.length - 1;
      const isWhole = validBytes === bytes.length;
      if (corruptAt !== undefined || (!isLast && !isWhole))
        throw this.#corrupt(name, corruptAt ?? validBytes);
      for (const { index, payload } of records) {
        if (index <= this.#appliedIndex) continue;
        if (index !== this.#appliedIndex + 1)
          throw new SwarmError(
            'internal',
            `${this.#path(name)}: entry ${index} follows ${this.#appliedIndex}`,
          );
        machine.apply(index, payload);
        this.#appliedIndex = index;
      }
      if (!isLast) continue;
      if (!isWhole)
        logLog.warn({ file: name, offset: validBytes, bytes: bytes.length }, 'torn end of log dropped');
      await this.#openSegment(name, validBytes);
    }
    if (starts.length === 0) await this.#openSegment(segmentName(this.#appliedIndex + 1), 0);
  }

  async #openSegment(name: string, validBytes: number): Promise<void> {
    const { O_RDWR, O_CREAT, O_DSYNC } = constants;
    this.#segment = await open(this.#path(name), O_RDWR | O_CREAT | O_DSYNC, 0o600);
    await this.#segment.truncate(validBytes);
    await this.#segment.sync();
    await this.#syncDirectory();
    this.#segmentBytes = validBytes;
  }

  /** Begins a new segment, then writes the snapshot of this moment beside the log while it goes on. */
  async #startSnapshot(): Promise<void> {
    if (this.#snapshotting !== undefined) return;
    assert(this.#machine !== undefined, 'snapshot before open');
    const index = this.#appliedIndex;
    const records = this.#machine.snapshot();
    const iterator = records[Symbol.iterator]();
    // The generator copies the state's references when it is first asked.
    const first = iterator.next();
    await this.#segment?.close();
    await this.#openSegment(segmentName(index + 1), 0);
    this.#snapshotIndex = index;
    this.#snapshotting = this.#writeSnapshot(index, first, iterator)
      .catch((error) => this.#options.onFatal(error))
      .finally(() => {
        this.#snapshotting = undefined;
      });
  }

  async #writeSnapshot(
    index: number,
    first: IteratorResult<Uint8Array>,
    rest: Iterator<Uint8Array>,
  ): Promise<void> {
    const startedMs = performance.now();
    const temporary = this.#path(`${snapshotName(index)}.tmp`);
    const file = await open(temporary, 'w', 0o600);
    try {
      let count = 0;
      let chunk: Buffer[] = [];
      let chunkBytes = 0;
      const flush = async () => {
        if (chunk.length > 0) await file.writev(chunk);
        chunk = [];
        chunkBytes = 0;
      };
      for (let next = first; !next.done; next = rest.next()) {
        const record = encodeRecord(++count, next.value);
        chunk.push(record);
        chunkBytes += record.length;
        if (chunkBytes >= SNAPSHOT_CHUNK_BYTES) await flush();
      }
      chunk.push(encodeRecord(TRAILER_INDEX, Buffer.from(String(count))));
      await flush();
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, this.#path(snapshotName(index)));
    await this.#syncDirectory();
    await this.#deleteBefore(index);
    this.#observe('snapshot', performance.now() - startedMs);
    logLog.info({ 'snapshot.index': index }, 'snapshot written');
  }

  async #deleteBefore(index: number): Promise<void> {
    for (const name of await readdir(this.#options.directory)) {
      const segment = SEGMENT.exec(name);
      const snapshot = SNAPSHOT.exec(name);
      const isOld = (segment && Number(segment[1]) <= index) || (snapshot && Number(snapshot[1]) < index);
      if (isOld) await unlink(this.#path(name));
    }
  }

  async #syncDirectory(): Promise<void> {
    const directory = await open(this.#options.directory, 'r');
    await directory.sync();
    await directory.close();
  }

  #corrupt(name: string, offset: number): SwarmError {
    return new SwarmError(
      'internal',
      `${this.#path(name)} is damaged at byte ${offset}: it is not a torn write`,
      {
        hint: 'Restore the directory from a backup, or remove it to start an empty cluster.',
      },
    );
  }

  #path(name: string): string {
    return path.join(this.#options.directory, name);
  }
}

function indexesOf(names: readonly string[], pattern: RegExp): number[] {
  return names
    .map((name) => pattern.exec(name)?.[1])
    .filter((digits) => digits !== undefined)
    .map(Number)
    .sort((a, b) => a - b);
}

function segmentName(first: number): string {
  return `segment-${String(first).padStart(16, '0')}.log`;
}

function snapshotName(index: number): string {
  return `snapshot-${String(index).padStart(16, '0')}.snap`;
}
