import assert from 'node:assert/strict';
import { appendFile, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { type TestContext, test } from 'node:test';
import { setLogLevel } from '../../rpc/logger.ts';
import type { ApplyResult, StateMachine } from '../store/replicated-log.ts';
import { SingleLog } from './single-log.ts';

setLogLevel('silent');

/** Remembers every payload in order. */
class ListMachine implements StateMachine {
  values: string[] = [];
  apply(index: number, payload: Uint8Array): ApplyResult {
    this.values.push(Buffer.from(payload).toString());
    return { applied: true, index };
  }
  *snapshot(): Iterable<Uint8Array> {
    const values = [...this.values];
    for (const value of values) yield Buffer.from(value);
  }
  restore(_index: number, records: Iterable<Uint8Array>): void {
    this.values = [...records].map((record) => Buffer.from(record).toString());
  }
}

async function folder(t: TestContext): Promise<string> {
  const directory = await mkdtemp(path.join(os.tmpdir(), 'tsw-log-'));
  t.after(() => rm(directory, { recursive: true }));
  return directory;
}

async function open(
  directory: string,
  snapshotInterval = 1_000_000,
): Promise<{ log: SingleLog; machine: ListMachine }> {
  const machine = new ListMachine();
  const onFatal = (error: unknown) => {
    throw error;
  };
  const log = new SingleLog({ directory, snapshotInterval, onFatal });
  await log.open(machine);
  return { log, machine };
}

async function fill(directory: string, values: readonly string[], snapshotInterval?: number): Promise<void> {
  const { log } = await open(directory, snapshotInterval);
  await Promise.all(values.map((value) => log.propose(Buffer.from(value))));
  await log[Symbol.asyncDispose]();
}

const numbers = (count: number) => Array.from({ length: count }, (_, index) => `entry ${index + 1}`);

test('what was acknowledged is there after a restart, in order', async (t) => {
  const directory = await folder(t);
  await fill(directory, numbers(300));

  const { log, machine } = await open(directory);

  assert.deepEqual(machine.values, numbers(300));
  assert.equal(log.appliedIndex, 300);
  await log[Symbol.asyncDispose]();
});

test('a proposal made in the turn in which another is acknowledged is not left behind', async (t) => {
  const { log, machine } = await open(await folder(t));
  for (const value of numbers(50)) await log.propose(Buffer.from(value));
  assert.equal(machine.values.length, 50);
  await log[Symbol.asyncDispose]();
});

test('snapshots replace the log before them, and both together give the whole state', async (t) => {
  const directory = await folder(t);
  await fill(directory, numbers(35), 10);
  await fill(directory, ['after'], 10);

  const names = await readdir(directory);
  assert.equal(names.filter((name) => name.startsWith('snapshot-')).length, 1);
  const { log, machine } = await open(directory);
  assert.deepEqual(machine.values, [...numbers(35), 'after']);
  await log[Symbol.asyncDispose]();
});

test('a torn last write is dropped and the log goes on behind it', async (t) => {
  const directory = await folder(t);
  await fill(directory, numbers(3));
  const [segment = ''] = await readdir(directory);
  await appendFile(
    path.join(directory, segment),
    Buffer.from('TSW1 half a record that was never acknowledged'),
  );

  await fill(directory, ['next']);

  const { log, machine } = await open(directory);
  assert.deepEqual(machine.values, [...numbers(3), 'next']);
  await log[Symbol.asyncDispose]();
});

test('a log damaged in its middle is not opened, and says where', async (t) => {
  const directory = await folder(t);
  await fill(directory, numbers(5));
  const [segment = ''] = await readdir(directory);
  const bytes = await readFile(path.join(directory, segment));
  bytes[22] = (bytes[22] as number) ^ 1;
  await writeFile(path.join(directory, segment), bytes);

  await assert.rejects(open(directory), /segment-0000000000000001\.log is damaged at byte 0/);
});

test('a damaged snapshot is not opened', async (t) => {
  const directory = await folder(t);
  await fill(directory, numbers(12), 10);
  const snapshot = (await readdir(directory)).find((name) => name.startsWith('snapshot-')) ?? '';
  const bytes = await readFile(path.join(directory, snapshot));
  await writeFile(path.join(directory, snapshot), bytes.subarray(0, bytes.length - 24));

  await assert.rejects(open(directory), /snapshot-\d+\.snap is damaged/);
});
