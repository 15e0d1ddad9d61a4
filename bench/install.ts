// A new manager takes over the state of others, as real processes with mutual TLS between: how long that takes for a million
// tasks, and how much memory it takes besides the state, on both sides, when that is half a gigabyte.

import { writeFileSync } from 'node:fs';
import { defined } from '../core/assert.ts';
import { eventually } from '../test/support/eventually.ts';
import { statusKib } from '../test/support/process-status.ts';
import { RaftCluster, type RaftClusterOptions, type RaftProcess } from '../test/support/raft-cluster.ts';
import { freePort } from '../test/support/real-registry.ts';
import type { BenchOptions } from './main.ts';
import { againstLimit, type Row } from './report.ts';

const TASKS = 1_000_000;
const TASKS_QUICK = 200_000;
const INSTALL_MS_MAX = 20_000;
/** Of the snapshot that has the memory of both sides looked at: so many registers of so many bytes. */
const RECORDS = 5_000;
const RECORDS_QUICK = 1_000;
const RECORD_BYTES = 100_000;
// What is on the way at a time are some chunks of 256 KiB; the rest is what the garbage collector has not looked at yet.
const GROWTH_MB_MAX = 64;
const LIMIT_MS = 120_000;
const POLL_MS = 5;
const WRITES_IN_FLIGHT = 200;
const MB = 2 ** 20;

/** Bars: a million tasks within 20 s; 500 MB with at most 64 MB of memory beside the state, at sender and receiver. */
export async function installBench({ isQuick }: BenchOptions): Promise<Row[]> {
  const tasks = isQuick ? TASKS_QUICK : TASKS;
  const records = isQuick ? RECORDS_QUICK : RECORDS;
  const large = await installRegisters(records);
  const tasksMs = await installTasks(tasks);
  const size = `${(records * RECORD_BYTES) / 1e6} MB`;
  return [
    againstLimit(`${tasks} tasks reach a new manager and are its state`, 'ms', tasksMs, INSTALL_MS_MAX),
    { what: `a state of ${size} reaches a new manager`, value: Math.round(large.tookMs), unit: 'ms' },
    againstLimit('the same: memory more than before, sender', 'MB', large.senderMb, GROWTH_MB_MAX),
    againstLimit('the same, receiver', 'MB', large.receiverMb, GROWTH_MB_MAX),
  ];
}

interface Pair extends AsyncDisposable {
  readonly cluster: RaftCluster;
  readonly leader: RaftProcess;
  readonly joiner: RaftProcess;
}

async function startPair(state: RaftClusterOptions['state']): Promise<Pair> {
  const [founder, spare] = await Promise.all([freePort(), freePort()]);
  const cluster = await RaftCluster.start({
    addresses: [`127.0.0.1:${founder}`],
    spares: [`127.0.0.1:${spare}`],
    snapshotInterval: Number.MAX_SAFE_INTEGER,
    ...(state && { state }),
  });
  const leader = await cluster.leader();
  const joiner = defined(cluster.processes[1], 'a spare');
  return { cluster, leader, joiner, [Symbol.asyncDispose]: () => cluster[Symbol.asyncDispose]() };
}

/** From the change that adds the new manager until it has applied what the leader has. */
async function join({ leader, joiner }: Pair): Promise<number> {
  const startedMs = performance.now();
  const { appliedIndex } = await leader.status();
  await leader.request({ op: 'add', kind: 'add-learner', member: joiner.member });
  const state = await eventually(
    async () => {
      const status = await joiner.status();
      return status.appliedIndex > appliedIndex && status;
    },
    LIMIT_MS,
    POLL_MS,
  );
  if (state.snapshotIndex < appliedIndex) throw new Error('the state came by the log, not as a snapshot');
  return performance.now() - startedMs;
}

async function installTasks(count: number): Promise<number> {
  await using pair = await startPair({ hasStore: true });
  await pair.leader.request({ op: 'create-tasks', count });
  await pair.leader.request({ op: 'snapshot' });
  await pair.joiner.start();
  const tookMs = await join(pair);
  const arrived = await pair.joiner.request<number>({ op: 'count-tasks' });
  if (arrived !== count) throw new Error(`${arrived} tasks arrived`);
  return tookMs;
}

async function installRegisters(
  count: number,
): Promise<{ tookMs: number; senderMb: number; receiverMb: number }> {
  await using pair = await startPair({ snapshotPadding: RECORD_BYTES });
  const { leader, joiner } = pair;
  let register = 0;
  const writer = async () => {
    while (register < count) await leader.request({ op: 'write', register: register++, value: 1 });
  };
  await Promise.all(Array.from({ length: WRITES_IN_FLIGHT }, writer));
  await leader.request({ op: 'snapshot' });
  await joiner.start();
  const sender = watchMemory(leader.pid);
  const receiver = watchMemory(joiner.pid);
  const tookMs = await join(pair);
  const { registers } = await joiner.status();
  if (registers.length !== count) throw new Error(`${registers.length} registers arrived`);
  return { tookMs, senderMb: sender(), receiverMb: receiver() };
}

/** How much more memory than now the process has had at most since, in MB: the kernel keeps the highest. */
function watchMemory(pid: number): () => number {
  // 5 sets the highest back to what it is now: proc(5), clear_refs.
  writeFileSync(`/proc/${pid}/clear_refs`, '5');
  const before = statusKib(pid, 'VmRSS');
  return () => ((statusKib(pid, 'VmHWM') - before) * 1024) / MB;
}
