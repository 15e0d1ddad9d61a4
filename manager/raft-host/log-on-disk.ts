// What one member of a Raft group keeps on its disk: the log, its hard state and snapshots, encrypted. What an append
// acknowledged is there after any crash; a place where that cannot be known makes `open` refuse. LOG.md has the format.

import { assert, defined } from '../../core/assert.ts';
import { hasCode, messageOf, SwarmError } from '../../core/errors.ts';
import { type Entry, emptyHardState, type HardState, type SnapshotMark } from '../../proto/generated/raft.ts';
import { logLog } from '../log.ts';
import type { LogPosition, LogRecord } from './block.ts';
import { CommitQueue, type LogWrite } from './commit-queue.ts';
import { type DataKey, damaged, type RandomBytes } from './data-key.ts';
import { type Disk, isNoSpace } from './disk.ts';
import { KEY_FILE, type KeyRing, loadKeyFile, newDataKey, storeKeyFile } from './key-file.ts';
import { type LogImage, listDirectory, readLog, type SegmentRecord } from './log-reader.ts';
import { type LogMember, segmentName } from './segment-header.ts';
import type { ReadBlock } from './segment-reader.ts';
import { SegmentSupply, type SpaceState } from './segment-supply.ts';
import { FIRST_POSITION, SegmentWriter, type WritePosition } from './segment-writer.ts';
import { type Pacing, SnapshotReader, SnapshotWriter, snapshotName } from './snapshot-file.ts';

export interface LogOptions {
  readonly disk: Disk;
  readonly randomBytes: RandomBytes;
  /** `SWMKEY-1-…`; without one the data keys stand in the key file as they are. */
  readonly unlockKey?: string;
  /** The disk has failed: the process must end, and never acknowledge what may not be durable. */
  readonly onFatal: (error: unknown) => void;
  readonly onSpace?: (state: SpaceState) => void;
  /** A snapshot of now would end a rotation of keys. */
  readonly onSnapshotWanted?: () => void;
  readonly observe?: (operation: 'fsync' | 'snapshot', durationMs: number) => void;
  readonly segmentBytes?: { readonly first: number; readonly max: number };
  readonly ballastBytes?: number;
  readonly lowWatermarkBytes?: number;
  /** A log whose entries take no more is copied when it is opened, so that restarts do not pile up segments. */
  readonly copyBytesMax?: number;
  /** Runs a callback after what is happening now; a simulator has its own. */
  readonly defer?: (callback: () => void) => void;
}

export interface Recovered {
  readonly member: LogMember;
  readonly hardState: HardState;
  readonly snapshot: SnapshotMark | undefined;
  /** After the snapshot. */
  readonly entries: readonly Entry[];
}

export interface OpenSnapshot {
  readonly mark: SnapshotMark;
  /** Of all records. */
  readonly bytes: number;
  /** What `receiveSnapshot` of a peer checks all records against. */
  readonly rootHash: Uint8Array;
  /** Chunks of at most 256 KiB, or one record that is longer. */
  records(): AsyncIterable<Uint8Array[]>;
  close(): Promise<void>;
}

export interface SnapshotReceiver {
  /** Resolves when there is room for more. */
  write(records: readonly Uint8Array[]): Promise<void>;
  /** It is the state of this member when this resolves; the log goes on after its mark. */
  finish(): Promise<void>;
  abort(): Promise<void>;
}

// A fresh node must not feel the first one; a busy one gets to the last in six steps.
const SEGMENT_BYTES = { first: 2 ** 20, max: 64 * 2 ** 20 };
const BALLAST_BYTES = 2 ** 20;
// Two of the largest segments.
const LOW_WATERMARK_BYTES = 128 * 2 ** 20;
// Milliseconds of writing, and one block.
const COPY_BYTES_MAX = 2 ** 20;

interface NewestSnapshot {
  readonly mark: SnapshotMark;
  readonly keyId: number;
}

