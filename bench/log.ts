// How much a member's log takes on this disk, and how long one append takes: next to writing the same bytes to a file
// that is there already, with O_DSYNC and nothing else, alternating in one run.

import { randomBytes } from 'node:crypto';
import { constants } from 'node:fs';
import { mkdtemp, open, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { LogOnDisk } from '../manager/raft-host/log-on-disk.ts';
import { RealDisk } from '../manager/raft-host/real-disk.ts';
import type { BenchOptions } from './main.ts';
import { againstFloor, againstPeer, median, percentile, type Row } from './report.ts';

const PAYLOAD_BYTES = 500;
const IN_FLIGHT = 256;
const APPENDS_TARGET = 200_000;
// What encryption, checksums and the queue may add to a write that waits for the disk anyway.
const ALONE_RATIO_MAX = 1.25;
const ROUNDS = 5;
const ROUNDS_QUICK = 3;
const ROUND_MS = 3000;
const ROUND_QUICK_MS = 1500;
const RAW_FILE_BYTES = 64 * 2 ** 20;
/** What the log puts around one entry: header of the record, of the block, and tag. */
const FRAME_BYTES = 76;

interface Writer {
  /** Durable when it resolves. */
  append(payload: Buffer): Promise<unknown>;
  close(): Promise<void>;
}

/** Bars: 200,000 appends a second of 500 B, 256 at a time, encrypted; one alone at most a quarter over the bare write. */
export async function logBench({ isQuick }: BenchOptions): Promise<Row[]> {
  const directory = await mkdtemp(path.join(os.tmpdir(), 'tsw-bench-log-'));
  const roundMs = isQuick ? ROUND_QUICK_MS : ROUND_MS;
  const [ours, raw] = [emptyFigures(), emptyFigures()];
  try {
    for (let round = 0; round < (isQuick ? ROUNDS_QUICK : ROUNDS); round++) {
      await measure(await openLog(path.join(directory, `log-${round}`)), ours, roundMs);
      await measure(await openRaw(path.join(directory, `raw-${round}`)), raw, roundMs);
      await rm(path.join(directory, `log-${round}`), { recursive: true });
      await rm(path.join(directory, `raw-${round}`));
      process.stderr.write(`round ${round + 1}: log ${describe(ours)}, raw ${describe(raw)}\n`);
    }
  } finally {
    await rm(directory, { recursive: true });
  }
  const rate = median(ours.perSecond);
  return [
    againstFloor(
      `appends of ${PAYLOAD_BYTES} B, ${IN_FLIGHT} in flight`,
      '1/s',
      rate,
      APPENDS_TARGET,
      median(raw.perSecond),
    ),
    againstPeer('one append at a time, p50', 'µs', median(ours.p50), median(raw.p50), ALONE_RATIO_MAX),
    { what: 'one append at a time, p99', unit: 'µs', ...pair(median(ours.p99), median(raw.p99)) },
  ];
}

interface Figures {
  readonly perSecond: number[];
  readonly p50: number[];
  readonly p99: number[];
}

function emptyFigures(): Figures {
  return { perSecond: [], p50: [], p99: [] };
}

async function measure(writer: Writer, figures: Figures, roundMs: number): Promise<void> {
  const payload = randomBytes(PAYLOAD_BYTES);
  const latencies: number[] = [];
  const aloneUntil = performance.now() + roundMs / 2;
  while (performance.now() < aloneUntil) {
    const startedMs = performance.now();
    await writer.append(payload);
    latencies.push((performance.now() - startedMs) * 1000);
  }
  figures.p50.push(percentile(latencies, 0.5));
  figures.p99.push(percentile(latencies, 0.99));
  let appends = 0;
  const startedMs = performance.now();
  const worker = async () => {
    while (performance.now() < startedMs + roundMs) {
      await writer.append(payload);
      appends++;
    }
  };
  await Promise.all(Array.from({ length: IN_FLIGHT }, worker));
  figures.perSecond.push((appends / (performance.now() - startedMs)) * 1000);
  await writer.close();
}

async function openLog(directory: string): Promise<Writer> {
  const log = await LogOnDisk.create(
    {
      disk: await RealDisk.open(directory),
      randomBytes,
      onFatal: (error) => {
        throw error;
      },
    },
    { clusterId: 'bench', memberId: 1 },
  );
  let index = 0;
  return {
    append: (payload) => log.append({ entries: [{ index: ++index, term: 1, kind: 'normal', payload }] }),
    close: () => log[Symbol.asyncDispose](),
  };
}

/** The same bytes in one write for all who wait, into a file full of zeros, again and again from its start. */
async function openRaw(name: string): Promise<Writer> {
  const file = await open(name, constants.O_RDWR | constants.O_CREAT | constants.O_DSYNC, 0o600);
  await file.write(Buffer.alloc(RAW_FILE_BYTES), 0);
  const bytes = Buffer.alloc(IN_FLIGHT * (PAYLOAD_BYTES + FRAME_BYTES), 1);
  let offset = 0;
  let waiting = 0;
  let next: Promise<void> | undefined;
  let writing: Promise<void> = Promise.resolve();
  const write = async () => {
    await writing;
    await new Promise((resolve) => process.nextTick(resolve));
    const length = waiting * PAYLOAD_BYTES + FRAME_BYTES;
    [waiting, next] = [0, undefined];
    if (offset + length > RAW_FILE_BYTES) offset = 0;
    await file.write(bytes, 0, length, offset);
    offset += length;
  };
  return {
    append: () => {
      waiting++;
      if (next === undefined) {
        next = write();
        writing = next;
      }
      return next;
    },
    close: () => file.close(),
  };
}

function describe({ perSecond, p50 }: Figures): string {
  return `${Math.round(perSecond.at(-1) ?? 0)}/s, ${Math.round(p50.at(-1) ?? 0)} µs alone`;
}

function pair(value: number, peer: number): Pick<Row, 'value' | 'peer' | 'ratio'> {
  const round = (number: number) => Number(number.toPrecision(4));
  return { value: round(value), peer: round(peer), ratio: round(value / peer) };
}
