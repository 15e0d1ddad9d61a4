// Builders and readers for tests of the log on disk.

import assert from 'node:assert/strict';
import {
  LogOnDisk,
  type LogOptions,
  type OpenSnapshot,
  type Recovered,
} from '../../manager/raft-host/log-on-disk.ts';
import {
  type Entry,
  emptyConfiguration,
  type HardState,
  type SnapshotMark,
} from '../../proto/generated/raft.ts';
import { SimDisk } from '../sim/sim-disk.ts';
import { type Chance, seededChance } from './faults.ts';

export const MEMBER = { clusterId: 'cluster-1', memberId: 2 ** 40 + 7 };

/** Small segments, so that a short test sees many. */
export const SMALL = {
  segmentBytes: { first: 4096, max: 16384 },
  ballastBytes: 4096,
  lowWatermarkBytes: 0,
};

/** TSSWARM_TEST_SEED repeats a run. */
export function testSeed(): number {
  return Number(process.env['TSSWARM_TEST_SEED'] ?? Math.floor(Math.random() * 2 ** 31));
}

export function seededBytes(chance: Chance): (size: number) => Buffer {
  return (size) => Buffer.from(Uint8Array.from({ length: size }, () => Math.floor(chance() * 256)));
}

export function anEntry(index: number, term = 1, payload = `entry ${index} of term ${term}`): Entry {
  return { index, term, kind: 'normal', payload: Buffer.from(payload) };
}

export function aState(term: number, commit = 0, vote = 0): HardState {
  return { term, vote, commit };
}

export function aMark(index: number, term = 1): SnapshotMark {
  return { index, term, configuration: { ...emptyConfiguration, voters: [MEMBER.memberId] }, stateHash: 0 };
}

export function aDisk(seed = 1): SimDisk {
  return new SimDisk({ chance: seededChance(seed) });
}

export function logOptions(disk: LogOptions['disk'], change: Partial<LogOptions> = {}): LogOptions {
  return {
    disk,
    randomBytes: seededBytes(seededChance(7)),
    onFatal: (error) => {
      throw error;
    },
    ...SMALL,
    ...change,
  };
}

export async function createLog(
  disk: LogOptions['disk'],
  change: Partial<LogOptions> = {},
): Promise<LogOnDisk> {
  return LogOnDisk.create(logOptions(disk, change), MEMBER);
}

export async function openLog(
  disk: LogOptions['disk'],
  change: Partial<LogOptions> = {},
): Promise<{ log: LogOnDisk; recovered: Recovered }> {
  // Salts of two processes are never the same.
  const randomBytes = seededBytes(seededChance(nextSeed++));
  const opened = await LogOnDisk.open(logOptions(disk, { randomBytes, ...change }));
  assert.ok(opened !== undefined, 'there is no log');
  return opened;
}

let nextSeed = 1000;

/** What a start would find, without changing the disk. */
export async function recover(disk: SimDisk, change: Partial<LogOptions> = {}): Promise<Recovered> {
  const { log, recovered } = await openLog(disk.copy(), change);
  await log[Symbol.asyncDispose]();
  return recovered;
}

export function textOf(entries: readonly Entry[]): string[] {
  return entries.map(({ index, term, payload }) => `${index}/${term} ${Buffer.from(payload)}`);
}

export async function recordsOf(snapshot: OpenSnapshot | undefined): Promise<string[]> {
  if (snapshot === undefined) return [];
  const records: string[] = [];
  for await (const chunk of snapshot.records())
    records.push(...chunk.map((record) => Buffer.from(record).toString()));
  await snapshot.close();
  return records;
}
