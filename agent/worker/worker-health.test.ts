// Health checks of tasks, in virtual time, against an engine in memory.

import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { FakeClock } from '../../core/clock.ts';
import { SwarmError } from '../../core/errors.ts';
import {
  emptyHealthCheck,
  emptyMeta,
  emptyNodeDescription,
  type HealthCheck,
  type Revision,
  type Task,
  type TaskStatus,
} from '../../core/generated/objects.ts';
import { emptyAssignments } from '../../proto/generated/dispatcher.ts';
import { setLogLevel } from '../../rpc/logger.ts';
import { aService } from '../../test/support/cluster-in-process.ts';
import { eventually } from '../../test/support/eventually.ts';
import { FakeEngine, FakeNetwork } from '../../test/support/fake-engine.ts';
import { FakeFiles } from '../../test/support/fake-files.ts';
import type { ExecRequest, ExecResult } from '../engine/engine.ts';
import { Worker } from './worker.ts';

setLogLevel('silent');

const ok: ExecResult = { exitCode: 0, output: '', hasTimedOut: false };
const refused: ExecResult = { exitCode: 1, output: 'connection refused\n', hasTimedOut: false };

const EVERY_10_S: HealthCheck = {
  ...emptyHealthCheck,
  test: ['CMD', 'check'],
  intervalMs: 10_000,
  timeoutMs: 3_000,
};

class Bench {
  readonly clock = new FakeClock();
  readonly engine = new FakeEngine(this.clock);
  readonly network = new FakeNetwork();
  readonly directory: string;
  readonly history: TaskStatus[] = [];
  readonly checks: boolean[] = [];
  readonly #revision: Revision;
  worker!: Worker;
  /** The check that waits for its result. */
  #pending: (PromiseWithResolvers<ExecResult> & { readonly request: ExecRequest }) | undefined;
  #startedAtMs = 0;
  lastRequest: ExecRequest | undefined;

