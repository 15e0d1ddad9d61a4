// Reads a whole directory of the log, and changes nothing: what a member knows after any crash. The newest snapshot and
// the run of segments that ends with the last one have to fit each other without a gap.

import { defined } from '../../core/assert.ts';
import { SwarmError } from '../../core/errors.ts';
import { type Entry, emptyHardState, type HardState, type SnapshotMark } from '../../proto/generated/raft.ts';
import { CHAIN_BYTES, entryBytes, type LogPosition, type LogRecord } from './block.ts';
import { type DataKey, damaged } from './data-key.ts';
import type { Disk } from './disk.ts';
import {
  decodeSegmentHeader,
  type LogMember,
  SEGMENT_HEADER_BYTES,
  type SegmentHeader,
  segmentName,
  segmentSequence,
} from './segment-header.ts';
import { type ReadBlock, readSegment, type SegmentTail } from './segment-reader.ts';
import { SnapshotReader, snapshotIndex, snapshotName } from './snapshot-file.ts';

/** A segment that is no longer written to, or the one that is. */
export interface SegmentRecord {
  readonly sequence: number;
  readonly keyId: number;
  /** The highest index that was written to it; 0 for none. */
  readonly lastIndex: number;
}

export interface LogImage {
  readonly member: LogMember;
  readonly hardState: HardState;
  readonly snapshot: SnapshotMark | undefined;
  /** After the snapshot, without a gap. */
  readonly entries: readonly Entry[];
  readonly entriesBytes: number;
  readonly segments: readonly SegmentRecord[];
  /** Where the log goes on. */
  readonly tail: SegmentTail;
  /** The last block, which may be in the page cache only. */
  readonly lastBlock: ReadBlock;
  /** The last entry before that block. */
  readonly lastBefore: LogPosition;
  /** Another member's snapshot was put in place, and the crash came before the log restarted after it. */
  readonly isSuperseded: boolean;
}

export interface DirectoryNames {
  /** Sequences of the run of segments that ends with the last. */
  readonly segments: readonly number[];
  /** Indexes of the snapshots, ascending. */
  readonly snapshots: readonly number[];
  /** Segments before the run: a crash undid that they were deleted. */
  readonly strays: readonly string[];
  readonly temporary: readonly string[];
}

/** Undefined when there is no log. */
export async function readLog(
  disk: Disk,
  keys: readonly DataKey[],
  onBlock: (segment: SegmentHeader, block: ReadBlock) => void = () => {},
): Promise<LogImage | undefined> {
  const { segments: run, snapshots } = listDirectory(await disk.list());
  const newest = snapshots.at(-1);
  if (run.length === 0) {
    if (newest === undefined) return undefined;
    throw damaged(snapshotName(newest), 0, 'there is a snapshot, but no log that goes with it');
  }
  const snapshot = newest === undefined ? undefined : await readMark(disk, snapshotName(newest), keys);
  const headers = await readHeaders(disk, run, keys);
  const history = new History(snapshot?.mark);
  const segments: SegmentRecord[] = [];
  let tail: SegmentTail | undefined;
  let lastBlock: ReadBlock | undefined;
  let lastBefore: LogPosition = { index: 0, term: 0 };
  for (const [position, header] of headers.entries()) {
    const next = headers[position + 1];
    history.beginSegment(segmentName(header.sequence), header, position === 0);
    lastBlock = undefined;
    tail = await readOne(disk, keys, { header, next, previous: tail }, (block) => {
      lastBlock = block;
      lastBefore = history.last;
      for (const record of block.records) history.apply(record, block.offset);
      onBlock(header, block);
    });
    if (lastBlock === undefined && next === undefined)
      throw damaged(segmentName(header.sequence), SEGMENT_HEADER_BYTES, 'its first block is missing');
    segments.push({ sequence: header.sequence, keyId: header.keyId, lastIndex: history.segmentLastIndex });
  }
  const member = (headers[0] as SegmentHeader).member;
  if (snapshot !== undefined) checkMember(snapshot.name, snapshot.member, member);
  return {
    member,
    ...history.finish(),
    snapshot: snapshot?.mark,
    segments,
    tail: tail as SegmentTail,
    lastBefore,
    lastBlock: defined(lastBlock, 'a segment without blocks'),
  };
}

export function listDirectory(names: readonly string[]): DirectoryNames {
  const sequences = numbers(names, segmentSequence);
  let first = sequences.length - 1;
  while (first > 0 && sequences[first - 1] === (sequences[first] as number) - 1) first--;
  return {
    segments: sequences.slice(Math.max(first, 0)),
    snapshots: numbers(names, snapshotIndex),
    strays: sequences.slice(0, Math.max(first, 0)).map(segmentName),
    temporary: names.filter((name) => name.endsWith('.tmp')),
  };
}

