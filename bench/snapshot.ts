// A million tasks: how much a snapshot of them holds up everything else, and how long a new manager takes to make one its
// own. The store on a log of one member on this disk; the snapshot goes to a second log as a backup
// does, without a network between. All of it in a process that is started as a manager is.

import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import { defined } from '../core/assert.ts';
import { messageOf } from '../core/errors.ts';
import { readBackup } from '../manager/raft-host/backup.ts';
import { LogOnDisk } from '../manager/raft-host/log-on-disk.ts';
import type { RaftHost } from '../manager/raft-host/raft-host.ts';
import { RealDisk } from '../manager/raft-host/real-disk.ts';
import { restoreBackup } from '../manager/raft-host/recovery.ts';
import { Store } from '../manager/store/store.ts';
import { MANAGER_V8_FLAGS } from '../node/manager-process.ts';
import { systemClock } from '../node/system-clock.ts';
import { setLogLevel } from '../rpc/logger.ts';
import { newLoneRaft } from '../test/support/lone-raft.ts';
import { createTasks } from '../test/support/many-tasks.ts';
import { MemoryLog } from '../test/support/memory-log.ts';
import type { BenchOptions } from './main.ts';
import { againstLimit, type Row } from './report.ts';

const TASKS = 1_000_000;
const TASKS_QUICK = 200_000;
const BASELINE_MS = 5_000;
const GROWTH_MS_MAX = 2;
const STALL_MS_MAX = 50;
const INSTALL_MS_MAX = 20_000;
const NANOS_PER_MS = 1e6;

const run = promisify(execFile);

/** Bars: p99 of the event loop's delay grows by at most 2 ms, no stall over 50 ms; installed within 20 s. */
export async function snapshotBench({ isQuick }: BenchOptions): Promise<Row[]> {
  const count = isQuick ? TASKS_QUICK : TASKS;
  const program = [...process.execArgv, ...MANAGER_V8_FLAGS, import.meta.filename];
  const { stdout } = await run(process.execPath, [...program, String(count)]);
  return JSON.parse(stdout) as Row[];
}

async function measure(count: number): Promise<Row[]> {
  setLogLevel('silent');
  const directory = await mkdtemp(path.join(os.tmpdir(), 'tsw-bench-snapshot-'));
  try {
    await using host = await newLoneRaft(path.join(directory, 'one'), Number.MAX_SAFE_INTEGER);
    const store = new Store(host, systemClock);
    await store.open();
    await createTasks(store, count);
    await host.takeSnapshot();
    const quiet = await loopDelay(() => delay(BASELINE_MS));
    await createTasks(store, 1, count);
    const startedMs = performance.now();
    const busy = await loopDelay(() => host.takeSnapshot());
    const tookMs = performance.now() - startedMs;
    const installMs = await install(host, path.join(directory, 'two'), count + 1);
    const what = `snapshot of ${count} tasks`;
    return [
      againstLimit(
        `${what}: growth of the loop's p99`,
        'ms',
        Math.max(0, busy.p99Ms - quiet.p99Ms),
        GROWTH_MS_MAX,
      ),
      againstLimit('the same: longest stall', 'ms', busy.maxMs, STALL_MS_MAX),
      { what: 'the same: duration', value: Math.round(tookMs), unit: 'ms' },
      againstLimit('installed by a new manager', 'ms', installMs, INSTALL_MS_MAX),
    ];
  } finally {
    await rm(directory, { recursive: true });
  }
}

async function loopDelay(work: () => Promise<unknown>): Promise<{ p99Ms: number; maxMs: number }> {
  const histogram = monitorEventLoopDelay({ resolution: 1 });
  histogram.enable();
  await work();
  histogram.disable();
  return { p99Ms: histogram.percentile(99) / NANOS_PER_MS, maxMs: histogram.max / NANOS_PER_MS };
}

/** From the first byte of the other's state to the last object in the tables of a new manager, by way of its disk. */
async function install(source: RaftHost, directory: string, expected: number): Promise<number> {
  const startedMs = performance.now();
  const options = { disk: await RealDisk.open(directory), randomBytes, onFatal };
  const member = { id: 2, nodeId: 'n2', address: '127.0.0.1:2378' };
  await restoreBackup(options, await readBackup(source.backup(), undefined), member);
  await using log = defined(await LogOnDisk.open(options), 'the log that was restored').log;
  const store = new Store(new MemoryLog(), systemClock);
  await store.open();
  const snapshot = defined(await log.openSnapshot(), 'the snapshot that was restored');
  await store.restore(snapshot.mark.index, snapshot.records());
  await snapshot.close();
  const elapsedMs = performance.now() - startedMs;
  if (store.view.task.size !== expected) throw new Error(`${store.view.task.size} tasks arrived`);
  return elapsedMs;
}

function onFatal(error: unknown): void {
  process.stderr.write(`the log failed: ${messageOf(error)}\n`);
}

if (import.meta.main) process.stdout.write(JSON.stringify(await measure(Number(process.argv[2]))));