  private constructor(directory: string, healthCheck: HealthCheck | undefined) {
    this.directory = directory;
    const container = { stopGracePeriodMs: 5_000, ...(healthCheck && { healthCheck }) };
    const spec = aService('s', { container });
    this.#revision = {
      id: 's.1',
      meta: emptyMeta,
      serviceId: 's',
      specVersion: 1,
      spec,
      registryAuth: false,
    };
    this.engine.onStart = () => {
      this.#startedAtMs = this.clock.nowMs();
    };
    this.engine.onExec = (_, request) => {
      const pending = { ...Promise.withResolvers<ExecResult>(), request };
      request.signal?.addEventListener('abort', () => pending.reject(request.signal?.reason), { once: true });
      this.#pending = pending;
      this.lastRequest = request;
      return pending.promise;
    };
  }

  /** With one task whose container has started. */
  static async start(healthCheck: HealthCheck | undefined): Promise<Bench> {
    const bench = new Bench(await mkdtemp(path.join(os.tmpdir(), 'tsw-health-')), healthCheck);
    await bench.open();
    bench.order('running');
    await eventually(() => bench.engine.running.get('t1')?.status.state === 'running');
    return bench;
  }

  async open(): Promise<void> {
    const { engine, network, clock, directory: stateDirectory } = this;
    const onHealthCheck = (isSuccess: boolean) => this.checks.push(isSuccess);
    this.worker = await Worker.open({
      engine,
      network,
      files: new FakeFiles(),
      describe: () => emptyNodeDescription,
      clock,
      stateDirectory,
      onHealthCheck,
    });
    this.worker.onStatus((_, status) => this.history.push(status));
  }

  order(desiredState: Task['desiredState']): void {
    const task: Task = {
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
    void this.worker.assign({ ...emptyAssignments, revisions: [this.#revision], tasks: [task] });
  }

  get status(): TaskStatus {
    const [[, status] = []] = this.worker.statuses();
    assert.ok(status !== undefined);
    return status;
  }

  async until(state: TaskStatus['state']): Promise<TaskStatus> {
    await eventually(() => this.status.state === state);
    return this.status;
  }

  get ageMs(): number {
    return this.clock.nowMs() - this.#startedAtMs;
  }

  /** Lets time pass until the next check is made; returns when that was, from the start of the container. */
  async untilCheck(): Promise<number> {
    await eventually(
      () => {
        const { nextAtMs } = this.clock;
        if (this.#pending === undefined && nextAtMs !== undefined)
          this.clock.advance(nextAtMs - this.clock.nowMs());
        return this.#pending !== undefined;
      },
      10_000,
      1,
    );
    return this.ageMs;
  }

  /** The next check has this result. */
  async check(result: ExecResult | Error): Promise<number> {
    const atMs = await this.untilCheck();
    const pending = this.#pending;
    this.#pending = undefined;
    if (result instanceof Error) pending?.reject(result);
    else pending?.resolve(result);
    return atMs;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.worker.stop();
    await rm(this.directory, { recursive: true, force: true });
  }
}

test('a task with a health check is running with its first success, and not before', async () => {
  await using bench = await Bench.start(EVERY_10_S);

  await eventually(() => bench.status.message === 'waiting for the health check');
  assert.equal(await bench.check(refused), 10_000);
  await bench.untilCheck();
  assert.equal(bench.status.state, 'starting');
  assert.equal(await bench.check(ok), 20_000);

  const { runningAtMs, container } = await bench.until('running');
  assert.equal(runningAtMs, bench.clock.nowMs());
  assert.ok((container?.pid ?? 0) > 0);
  assert.deepEqual(bench.history.map(({ state, message, error }) => [state, message, error]).slice(-4), [
    ['starting', 'starting', ''],
    ['starting', 'waiting for the health check', ''],
    ['starting', 'waiting for the health check', 'the health check failed: exit code 1: connection refused'],
    ['running', 'started', ''],
  ]);
  assert.deepEqual(bench.checks, [false, true]);
});

test('the command gets its time limit', async () => {
  await using bench = await Bench.start({ ...EVERY_10_S, test: ['CMD-SHELL', 'check --all'] });
  let request: ExecRequest | undefined;
  bench.engine.onExec = async (_, given) => {
    request = given;
    return ok;
  };

  await eventually(() => bench.clock.nextAtMs !== undefined);
  bench.clock.advance(10_000);

  await bench.until('running');
  assert.deepEqual(request?.command, ['sh', '-c', 'check --all']);
  assert.equal(request?.timeoutMs, 3_000);
});

test('a port is asked in place of a command', async () => {
  await using bench = await Bench.start({ ...EVERY_10_S, test: ['HTTP', '8080/healthz'], retries: 1 });
  const asked: unknown[] = [];
  let problem: string | undefined;
  bench.engine.onProbe = async (_, probe, { timeoutMs }) => {
    asked.push({ ...probe, timeoutMs });
    return problem;
  };

  await eventually(() => bench.clock.nextAtMs !== undefined);
  bench.clock.advance(10_000);
  await bench.until('running');
  assert.deepEqual(asked, [{ kind: 'http', port: 8080, path: '/healthz', timeoutMs: 3_000 }]);

  problem = 'GET /healthz on port 8080: status 503';
  await eventually(() => bench.clock.nextAtMs !== undefined);
  bench.clock.advance(10_000);
  await bench.until('failed');
  assert.match(bench.history.at(-1)?.error ?? '', /the health check failed: GET .*: status 503/);
});

test('in the start period checks come quickly and failures do not count', async () => {
  const start = { ...EVERY_10_S, retries: 1, startPeriodMs: 500, startIntervalMs: 100 };
  await using bench = await Bench.start(start);

  const times = [];
  for (let count = 0; count < 4; count++) times.push(await bench.check(refused));
  times.push(await bench.untilCheck());
  assert.deepEqual(times, [100, 200, 300, 400, 500]);
  await bench.check(ok);

  await bench.until('running');
});

test('a clock that is set changes neither intervals nor start period, and no status is older than the one before', async () => {
  const start = { ...EVERY_10_S, retries: 1, startPeriodMs: 500, startIntervalMs: 100 };
  await using bench = await Bench.start(start);
  const startedMs = bench.clock.elapsedMs();
  const times: number[] = [];

  for (const jumpMs of [-3_600_000, 2 * 86_400_000, -7 * 86_400_000, 0, 0]) {
    await bench.untilCheck();
    times.push(bench.clock.elapsedMs() - startedMs);
    bench.clock.setBy(jumpMs);
    await bench.check(refused);
  }

  assert.deepEqual(times, [100, 200, 300, 400, 500]);
  assert.match((await bench.until('failed')).error, /the health check failed/);
  const stamps = bench.history.map(({ timestampMs }) => timestampMs);
  assert.deepEqual(
    stamps,
    stamps.toSorted((a, b) => a - b),
  );
});

test('a container that does not become healthy is stopped, and its task fails with what the check said', async () => {
  await using bench = await Bench.start({ ...EVERY_10_S, retries: 2 });

  await bench.check(refused);
  await bench.check({ exitCode: 137, output: 'still\nwaiting', hasTimedOut: true });

  const { error, container } = await bench.until('failed');
  assert.equal(
    error,
    'unhealthy container: the health check failed 2 times in a row: no end within 3000 ms: still waiting',
  );
  assert.equal(container?.exitCode, 143);
  assert.ok(bench.history.every(({ state }) => state !== 'running'));
  await eventually(() => bench.engine.running.size === 0 && bench.network.endpoints.size === 0);
});

test('a running task whose checks fail in a row fails, and its managers hear of it before it is stopped', async () => {
  await using bench = await Bench.start({ ...EVERY_10_S, retries: 3 });
  await bench.check(ok);
  await bench.until('running');
  const drained: string[] = [];
  bench.network.drain = async (id) => {
    drained.push(`${id} ${bench.status.state} ${bench.status.error === '' ? 'well' : 'unhealthy'}`);
  };

  await bench.check(refused);
  await bench.check(refused);
  await bench.untilCheck();
  assert.equal(bench.status.state, 'running');
  assert.equal(bench.status.error, '');
  await bench.check(refused);

  await bench.until('failed');
  assert.deepEqual(drained, ['t1 running unhealthy']);
  assert.deepEqual(
    bench.history.slice(-2).map(({ state, error }) => [state, error]),
    ['running', 'failed'].map((state) => [
      state,
      'unhealthy container: the health check failed 3 times in a row: exit code 1: connection refused',
    ]),
  );
});

test('a success between failures begins their count anew', async () => {
  await using bench = await Bench.start({ ...EVERY_10_S, retries: 2 });
  await bench.check(ok);
  await bench.until('running');

  for (let round = 0; round < 3; round++) {
    await bench.check(refused);
    await bench.check(ok);
  }

  await bench.untilCheck();
  assert.equal(bench.status.state, 'running');
});

test('a healthy container is checked once in each interval, the first time somewhere in it', async () => {
  await using bench = await Bench.start(EVERY_10_S);
  await bench.check(ok);
  await bench.until('running');

  const first = await bench.check(ok);
  const second = await bench.check(ok);
  const third = await bench.check(ok);

  assert.ok(first >= 10_000 && first < 20_000, `${first}`);
  assert.deepEqual([second - first, third - second], [10_000, 10_000]);
});

test('managers hear why a task is starting for long, but not with every check', async () => {
  await using bench = await Bench.start({ ...EVERY_10_S, startPeriodMs: 60_000, startIntervalMs: 1_000 });

  for (let count = 1; count <= 12; count++) await bench.check({ ...refused, output: `refused at ${count}` });
  await bench.untilCheck();

  const told = bench.history.filter(({ error }) => error !== '');
  assert.deepEqual(
    told.map(({ state, error }) => [state, error]),
    [5, 10].map((count) => ['starting', `the health check failed: exit code 1: refused at ${count}`]),
  );
  await bench.check(ok);
  assert.equal((await bench.until('running')).error, '');
});

test('a container that ends before it is healthy has ended, not run', async () => {
  for (const [exitCode, state] of [
    [0, 'complete'],
    [3, 'failed'],
  ] as const) {
    await using bench = await Bench.start(EVERY_10_S);
    await bench.check(refused);
    await bench.untilCheck();

    bench.engine.exit('t1', exitCode);

    const status = await bench.until(state);
    assert.equal(bench.lastRequest?.signal?.aborted, true);
    assert.equal(status.error, exitCode === 0 ? '' : 'task: non-zero exit (3)');
    assert.ok(bench.history.every((seen) => seen.state !== 'running'));
  }
});

test('a container that ends while its last check fails has ended by itself', async () => {
  await using bench = await Bench.start({ ...EVERY_10_S, retries: 1 });
  await bench.check(ok);
  await bench.until('running');
  await bench.untilCheck();
  const container = bench.engine.running.get('t1');
  assert.ok(container !== undefined);
  container.status = {
    state: 'exited',
    exit: { exitCode: 5, exitedAtMs: bench.clock.nowMs(), outOfMemory: false },
  };

  await bench.check(refused);

  assert.equal((await bench.until('failed')).error, 'task: non-zero exit (5)');
});

test('a command that cannot be run is a failure, an engine that cannot run any is none', async () => {
  await using bench = await Bench.start({ ...EVERY_10_S, retries: 2 });
  await bench.check(ok);
  await bench.until('running');

  await bench.check(new SwarmError('invalid-argument', 'exec: "curl": executable file not found'));
  const atMs = await bench.check(new SwarmError('unavailable', 'containerd is away'));
  assert.equal((await bench.check(new Error('EMFILE: too many open files'))) - atMs, 1_000);
  await bench.check(new SwarmError('unavailable', 'containerd is away'));
  await bench.untilCheck();
  assert.equal(bench.status.state, 'running');
  await bench.check(new SwarmError('invalid-argument', 'exec: "curl": executable file not found'));

  assert.match(
    (await bench.until('failed')).error,
    /2 times in a row: exec: "curl": executable file not found/,
  );
});

test('an order to stop calls off the check under way', async () => {
  for (const isRunning of [false, true]) {
    await using bench = await Bench.start(EVERY_10_S);
    if (isRunning) await bench.check(ok);
    if (isRunning) await bench.until('running');
    await bench.untilCheck();

    bench.order('shutdown');

    await bench.until('shutdown');
    assert.equal(bench.lastRequest?.signal?.aborted, true);
    assert.equal(bench.clock.nextAtMs, undefined, 'no more checks');
  }
});

test('after a restart of the daemon a running task stays running, and is checked again', async () => {
  await using bench = await Bench.start({ ...EVERY_10_S, retries: 2 });
  await bench.check(ok);
  await bench.until('running');
  const { runningAtMs } = bench.status;
  await bench.untilCheck();
  bench.worker.stop();
  bench.history.length = 0;

  await bench.open();

  assert.equal(bench.status.state, 'running');
  await bench.check(new Error('the one of the worker that has stopped'));
  await bench.check(refused);
  assert.equal(bench.status.state, 'running');
  assert.equal(bench.status.runningAtMs, runningAtMs);
  await bench.check(refused);
  await bench.until('failed');
});

test('after a restart of the daemon a task that was not healthy yet goes on starting, in the same start period', async () => {
  await using bench = await Bench.start({
    ...EVERY_10_S,
    retries: 1,
    startPeriodMs: 3_000,
    startIntervalMs: 1_000,
  });
  assert.equal(await bench.check(refused), 1_000);
  await bench.untilCheck();
  bench.worker.stop();

  await bench.open();

  assert.equal(bench.status.state, 'starting');
  await bench.check(new Error('the one of the worker that has stopped'));
  assert.equal(await bench.check(refused), 3_000);
  await bench.until('failed');
  assert.ok(bench.history.every(({ state }) => state !== 'running'));
});

test('after a restart of the daemon a container that ended unseen before it was healthy has not run', async () => {
  await using bench = await Bench.start(EVERY_10_S);
  await bench.untilCheck();
  bench.worker.stop();
  bench.engine.exit('t1', 4);

  await bench.open();

  await bench.until('failed');
  assert.ok(bench.history.every(({ state }) => state !== 'running'));
});

test('a task without a health check runs at once, makes no checks and sets no timers', async () => {
  for (const healthCheck of [undefined, { ...emptyHealthCheck, test: ['NONE'] }]) {
    await using bench = await Bench.start(healthCheck);

    await bench.until('running');

    assert.equal(bench.clock.nextAtMs, undefined);
    assert.deepEqual(
      bench.history.map(({ state }) => state),
      ['accepted', 'preparing', 'ready', 'starting', 'running'],
    );
  }
});
