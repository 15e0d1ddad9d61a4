// Looks at a log that no manager uses: is it whole, and what is in it. Changes nothing.

import { messageOf } from '../../core/errors.ts';
import type { HardState, SnapshotMark } from '../../proto/generated/raft.ts';
import type { LogRecord } from './block.ts';
import type { DataKey } from './data-key.ts';
import { damaged } from './data-key.ts';
import type { Disk } from './disk.ts';
import { KEY_FILE, loadKeyFile } from './key-file.ts';
import { listDirectory, readLog } from './log-reader.ts';
import { type LogMember, segmentName } from './segment-header.ts';
import { SnapshotReader, snapshotName } from './snapshot-file.ts';

export interface LogReport {
  readonly member: LogMember | undefined;
  readonly hardState: HardState | undefined;
  readonly snapshot: SnapshotMark | undefined;
  /** Of the log after the snapshot; `last` is smaller than `first` when it is empty. */
  readonly entries: { readonly first: number; readonly last: number };
  readonly segments: readonly {
    readonly name: string;
    readonly blocks: number;
    readonly lastIndex: number;
  }[];
  readonly snapshots: readonly { readonly name: string; readonly records: number; readonly bytes: number }[];
  /** A piece of a block at the end, which the next start drops: it was never acknowledged. */
  readonly isTorn: boolean;
  /** What a start would refuse, in words. Empty: the log is whole. */
  readonly problems: readonly string[];
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
  const blocks = new Map<number, number>();
  const problems: string[] = [];
  const attempt = async <T>(work: () => Promise<T>): Promise<T | undefined> => {
    try {
      return await work();
    } catch (error) {
      problems.push(messageOf(error));
      return undefined;
    }
  };
  const image = await attempt(() =>
    readLog(disk, keys, ({ sequence }) => blocks.set(sequence, (blocks.get(sequence) ?? 0) + 1)),
  );
  const snapshots = [];
  for (const name of names.snapshots.map(snapshotName)) {
    const totals = await attempt(() => verifySnapshot(disk, name, keys));
    if (totals !== undefined) snapshots.push({ name, ...totals });
  }
  const first = (image?.snapshot?.index ?? 0) + 1;
  return {
    member: image?.member,
    hardState: image?.hardState,
    snapshot: image?.snapshot,
    entries: { first, last: first + (image?.entries.length ?? 0) - 1 },
    segments: (image?.segments ?? []).map(({ sequence, lastIndex }) => ({
      name: segmentName(sequence),
      blocks: blocks.get(sequence) ?? 0,
      lastIndex,
    })),
    snapshots,
    isTorn: image?.tail.isTorn ?? false,
    problems,
  };
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
  const ring = await loadKeyFile(disk, unlockKey);
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