async function readHeaders(
  disk: Disk,
  run: readonly number[],
  keys: readonly DataKey[],
): Promise<SegmentHeader[]> {
  const headers: SegmentHeader[] = [];
  for (const sequence of run) {
    const name = segmentName(sequence);
    const file = await disk.open(name);
    try {
      const header = decodeSegmentHeader(name, await file.read(0, SEGMENT_HEADER_BYTES), keys);
      if (header.sequence !== sequence) throw damaged(name, 24, `it is segment ${header.sequence}`);
      checkMember(name, header.member, headers[0]?.member ?? header.member);
      headers.push(header);
    } finally {
      await file.close();
    }
  }
  return headers;
}

async function readOne(
  disk: Disk,
  keys: readonly DataKey[],
  {
    header,
    next,
    previous,
  }: { header: SegmentHeader; next?: SegmentHeader | undefined; previous?: SegmentTail | undefined },
  onBlock: (block: ReadBlock) => void,
): Promise<SegmentTail> {
  const name = segmentName(header.sequence);
  const continues =
    previous === undefined ||
    (previous.nextSequence === header.firstBlock &&
      previous.chain.equals(header.chain.subarray(0, CHAIN_BYTES)));
  if (!continues) throw damaged(name, 0, 'it does not continue the segment before');
  const file = await disk.open(name);
  try {
    const end = next === undefined ? undefined : { end: next.previousEnd };
    return await readSegment({ name, file, header, keys, ...end }, onBlock);
  } finally {
    await file.close();
  }
}

async function readMark(
  disk: Disk,
  name: string,
  keys: readonly DataKey[],
): Promise<{ name: string; member: LogMember; mark: SnapshotMark }> {
  const snapshot = await SnapshotReader.open(disk, name, keys);
  await snapshot.close();
  return { name, member: snapshot.member, mark: snapshot.mark };
}

function checkMember(name: string, member: LogMember, expected: LogMember): void {
  if (member.clusterId === expected.clusterId && member.memberId === expected.memberId) return;
  throw new SwarmError(
    'failed-precondition',
    `${name} belongs to member ${member.memberId} of cluster ${member.clusterId}, ` +
      `the log to member ${expected.memberId} of cluster ${expected.clusterId}`,
    { hint: 'Files of two managers are mixed up: restore the directory from a backup.' },
  );
}

/** What the records say, one after the other. Entries up to the snapshot are forgotten as they pass. */
class History {
  readonly #snapshot: SnapshotMark | undefined;
  readonly #floor: number;
  /** The entry before `#entries`: never above the floor, unless the snapshot that covers it is missing. */
  #base: LogPosition = { index: 0, term: 0 };
  #entries: Entry[] = [];
  #hardState: HardState = emptyHardState;
  #segmentLastIndex = 0;
  #name = '';

  constructor(snapshot: SnapshotMark | undefined) {
    this.#snapshot = snapshot;
    this.#floor = snapshot?.index ?? 0;
  }

  get last(): LogPosition {
    const { index, term } = this.#entries.at(-1) ?? this.#base;
    return { index, term };
  }

  get segmentLastIndex(): number {
    return this.#segmentLastIndex;
  }

  beginSegment(name: string, { firstIndex, previousTerm }: SegmentHeader, isFirst: boolean): void {
    this.#name = name;
    this.#segmentLastIndex = 0;
    if (isFirst) this.#base = { index: firstIndex - 1, term: previousTerm };
  }

  apply(record: LogRecord, offset: number): void {
    if (record.kind === 'hard-state') this.#hardState = record.hardState;
    else if (record.kind === 'entry') this.#push(record.entry, offset);
    else {
      this.#base = record.mark;
      this.#entries = [];
    }
  }

  finish(): Pick<LogImage, 'hardState' | 'entries' | 'entriesBytes' | 'isSuperseded'> {
    const floor = this.#floor;
    if (this.#base.index > floor)
      throw damaged(
        this.#name,
        0,
        `the log begins after ${this.#base.index}, the newest snapshot is of ${floor}`,
      );
    const isSuperseded = this.#base.index < floor || this.#base.term !== (this.#snapshot?.term ?? 0);
    const entries = isSuperseded ? [] : this.#entries;
    const hardState = { ...this.#hardState, commit: Math.max(this.#hardState.commit, floor) };
    const entriesBytes = entries.reduce((sum, entry) => sum + entryBytes(entry), 0);
    return { hardState, entries, entriesBytes, isSuperseded };
  }

  #push(entry: Entry, offset: number): void {
    const { index, term } = entry;
    if (index > this.#base.index + this.#entries.length + 1)
      throw damaged(
        this.#name,
        offset,
        `entry ${index} follows entry ${this.#base.index + this.#entries.length}`,
      );
    this.#segmentLastIndex = Math.max(this.#segmentLastIndex, index);
    if (index <= this.#floor || index <= this.#base.index) {
      this.#base = { index, term };
      this.#entries = [];
      return;
    }
    this.#entries.length = index - this.#base.index - 1;
    this.#entries.push(entry);
  }
}

function numbers(names: readonly string[], parse: (name: string) => number | undefined): number[] {
  return names
    .map(parse)
    .filter((value) => value !== undefined)
    .sort((a, b) => a - b);
}
