// The worker against an engine and a network in memory: orders that change in the middle of a step, and restarts.

import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readdir, rename, rm, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import type { Clock } from '../../core/clock.ts';
import { SwarmError } from '../../core/errors.ts';
import {
  emptyMeta,
  emptyNodeDescription,
  type Revision,
  type Task,
  type TaskStatus,
} from '../../core/generated/objects.ts';
import { systemClock } from '../../node/system-clock.ts';
import { emptyAssignments } from '../../proto/generated/dispatcher.ts';
import { setLogLevel } from '../../rpc/logger.ts';
import { aService } from '../../test/support/cluster-in-process.ts';
import { eventually } from '../../test/support/eventually.ts';
import { FakeEngine, FakeNetwork } from '../../test/support/fake-engine.ts';
import { FakeFiles } from '../../test/support/fake-files.ts';
import { Worker } from './worker.ts';

setLogLevel('silent');

const revision: Revision = {
  id: 's.1',
  meta: emptyMeta,
  serviceId: 's',
  specVersion: 1,
  spec: aService('s'),
  registryAuth: false,
};

function aTask(desiredState: Task['desiredState'] = 'running'): Task {
  return {
    id: 't1',
    meta: emptyMeta,
    serviceId: 's',
    specVersion: 1,
    slot: 1,
    nodeId: 'n',
    status: {
      state: 'assigned',
      timestampMs: 1,
      message: '',
      error: '',
      ports: [],
      runningAtMs: 0,
      files: [],
    },
    desiredState,
    notBeforeMs: 0,
    attachments: [],
    genericResources: [],
  };
}

class Bench {
  readonly engine = new FakeEngine();
  readonly network = new FakeNetwork();
  readonly files = new FakeFiles();
  readonly directory: string;
  readonly history: TaskStatus[] = [];
  worker!: Worker;
  /** Called when the worker waits for something. */
  onTimer: () => void = () => {};

  private constructor(directory: string) {
    this.directory = directory;
  }

  static async start(): Promise<Bench> {
    const bench = new Bench(await mkdtemp(path.join(os.tmpdir(), 'tsw-worker-')));
    await bench.open();
    return bench;
  }

  get journal(): string {
    return path.join(this.directory, 'tasks');
  }

  async open(): Promise<void> {
    const { engine, network, journal: stateDirectory } = this;
    const clock: Clock = {
      nowMs: systemClock.nowMs,
      elapsedMs: systemClock.elapsedMs,
      after: (delayMs, callback) => {
        this.onTimer();
        return systemClock.after(delayMs, callback);
      },
    };
    this.worker = await Worker.open({
      engine,
      network,
      files: this.files,
      describe: () => emptyNodeDescription,
      clock,
      stateDirectory,
      onHealthCheck: () => {},
    });
    this.worker.onStatus((_, status) => this.history.push(status));
  }

  order(desiredState: Task['desiredState']): void {
    void this.worker.assign({ ...emptyAssignments, revisions: [revision], tasks: [aTask(desiredState)] });
  }

  until(state: Task['status']['state']): Promise<unknown> {
    return eventually(() => this.worker.statuses()[0]?.[1].state === state);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.worker.stop();
    await rm(this.directory, { recursive: true, force: true });
  }
}

test('a worker that has stopped records nothing: the next one finds how its tasks ended', async () => {
  await using bench = await Bench.start();
  bench.order('running');
  await bench.until('running');

  bench.worker.stop();
  bench.engine.exit('t1', 3);
  await bench.open();

  await bench.until('failed');
  assert.equal(bench.worker.statuses()[0]?.[1].container?.exitCode, 3);
  assert.equal(bench.history.filter(({ state }) => state === 'failed').length, 1);
});

test('a step that could not be recorded is not repeated after the order to stop', async () => {
  await using bench = await Bench.start();
  bench.order('ready');
  await bench.until('ready');
  let starts = 0;
  bench.engine.onStart = () => {
    starts++;
  };

  await rename(bench.journal, `${bench.journal}.away`);
  const waitsForRetry = new Promise<void>((resolve) => {
    bench.onTimer = resolve;
  });
  bench.order('running');
  await waitsForRetry;
  bench.order('shutdown');
  await rename(`${bench.journal}.away`, bench.journal);

  await bench.until('shutdown');
  assert.equal(starts, 0);
});

