import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
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

  async #note(id: string): Promise<void> {
    this.#running.push(shimGroup(id));
    this.together.push([...this.#running]);
    for (let turn = 0; turn < 5; turn++) await setImmediate();
    this.#running.splice(this.#running.indexOf(shimGroup(id)), 1);
  }
}

test('in one shim containers are created and deleted one after the other, in several at once', async () => {
  const root = mkdtempSync(path.join(tmpdir(), 'tsw-'));
  const log = createLogger('test.lifecycle');
  const tasks = new FakeTasks();
  using logs = new LogService(path.join(root, 'spool'), log);
  const containerd = { tasks } as unknown as Containerd;
  const machine = inspectMachine();
  const mounts: LifecycleOptions['mounts'] = { withRoot: (_id, { snapshot }, action) => action(snapshot) };
  const lifecycle = new ContainerLifecycle({ containerd, engineId: 'e1', machine, logs, mounts, log });
  const entries = Array.from({ length: 12 }, (_, index) => anEntry(root, `box-${index}`));
  try {
    await Promise.all(entries.slice(0, 6).map((entry) => lifecycle.start(entry)));
    await Promise.all([
      ...entries.slice(6).map((entry) => lifecycle.start(entry)),
      ...entries.slice(0, 6).map(({ id }) => lifecycle.deleteTask(id)),
    ]);
  } finally {
    rmSync(root, { recursive: true });
  }

  assert.equal(tasks.together.length, 18);
  for (const groups of tasks.together) assert.equal(new Set(groups).size, groups.length, groups.join());
  assert.ok(tasks.together.some((groups) => groups.length > 1));
});

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
