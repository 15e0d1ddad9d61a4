import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { SwarmError } from '../../../core/errors.ts';
import { createLogger } from '../../../rpc/logger.ts';
import type { Containerd } from '../containerd/connection.ts';
import { LogService } from '../logs/log-service.ts';
import { inspectMachine } from '../machine.ts';
import { ContainerEntry } from './entry.ts';
import { ContainerLifecycle, type LifecycleOptions } from './lifecycle.ts';
import { ContainerDirectory } from './record.ts';
import { shimGroup } from './spec.ts';

/** Takes some turns of the event loop for each call, and notes which calls ran together. */
class FakeTasks {
  readonly #running: string[] = [];
  readonly together: string[][] = [];

  async create({ containerId }: { containerId: string }): Promise<{ pid: number }> {
    await this.#note(containerId);
    return { pid: 1 };
  }

  async start(): Promise<{ pid: number }> {
    return { pid: 1 };
  }

  async delete({ containerId }: { containerId: string }): Promise<object> {
    await this.#note(containerId);
    return {};
  }

  /** What containerd says when the shim ends under the call. */
  async kill(): Promise<never> {
    await setImmediate();
    throw new SwarmError('internal', 'ttrpc: closed: unknown');
  }

  async #note(id: string): Promise<void> {
    this.#running.push(shimGroup(id));
    this.together.push([...this.#running]);
    for (let turn = 0; turn < 5; turn++) await setImmediate();
    this.#running.splice(this.#running.indexOf(shimGroup(id)), 1);
  }
}

test('in one shim containers are created and deleted one after the other, in several at once', async () => {
  using own = aLifecycle();
  const { lifecycle, tasks } = own;
  const entries = Array.from({ length: 12 }, (_, index) => own.entry(`box-${index}`));

  await Promise.all(entries.slice(0, 6).map((entry) => lifecycle.start(entry)));
  await Promise.all([
    ...entries.slice(6).map((entry) => lifecycle.start(entry)),
    ...entries.slice(0, 6).map(({ id }) => lifecycle.deleteTask(id)),
  ]);

  assert.equal(tasks.together.length, 18);
  for (const groups of tasks.together) assert.equal(new Set(groups).size, groups.length, groups.join());
  assert.ok(tasks.together.some((groups) => groups.length > 1));
});

test('a signal whose container ends meanwhile has arrived, one that fails while it runs says so', async () => {
  using own = aLifecycle();
  const { lifecycle } = own;
  const [ends, runs] = [own.entry('ends'), own.entry('runs')];
  await Promise.all([lifecycle.start(ends), lifecycle.start(runs)]);

  const [toEnding, toRunning] = [lifecycle.signal(ends, 9), lifecycle.signal(runs, 9)];
  lifecycle.onExitEvent(ends, { containerId: 'ends', id: 'ends', pid: 1, exitStatus: 137 });

  await toEnding;
  await assert.rejects(toRunning, /ttrpc: closed/);
  await ends.settled;
});

function aLifecycle() {
  const root = mkdtempSync(path.join(tmpdir(), 'tsw-'));
  const log = createLogger('test.lifecycle');
  const tasks = new FakeTasks();
  const logs = new LogService(path.join(root, 'spool'), log);
  const containerd = { tasks } as unknown as Containerd;
  const machine = inspectMachine();
  const mounts: LifecycleOptions['mounts'] = { withRoot: (_id, { snapshot }, action) => action(snapshot) };
  return {
    tasks,
    lifecycle: new ContainerLifecycle({ containerd, engineId: 'e1', machine, logs, mounts, log }),
    entry: (id: string) => anEntry(root, id),
    [Symbol.dispose]: () => {
      logs[Symbol.dispose]();
      rmSync(root, { recursive: true });
    },
  };
}

function anEntry(root: string, id: string): ContainerEntry {
  const directory = new ContainerDirectory({ root, filesRoot: path.join(root, 'etc') }, id);
  mkdirSync(directory.path);
  const entry = new ContainerEntry(directory, {
    id,
    manifestDigest: '',
    parentSnapshot: '',
    labels: {},
    command: '',
    tty: false,
    stopSignal: 'SIGTERM',
    logs: { maxSizeBytes: 0, maxFiles: 1 },
  });
  entry.mounts = [];
  return entry;
}
