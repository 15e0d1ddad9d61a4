// The store on etcd: objects a second in batches, and how long one write takes, next to the same bytes written by the
// same client library without a store, alternating in one run. Against an etcd of one member, and of three.

import { emptyTask, type Task } from '../core/generated/objects.ts';
import { TaskCodec } from '../proto/generated/objects.ts';
import { encode } from '../proto/wire.ts';
import { setLogLevel } from '../rpc/logger.ts';
import { type EtcdManagerUnderTest, startEtcdManager } from '../test/support/etcd-cluster.ts';
import { RealEtcd } from '../test/support/real-etcd.ts';
import type { BenchOptions } from './main.ts';
import { againstFloor, againstPeer, median, percentile, type Row } from './report.ts';

const OBJECT_BYTES = 500;
const OBJECTS_TARGET = 15_000;
// A write through the store is a transaction with two conditions and two keys; a put is one key.
const ALONE_RATIO_MAX = 1.5;
const CALLERS = 4;
// What the peer puts into one transaction; etcd takes 128.
const PEER_OPERATIONS = 100;
const ROUNDS = 5;
const ROUNDS_QUICK = 3;
const ROUND_MS = 3_000;
const ROUND_QUICK_MS = 1_000;
const WARM_UP_WRITES = 300;
const BATCH_OBJECTS = 1_000;

interface Figures {
  readonly oneCaller: number[];
  readonly callers: number[];
  readonly p50Ms: number[];
}

/** Bars: 15,000 objects a second of 500 B; one write alone at most half again as long as a bare put. */
export async function etcdStoreBench({ isQuick }: BenchOptions): Promise<Row[]> {
  setLogLevel('silent');
  const rows: Row[] = [];
  for (const members of [1, 3]) {
    const [ours, bare] = [emptyFigures(), emptyFigures()];
    for (let round = 0; round < (isQuick ? ROUNDS_QUICK : ROUNDS); round++) {
      const roundMs = isQuick ? ROUND_QUICK_MS : ROUND_MS;
      await measureStore(members, ours, roundMs);
      await measureClient(members, bare, roundMs);
      process.stderr.write(
        `${members} members, round ${round + 1}: ${describe(ours)}, bare ${describe(bare)}\n`,
      );
    }
    rows.push(...rowsOf(members, ours, bare));
  }
  return rows;
}

function rowsOf(members: number, ours: Figures, bare: Figures): Row[] {
  const where = `${members} ${members === 1 ? 'member' : 'members'}`;
  const objects = `objects of ${OBJECT_BYTES} B in batches`;
  return [
    againstFloor(
      `${objects}, ${where}`,
      '1/s',
      median(ours.oneCaller),
      OBJECTS_TARGET,
      median(bare.oneCaller),
    ),
    againstFloor(
      `${objects}, ${CALLERS} callers, ${where}`,
      '1/s',
      median(ours.callers),
      OBJECTS_TARGET,
      median(bare.callers),
    ),
    againstPeer(
      `one write at a time, p50, ${where}`,
      'ms',
      median(ours.p50Ms),
      median(bare.p50Ms),
      ALONE_RATIO_MAX,
    ),
  ];
}

interface Subject {
  writeOne(task: Task): Promise<unknown>;
  writeAll(tasks: readonly Task[]): Promise<unknown>;
}

function throughStore({ store }: EtcdManagerUnderTest): Subject {
  return {
    writeOne: (task) => store.update((tx) => tx.create('task', task)),
    writeAll: (tasks) => store.batch(tasks.map((task) => (tx) => tx.create('task', task))),
  };
}

/** Each has an etcd of its own: what one leaves behind must not slow the other. */
async function measureStore(members: number, figures: Figures, roundMs: number): Promise<void> {
  await using etcd = await RealEtcd.start({ members });
  await using manager = await startEtcdManager(etcd.settings(), 'n1');
  await measure(throughStore(manager), figures, roundMs);
}

async function measureClient(members: number, figures: Figures, roundMs: number): Promise<void> {
  await using etcd = await RealEtcd.start({ members });
  await measure(throughClient(etcd), figures, roundMs);
}

function throughClient(etcd: RealEtcd): Subject {
  const operationOf = (task: Task) => ({
    key: Buffer.from(`/bare/objects/task/${task.id}`),
    value: encode(TaskCodec, task),
  });
  const { kv } = etcd.client;
  return {
    writeOne: (task) => kv.put(operationOf(task)),
    writeAll: async (tasks) => {
      for (let start = 0; start < tasks.length; start += PEER_OPERATIONS) {
        const part = tasks.slice(start, start + PEER_OPERATIONS);
        await kv.txn({ success: part.map((task) => ({ request_put: operationOf(task) })) });
      }
    },
  };
}

async function measure(subject: Subject, figures: Figures, roundMs: number): Promise<void> {
  let count = 0;
  const next = () => aTask(`task${String(count++).padStart(21, '0')}`);
  const someTasks = () => Array.from({ length: BATCH_OBJECTS }, next);
  for (let write = 0; write < WARM_UP_WRITES; write++) await subject.writeOne(next());
  const latencies: number[] = [];
  await timed(roundMs / 2, async () => {
    const task = next();
    const startedMs = performance.now();
    await subject.writeOne(task);
    latencies.push(performance.now() - startedMs);
  });
  figures.p50Ms.push(percentile(latencies, 0.5));
  const write = () => subject.writeAll(someTasks());
  figures.oneCaller.push((await timed(roundMs, write)) * BATCH_OBJECTS);
  const startedMs = performance.now();
  const batches = await Promise.all(
    Array.from(
      { length: CALLERS },
      async () => (await timed(roundMs, write)) * (performance.now() - startedMs),
    ),
  );
  const elapsedMs = performance.now() - startedMs;
  figures.callers.push((batches.reduce((sum, done) => sum + done, 0) / elapsedMs) * BATCH_OBJECTS);
}

/** Repeats for so long; returns how often a second. */
async function timed(forMs: number, run: () => Promise<unknown>): Promise<number> {
  const startedMs = performance.now();
  let times = 0;
  for (; performance.now() < startedMs + forMs; times++) await run();
  return (times / (performance.now() - startedMs)) * 1000;
}

function aTask(id: string): Task {
  const bare: Task = {
    ...emptyTask,
    id,
    serviceId: 'service000000000000000001',
    specVersion: 1,
    slot: 1,
    nodeId: 'node0000000000000000000001',
    desiredState: 'running',
    status: { ...emptyTask.status, state: 'running', timestampMs: 1_700_000_000_000 },
  };
  const length = encode(TaskCodec, bare).length;
  return { ...bare, status: { ...bare.status, message: 'm'.repeat(Math.max(0, OBJECT_BYTES - length)) } };
}

function emptyFigures(): Figures {
  return { oneCaller: [], callers: [], p50Ms: [] };
}

function describe({ oneCaller, callers, p50Ms }: Figures): string {
  const last = (values: readonly number[]) => values.at(-1) ?? Number.NaN;
  return `${Math.round(last(oneCaller))}/s, ${Math.round(last(callers))}/s by ${CALLERS}, ${last(p50Ms).toFixed(2)} ms alone`;
}