export class LogOnDisk implements AsyncDisposable {
  readonly member: LogMember;
  readonly #options: LogOptions;
  readonly #disk: Disk;
  readonly #supply: SegmentSupply;
  readonly #queue: CommitQueue;
  #ring: KeyRing;
  #unlockKey: string | undefined;
  #snapshot: NewestSnapshot | undefined;
  /** Changes of what files there are, one at a time. */
  #changes: Promise<unknown> = Promise.resolve();
  #temporaries = 0;

  private constructor(
    options: LogOptions,
    member: LogMember,
    ring: KeyRing,
    start: {
      readonly position: WritePosition;
      readonly last: LogPosition;
      readonly hardState: HardState;
      readonly segments: readonly SegmentRecord[];
      readonly snapshot: NewestSnapshot | undefined;
    },
  ) {
    this.member = member;
    this.#options = options;
    this.#disk = options.disk;
    this.#ring = ring;
    this.#unlockKey = options.unlockKey;
    this.#snapshot = start.snapshot;
    this.#supply = new SegmentSupply({
      disk: options.disk,
      segmentBytes: options.segmentBytes ?? SEGMENT_BYTES,
      ballastBytesMin: options.ballastBytes ?? BALLAST_BYTES,
      lowWatermarkBytes: options.lowWatermarkBytes ?? LOW_WATERMARK_BYTES,
      onSpace: (state) => {
        logLog.warn({ 'space.state': state }, 'room for the log');
        options.onSpace?.(state);
      },
      onFailure: (error) => this.#queue.fail(error),
    });
    const { disk, randomBytes } = options;
    const writer = new SegmentWriter({ disk, supply: this.#supply, member, randomBytes }, start.position);
    this.#queue = new CommitQueue(writer, start, start.segments, {
      defer: options.defer ?? process.nextTick,
      key: () => this.#key,
      observe: options.observe ?? (() => {}),
      onFatal: options.onFatal,
    });
  }

  /** Undefined when there is no log in the directory: `create` makes one. */
  static async open(options: LogOptions): Promise<{ log: LogOnDisk; recovered: Recovered } | undefined> {
    const { disk, unlockKey } = options;
    const names = listDirectory(await disk.list());
    const ring = await loadKeyFile(disk, unlockKey);
    if (ring === undefined) {
      if (names.segments.length === 0 && names.snapshots.length === 0) return undefined;
      throw damaged(KEY_FILE, 0, 'it is missing, and nothing else can be read without it');
    }
    const image = await readLog(disk, ring.keys);
    if (image === undefined) return undefined;
    if (image.tail.isTorn)
      logLog.warn(
        { offset: image.tail.end },
        'a block that was never whole is dropped from the end of the log',
      );
    // What is seen here may be in the cache only, and is about to be built on.
    await disk.syncDirectory();
    for (const name of names.temporary) await disk.unlink(name);
    const log = await LogOnDisk.#resume(options, ring, image);
    for (const name of names.strays) await disk.unlink(name);
    await log.#deleteUnneeded(0);
    const { member, hardState, snapshot, entries } = image;
    logLog.info({ 'log.index': log.lastIndex, 'snapshot.index': snapshot?.index ?? 0 }, 'log opened');
    return { log, recovered: { member, hardState, snapshot, entries } };
  }

  /** The empty log of a new member. */
  static async create(options: LogOptions, member: LogMember): Promise<LogOnDisk> {
    const { disk, randomBytes, unlockKey } = options;
    const { segments, snapshots, temporary } = listDirectory(await disk.list());
    assert(segments.length === 0 && snapshots.length === 0, 'there is a log already');
    for (const name of temporary) await disk.unlink(name);
    const ring: KeyRing = { keys: [newDataKey(undefined, randomBytes)] };
    await storeKeyFile(disk, ring, { unlockKey, randomBytes });
    const none = { index: 0, term: 0 };
    const log = new LogOnDisk(options, member, ring, {
      position: FIRST_POSITION,
      last: none,
      hardState: emptyHardState,
      segments: [],
      snapshot: undefined,
    });
    const start = { last: none, position: FIRST_POSITION, isWhole: true };
    if (!(await log.#queue.begin([{ kind: 'mark', mark: none }], start))) throw noRoomToOpen();
    return log;
  }

  /** Of the last durable entry, or of the snapshot. */
  get lastIndex(): number {
    return this.#queue.lastDurableIndex;
  }

  get snapshotMark(): SnapshotMark | undefined {
    return this.#snapshot?.mark;
  }

  get space(): SpaceState {
    return this.#supply.state;
  }

  /** Keys are being rotated, and data under the old ones is there until a snapshot is written. */
  get isSnapshotWanted(): boolean {
    return this.#ring.keys.length > 1;
  }

  /**
   * Durable when it resolves; calls keep their order. An entry whose index is not after the last one replaces that one
   * and those behind it. Rejects with `resource-exhausted` when the disk is full: nothing is written then, nor anything
   * that was appended after it, until the first entry that was refused (or one before it) is appended again. Any other
   * rejection is the end of this log.
   */
  append(write: LogWrite): Promise<void> {
    return this.#queue.append(write);
  }

  /** Looks whether there is room again, after `space` was not `ok`. */
  reviewSpace(): Promise<SpaceState> {
    return this.#supply.retry();
  }

  /** A snapshot of this member's own state after entry `mark.index`, written beside the log while that goes on. Returns its bytes. */
  async writeSnapshot(mark: SnapshotMark, records: Iterable<Uint8Array>, pacing?: Pacing): Promise<number> {
    assert(mark.index > 0 && mark.index <= this.lastIndex, `a snapshot of ${mark.index}, not in the log`);
    const startedMs = performance.now();
    const { key, writer } = await this.#beginSnapshot(mark);
    let bytes = 0;
    try {
      await writer.add(records, pacing);
      ({ bytes } = await writer.finish());
    } catch (error) {
      await writer.abort();
      throw explainNoSpace(error);
    }
    await this.#change(async () => {
      if (this.#isOutdated(mark, key)) return writer.abort();
      await this.#publish(writer, { mark, keyId: key.id });
      await this.#endRotation();
    });
    this.#options.observe?.('snapshot', performance.now() - startedMs);
    logLog.info({ 'snapshot.index': mark.index, bytes }, 'snapshot written');
    return bytes;
  }

  /** Entries up to `index` are not needed any more, as far as there is a snapshot of them; nor are older snapshots. */
  compact(index: number): Promise<void> {
    return this.#change(() => this.#deleteUnneeded(index));
  }

  /** The newest snapshot. It stays readable when a newer one replaces it, until it is closed. */
  openSnapshot(): Promise<OpenSnapshot | undefined> {
    return this.#change(async () => {
      if (this.#snapshot === undefined) return undefined;
      const reader = await SnapshotReader.open(
        this.#disk,
        snapshotName(this.#snapshot.mark.index),
        this.#ring.keys,
      );
      const { bytes, rootHash } = reader.totals;
      return {
        mark: reader.mark,
        bytes,
        rootHash,
        records: () => reader.records(),
        close: () => reader.close(),
      };
    });
  }

  /** Takes a peer's snapshot, piece by piece; nothing of this member's state changes before `finish`. */
  async receiveSnapshot(mark: SnapshotMark, rootHash: Uint8Array): Promise<SnapshotReceiver> {
    const { key, writer } = await this.#beginSnapshot(mark);
    const orAbort = async (work: () => Promise<unknown>) => {
      try {
        await work();
      } catch (error) {
        await writer.abort();
        throw explainNoSpace(error);
      }
    };
    return {
      write: (records) => orAbort(() => writer.add(records)),
      finish: async () => {
        await orAbort(() => writer.finish(rootHash));
        await this.#change(() => this.#install(writer, { mark, key }));
      },
      abort: () => writer.abort(),
    };
  }

  /** From here on blocks have a new key. The old one goes when a snapshot makes what it protects unneeded. */
  async rotateKey(): Promise<void> {
    await this.#change(() => this.#rotate(this.#unlockKey));
    if (this.isSnapshotWanted) this.#options.onSnapshotWanted?.();
  }

  /**
   * Wraps the data keys with another unlock key, or with none. Where there was none before, the data keys have been
   * readable, and are rotated.
   */
  async setUnlockKey(unlockKey: string | undefined): Promise<void> {
    const isProtected = this.#unlockKey !== undefined;
    await this.#change(async () => {
      if (unlockKey !== undefined && !isProtected) return this.#rotate(unlockKey);
      await this.#storeRing(this.#ring, unlockKey);
    });
    if (this.isSnapshotWanted) this.#options.onSnapshotWanted?.();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#changes;
    await this.#queue.close();
    await this.#supply.close();
  }

  static async #resume(options: LogOptions, ring: KeyRing, image: LogImage): Promise<LogOnDisk> {
    const { member, hardState, entries, snapshot, segments, tail, lastBlock } = image;
    const base = { index: snapshot?.index ?? 0, term: snapshot?.term ?? 0 };
    const last = entries.at(-1) ?? base;
    const { sequence } = defined(segments.at(-1), 'a log without segments');
    const log = new LogOnDisk(options, member, ring, {
      position: FIRST_POSITION,
      last: { index: last.index, term: last.term },
      hardState,
      segments,
      snapshot: snapshot && { mark: snapshot, keyId: await snapshotKey(options.disk, ring, snapshot) },
    });
    await log.#supply.open(await log.#disk.list());
    const state: LogRecord = { kind: 'hard-state', hardState };
    // The last block may be in the page cache and not on the disk. The new segment takes its place.
    const position = {
      segment: sequence,
      end: lastBlock.offset,
      nextBlock: lastBlock.sequence,
      chain: lastBlock.chain,
    };
    if (image.entriesBytes <= (options.copyBytesMax ?? COPY_BYTES_MAX) || image.isSuperseded) {
      const copies = entries.map((entry): LogRecord => ({ kind: 'entry', entry }));
      const whole = [{ kind: 'mark', mark: base } as const, state, ...copies];
      if (await log.#queue.begin(whole, { last: base, position, isWhole: true })) return log;
      // Without a mark what was superseded would be back.
      if (image.isSuperseded) throw noRoomToOpen();
    }
    const repeated = [...lastBlock.records, state];
    if (await log.#queue.begin(repeated, { last: image.lastBefore, position, isWhole: false })) return log;
    await rewrite(options.disk, segmentName(sequence), lastBlock);
    log.#queue.adopt({ segment: sequence, end: tail.end, nextBlock: tail.nextSequence, chain: tail.chain });
    return log;
  }

  get #key(): DataKey {
    return defined(this.#ring.keys.at(-1), 'no data key');
  }

  #change<T>(work: () => Promise<T>): Promise<T> {
    const done = this.#changes.then(work);
    this.#changes = done.catch(() => {});
    return done;
  }

  async #beginSnapshot(mark: SnapshotMark): Promise<{ key: DataKey; writer: SnapshotWriter }> {
    const key = this.#key;
    const owner = { disk: this.#disk, member: this.member, key, randomBytes: this.#options.randomBytes };
    try {
      return { key, writer: await SnapshotWriter.begin(owner, mark, `snapshot-${++this.#temporaries}`) };
    } catch (error) {
      throw explainNoSpace(error);
    }
  }

  /** A newer one came in between, or its key is not kept any more. */
  #isOutdated(mark: SnapshotMark, key: DataKey): boolean {
    const newest = this.#snapshot;
    if (!this.#ring.keys.includes(key)) return true;
    if (newest === undefined || mark.index > newest.mark.index) return false;
    // The same again is worth something when it has another key.
    return mark.index < newest.mark.index || newest.keyId === key.id;
  }

  async #publish(writer: SnapshotWriter, snapshot: NewestSnapshot): Promise<void> {
    try {
      await writer.publish();
    } catch (error) {
      // Which snapshot is the newest is unknown now.
      this.#queue.fail(error);
      throw error;
    }
    this.#snapshot = snapshot;
  }

  async #install(writer: SnapshotWriter, { mark, key }: { mark: SnapshotMark; key: DataKey }): Promise<void> {
    if (this.#isOutdated(mark, key)) {
      await writer.abort();
      throw new SwarmError('failed-precondition', `the snapshot of ${mark.index} came too late`);
    }
    try {
      // The log restarts in the same breath: a crash between the two is recognised by `readLog`.
      await this.#queue.restart(mark, () => this.#publish(writer, { mark, keyId: key.id }));
    } catch (error) {
      await writer.abort();
      throw error;
    }
    await this.#deleteUnneeded(mark.index);
  }

  async #deleteUnneeded(index: number): Promise<void> {
    const covered = Math.min(index, this.#snapshot?.mark.index ?? 0);
    const { sealedSegments } = this.#queue;
    const kept = sealedSegments.findIndex(({ lastIndex }) => lastIndex > covered);
    await this.#delete(kept < 0 ? sealedSegments : sealedSegments.slice(0, kept));
    await this.#endRotation();
  }

  /** Deletes these segments, and all snapshots but the newest. */
  async #delete(segments: readonly SegmentRecord[]): Promise<void> {
    const { snapshots } = listDirectory(await this.#disk.list());
    const old = snapshots.filter((index) => index < (this.#snapshot?.mark.index ?? 0));
    const names = [...segments.map(({ sequence }) => segmentName(sequence)), ...old.map(snapshotName)];
    if (names.length === 0) return;
    for (const name of names) await this.#disk.unlink(name);
    await this.#disk.syncDirectory();
    this.#queue.forget(segments);
  }

  async #rotate(unlockKey: string | undefined): Promise<void> {
    const key = newDataKey(this.#ring, this.#options.randomBytes);
    await this.#storeRing({ keys: [...this.#ring.keys, key] }, unlockKey);
    try {
      await this.#queue.roll();
    } catch (error) {
      // The next segment has the new key, whenever there is room for it.
      if (!hasCode(error, 'resource-exhausted')) throw error;
    }
    await this.#endRotation();
  }

  /** Forgets the old keys when nothing is left that needs them. */
  async #endRotation(): Promise<void> {
    const { id } = this.#key;
    if (!this.isSnapshotWanted || this.#queue.currentKeyId !== id) return;
    if (this.#snapshot !== undefined && this.#snapshot.keyId !== id) return;
    const covered = this.#snapshot?.mark.index ?? 0;
    const old = this.#queue.sealedSegments.filter(({ keyId }) => keyId !== id);
    if (old.some(({ lastIndex }) => lastIndex > covered)) return;
    await this.#delete(old);
    await this.#storeRing({ keys: [this.#key] }, this.#unlockKey);
    logLog.info({ 'key.id': id }, 'data key rotated');
  }

  async #storeRing(ring: KeyRing, unlockKey: string | undefined): Promise<void> {
    try {
      await storeKeyFile(this.#disk, ring, { unlockKey, randomBytes: this.#options.randomBytes });
    } catch (error) {
      if (isNoSpace(error)) throw explainNoSpace(error);
      this.#queue.fail(error);
      throw error;
    }
    this.#ring = ring;
    this.#unlockKey = unlockKey;
  }
}

async function snapshotKey(disk: Disk, { keys }: KeyRing, { index }: SnapshotMark): Promise<number> {
  const reader = await SnapshotReader.open(disk, snapshotName(index), keys);
  await reader.close();
  return reader.keyId;
}

/** Makes a block durable that is there, without any more room. */
async function rewrite(disk: Disk, name: string, { offset, bytes }: ReadBlock): Promise<void> {
  const file = await disk.open(name, { sync: true });
  try {
    await file.write(await file.read(offset, bytes), offset);
  } finally {
    await file.close();
  }
  await disk.syncDirectory();
}

function noRoomToOpen(): SwarmError {
  return new SwarmError('resource-exhausted', 'the disk of the log is full: it cannot be opened', {
    hint: 'Make room in the directory of the manager and start it again.',
  });
}

function explainNoSpace(error: unknown): unknown {
  if (!isNoSpace(error)) return error;
  return new SwarmError('resource-exhausted', `there is no room: ${messageOf(error)}`, {
    hint: 'Make room in the directory of the manager.',
    cause: error,
  });
}
