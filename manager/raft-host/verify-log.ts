// Looks at a log that no manager uses: is it whole, and what is in it. Changes nothing.

import { messageOf, SwarmError, toSwarmError } from '../../core/errors.ts';
import type { HardState, SnapshotMark } from '../../proto/generated/raft.ts';
import type { LogRecord } from './block.ts';
import type { DataKey } from './data-key.ts';
import { damaged } from './data-key.ts';
import type { Disk } from './disk.ts';
import { KEY_FILE, loadKeyFile } from './key-file.ts';
import { listDirectory, readLog } from './log-reader.ts';
import { type LogMember, segmentName } from './segment-header.ts';
import { SnapshotReader, snapshotName } from './snapshot-file.ts';

/** First and last of something; undefined for none. */
export type Range = { readonly first: number; readonly last: number } | undefined;

export interface SegmentReport {
  readonly name: string;
  readonly blocks: number;
  readonly entries: Range;
  readonly terms: Range;
}

export interface LogReport {
  readonly member: LogMember | undefined;
  readonly hardState: HardState | undefined;
  readonly snapshot: SnapshotMark | undefined;
  /** Of the log after the snapshot. */
  readonly entries: Range;
  /** In their order; up to the first damage. */
  readonly segments: readonly SegmentReport[];
  readonly snapshots: readonly { readonly name: string; readonly records: number; readonly bytes: number }[];
  /** A piece of a block at the end, which the next start drops: it was never acknowledged. */
  readonly isTorn: boolean;
  /** What a start would refuse, and the way out. Empty: the log is whole. */
  readonly problems: readonly { readonly message: string; readonly hint: string | undefined }[];
}

/** One record of the log, or one block's frame: a line of a dump. */
export interface DumpLine {
  readonly segment: string;
  readonly offset: number;
  readonly block: number;
  readonly record: LogRecord;
}

/** Reads every byte that a start or a restore would read. Throws only when the keys cannot be had. */
export async function verifyLog(disk: Disk, unlockKey?: string): Promise<LogReport> {
  const keys = await keysOf(disk, unlockKey);
  const names = listDirectory(await disk.list());
  const segments = new Map<number, SegmentReport>();
  const problems: { message: string; hint: string | undefined }[] = [];
  const attempt = async <T>(work: () => Promise<T>): Promise<T | undefined> => {
    try {
      return await work();
    } catch (error) {
      problems.push({ message: messageOf(error), hint: toSwarmError(error).hint });
      return undefined;
    }
  };
  const image = await attempt(() =>
    readLog(disk, keys, ({ sequence }, { records }) =>
      segments.set(sequence, withBlock(segments.get(sequence), sequence, records)),
    ),
  );
  const snapshots = [];
  for (const name of names.snapshots.map(snapshotName)) {
    const totals = await attempt(() => verifySnapshot(disk, name, keys));
    if (totals !== undefined) snapshots.push({ name, ...totals });
  }
  return {
    member: image?.member,
    hardState: image?.hardState,
    snapshot: image?.snapshot,
    entries: image?.entries.reduce<Range>((range, { index }) => extend(range, index), undefined),
    segments: [...segments.values()],
    snapshots,
    isTorn: image?.tail.isTorn ?? false,
    problems,
  };
}

function withBlock(
  before: SegmentReport | undefined,
  sequence: number,
  records: readonly LogRecord[],
): SegmentReport {
  let { entries, terms } = before ?? {};
  for (const record of records) {
    if (record.kind !== 'entry') continue;
    entries = extend(entries, record.entry.index);
    terms = extend(terms, record.entry.term);
  }
  return { name: segmentName(sequence), blocks: (before?.blocks ?? 0) + 1, entries, terms };
}

function extend(range: Range, value: number): Range {
  if (range === undefined) return { first: value, last: value };
  return { first: Math.min(range.first, value), last: Math.max(range.last, value) };
}

/** Calls back for every record in the order in which they were written, up to the first damage, which it throws. */
export async function dumpLog(
  disk: Disk,
  onLine: (line: DumpLine) => void,
  unlockKey?: string,
): Promise<void> {
  await readLog(disk, await keysOf(disk, unlockKey), (header, { offset, sequence, records }) => {
    for (const record of records)
      onLine({ segment: segmentName(header.sequence), offset, block: sequence, record });
  });
}

async function keysOf(disk: Disk, unlockKey: string | undefined): Promise<readonly DataKey[]> {
  const { segments, snapshots } = listDirectory(await disk.list());
  const ring = await loadKeyFile(disk, unlockKey);
  if (ring === undefined && segments.length === 0 && snapshots.length === 0)
    throw new SwarmError('not-found', 'there is no log in this directory', {
      hint: "A manager's log is in manager/log under its data root.",
    });
  if (ring === undefined)
    throw damaged(KEY_FILE, 0, 'it is missing, and nothing else can be read without it');
  return ring.keys;
}

async function verifySnapshot(
  disk: Disk,
  name: string,
  keys: readonly DataKey[],
): Promise<{ records: number; bytes: number }> {
  const snapshot = await SnapshotReader.open(disk, name, keys);
  try {
    let [records, bytes] = [0, 0];
    for await (const chunk of snapshot.records())
      for (const record of chunk) {
        records++;
        bytes += record.length;
      }
    return { records, bytes };
  } finally {
    await snapshot.close();
  }
}