test('an order to stop while the container is being created lets nothing start, and leaves nothing', async () => {
  await using bench = await Bench.start();
  const { create } = bench.engine.containers;
  const gate = Promise.withResolvers<void>();
  const reached = Promise.withResolvers<void>();
  Object.assign(bench.engine.containers, {
    create: async (config: Parameters<typeof create>[0]) => {
      reached.resolve();
      await gate.promise;
      return create(config);
    },
  });
  bench.order('running');
  await reached.promise;

  bench.order('shutdown');
  gate.resolve();

  await bench.until('shutdown');
  await eventually(() => bench.engine.running.size === 0 && bench.network.endpoints.size === 0);
  assert.ok(bench.history.every(({ state }) => state !== 'running'));
});

test('a start that is answered by "unavailable" although the process runs is not taken twice', async () => {
  await using bench = await Bench.start();
  const { start } = bench.engine.containers;
  let starts = 0;
  Object.assign(bench.engine.containers, {
    start: async (id: string) => {
      starts++;
      await start(id);
      throw new SwarmError('unavailable', 'containerd went away');
    },
  });

  bench.order('running');

  await bench.until('running');
  assert.equal(starts, 1);
});

test('an exit code is kept when the order to stop comes after the end', async () => {
  await using bench = await Bench.start();
  bench.order('running');
  await bench.until('running');

  bench.worker.stop();
  bench.engine.exit('t1', 7);
  await bench.open();
  bench.order('shutdown');

  await eventually(() => bench.worker.statuses()[0]?.[1].container?.exitCode === 7);
});

test('a journal entry that cannot be read is dropped with its container', async () => {
  await using bench = await Bench.start();
  bench.order('running');
  await bench.until('running');
  bench.worker.stop();
  await writeFile(path.join(bench.journal, 't1.json'), '');
  await writeFile(path.join(bench.journal, 't2.json'), 'null');

  await bench.open();

  assert.equal(bench.engine.running.size, 0);
  assert.deepEqual(await readdir(bench.journal), []);
});

test('every task of a node that leaves is erased, whatever it was doing', async () => {
  await using bench = await Bench.start();
  const pulling = new Promise<never>(() => {});
  Object.assign(bench.engine.images, { pull: () => pulling });
  await mkdir(bench.journal, { recursive: true });
  bench.order('running');
  await bench.until('preparing');

  await bench.worker.removeAll();

  assert.deepEqual(await readdir(bench.journal), []);
  assert.equal(bench.network.endpoints.size, 0);
});

test('other limits are given to the container that runs, by the next worker when this one does not get to it', async () => {
  await using bench = await Bench.start();
  bench.order('running');
  await bench.until('running');
  const given: number[] = [];
  bench.engine.onUpdate = (_, { memoryBytes }) => {
    if (memoryBytes < 1_000) throw new SwarmError('failed-precondition', 'it uses more than that');
    given.push(memoryBytes);
  };
  const limit = (specVersion: number, memoryBytes: number) => {
    const { task } = revision.spec;
    const resources = { ...task.resources, limits: { ...task.resources.limits, memoryBytes } };
    const spec = { ...revision.spec, task: { ...task, resources } };
    const next = { ...revision, id: `s.${specVersion}`, specVersion, spec };
    void bench.worker.assign({
      ...emptyAssignments,
      revisions: [next],
      tasks: [{ ...aTask(), specVersion }],
    });
  };
  const message = () => bench.worker.statuses()[0]?.[1].message;

  limit(2, 4_000);
  await eventually(() => given.length === 1);
  limit(3, 10);
  await eventually(() => message() === 'started, with its former limits: it uses more than that');
  bench.worker.stop();
  bench.engine.onUpdate = (_, { memoryBytes }) => given.push(memoryBytes);
  await bench.open();

  await eventually(() => given.length === 2);
  assert.deepEqual(given, [4_000, 10]);
  bench.worker.stop();
  await bench.open();
  await eventually(() => bench.worker.statuses()[0]?.[1].state === 'running');
  assert.equal(given.length, 2, 'what was applied is not applied again');
});
