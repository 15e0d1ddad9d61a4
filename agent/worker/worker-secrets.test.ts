// Secrets and configs of tasks, against an engine and files in memory.

import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { newServiceSpec } from '../../core/defaults.ts';
import {
  type ContainerSpec,
  emptyFileReference,
  emptyMeta,
  emptyNodeDescription,
  emptyTask,
  type FileReference,
  type Task,
} from '../../core/generated/objects.ts';
import { systemClock } from '../../node/system-clock.ts';
import { emptyAssignments, type NodePayload } from '../../proto/generated/dispatcher.ts';
import { setLogLevel } from '../../rpc/logger.ts';
import { eventually } from '../../test/support/eventually.ts';
import { FakeEngine, FakeNetwork } from '../../test/support/fake-engine.ts';
import { FakeFiles } from '../../test/support/fake-files.ts';
import { Worker } from './worker.ts';

setLogLevel('silent');

const reference = (change: Partial<FileReference> = {}): FileReference => ({
  ...emptyFileReference,
  sourceId: 'db',
  sourceName: 'db',
  target: 'db',
  mode: 0o440,
  uid: 7,
  ...change,
});

const payload = (text: string, change: Partial<NodePayload> = {}): NodePayload => {
  const made = { sourceId: 'db', version: 1, newest: true, templateDriver: '', ...change };
  return { id: `${made.sourceId}.${made.version}`, data: Buffer.from(text), ...made };
};

class Bench {
  readonly engine = new FakeEngine();
  readonly files = new FakeFiles();
  readonly network = new FakeNetwork();
  readonly signals: string[] = [];
  readonly directory: string;
  worker!: Worker;

  private constructor(directory: string) {
    this.directory = directory;
    const { containers } = this.engine;
    const kill = containers.kill.bind(containers);
    containers.kill = async (id, signal) => {
      if (signal === 'SIGHUP') this.signals.push(id);
      else await kill(id, signal);
    };
  }

  static async start(): Promise<Bench> {
    const bench = new Bench(await mkdtemp(path.join(os.tmpdir(), 'tsw-worker-')));
    await bench.open();
    return bench;
  }

  async open(): Promise<void> {
    this.worker = await Worker.open({
      engine: this.engine,
      network: this.network,
      files: this.files,
      describe: () => ({ ...emptyNodeDescription, hostname: 'alpha' }),
      clock: systemClock,
      stateDirectory: path.join(this.directory, 'tasks'),
      onHealthCheck: () => {},
    });
  }

  hear(payloads: readonly NodePayload[], { complete = false, removedIds = [] as string[] } = {}): void {
    this.worker.hearPayloads({ complete, payloads, removedIds });
  }

  run(container: Partial<ContainerSpec>, desiredState: Task['desiredState'] = 'running'): void {
    const spec = newServiceSpec('web', { image: 'busybox:latest', ...container });
    const status = { ...emptyTask.status, state: 'assigned' as const };
    const task: Task = {
      ...emptyTask,
      id: 't1',
      serviceId: 's',
      specVersion: 1,
      slot: 4,
      nodeId: 'n',
      status,
      desiredState,
    };
    const revision = {
      id: 's.1',
      meta: emptyMeta,
      serviceId: 's',
      specVersion: 1,
      spec,
      registryAuth: false,
    };
    void this.worker.assign({ ...emptyAssignments, revisions: [revision], tasks: [task] });
  }

  get status() {
    return this.worker.statuses()[0]?.[1];
  }

  until(state: Task['status']['state']): Promise<unknown> {
    return eventually(
      () => this.status?.state === state || Promise.reject(new Error(JSON.stringify(this.status))),
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.worker.removeAll();
    await rm(this.directory, { recursive: true });
  }
}

test('a task gets its files with owner and mode, and they go with it', async () => {
  await using bench = await Bench.start();
  bench.hear([payload('one'), payload('conf', { sourceId: 'c' })], { complete: true });
  bench.run({
    secrets: [reference()],
    configs: [reference({ sourceId: 'c', target: '/etc/c', uid: 0, mode: 0o444 })],
  });
  await bench.until('running');

  const data = [Buffer.from('one'), Buffer.from('conf')];
  assert.deepEqual(bench.files.tasks.get('t1'), [
    { data: data[0], uid: 7, gid: 0, mode: 0o440 },
    { data: data[1], uid: 0, gid: 0, mode: 0o444 },
  ]);
  assert.deepEqual(bench.engine.running.get('t1')?.config.files, [
    { source: '/files/t1/0', target: '/run/secrets/db' },
    { source: '/files/t1/1', target: '/etc/c' },
  ]);
  assert.ok(!JSON.stringify(bench.engine.running.get('t1')?.config).includes('one'));

  bench.run({}, 'shutdown');
  await bench.until('shutdown');
  await eventually(() => bench.files.tasks.size === 0);
});

test('a task waits for what the managers have not sent yet, and is rejected for what they do not have', async () => {
  await using bench = await Bench.start();
  bench.run({ secrets: [reference({ version: 3 })] });
  await bench.until('preparing');
  bench.hear([payload('one')], { complete: true });
  await bench.until('rejected');
  assert.equal(bench.status?.error, 'version 3 of secret db is not there any more');
});

test('what follows the newest version is replaced and told, what is pinned stays', async () => {
  await using bench = await Bench.start();
  bench.hear([payload('one')], { complete: true });
  const secrets = [reference({ signal: 'SIGHUP' }), reference({ version: 1, target: 'old' })];
  bench.run({ secrets });
  await bench.until('running');

  bench.hear([payload('two', { version: 2 }), payload('one', { newest: false })]);
  await eventually(() => bench.files.text('t1', 0) === 'two');
  await eventually(() => bench.signals.length === 1);
  assert.equal(bench.files.text('t1', 1), 'one');

  bench.hear([payload('two', { version: 2 })]);
  bench.hear([payload('other', { sourceId: 'x' })]);
  await bench.worker.assign(emptyAssignments);
  assert.deepEqual(bench.signals, ['t1'], 'nothing has changed');
});

test('a file that cannot be replaced is the error of a task that runs on, until it works', async () => {
  await using bench = await Bench.start();
  bench.hear([payload('one')], { complete: true });
  bench.run({ secrets: [reference()] });
  await bench.until('running');
  bench.files.onReplace = () => {
    throw new Error('no room');
  };
  bench.hear([payload('two', { version: 2 })]);
  await eventually(() => bench.status?.error !== '');
  assert.equal(bench.status?.error, 'secret db is not up to date in the container: no room');
  assert.equal(bench.status?.state, 'running');

  bench.files.onReplace = () => {};
  bench.hear([payload('three', { version: 3 })]);
  await eventually(() => bench.status?.error === '');
  assert.equal(bench.files.text('t1', 0), 'three');
});

test('a worker that starts anew takes up what came while it was away', async () => {
  await using bench = await Bench.start();
  bench.hear([payload('one')], { complete: true });
  bench.run({ secrets: [reference()] });
  await bench.until('running');
  bench.worker.stop();
  bench.files.write('stranger', []);
  await bench.open();
  assert.deepEqual(bench.files.list(), ['t1'], 'files of no known task go');
  assert.equal(bench.files.text('t1', 0), 'one');
  bench.hear([payload('two', { version: 2 })], { complete: true });
  await eventually(() => bench.files.text('t1', 0) === 'two');
});

test('in a container with users of its own, files belong to its users, those of later versions too', async () => {
  await using bench = await Bench.start();
  const ownerOf = () => bench.files.tasks.get('t1')?.[0]?.uid;
  bench.hear([payload('one')], { complete: true });
  bench.run({ secrets: [reference()], usernsMode: 'private' });
  await bench.until('running');
  assert.equal(ownerOf(), 1_000_007);
  assert.equal(bench.network.madeNamespaces.get('t1'), '/net/t1');

  bench.hear([payload('two', { version: 2 })]);
  await eventually(() => bench.files.text('t1', 0) === 'two');
  assert.equal(ownerOf(), 1_000_007);
});

test('such a container has no users beyond 65535', async () => {
  await using bench = await Bench.start();
  bench.hear([payload('one')], { complete: true });
  bench.run({ secrets: [reference({ uid: 70_000 })], usernsMode: 'private' });
  await bench.until('rejected');
  assert.match(bench.status?.error ?? '', /^secret db: uid 70000: .*below 65536/);
});

test('templates are filled in for the task, those in files with other files', async () => {
  await using bench = await Bench.start();
  const template = '{{.Task.Slot}}@{{.Node.Hostname}} {{secret "db"}} {{env "WHO"}}';
  bench.hear([payload('one'), payload(template, { sourceId: 'c', templateDriver: 'golang' })], {
    complete: true,
  });
  const configs = [reference({ sourceId: 'c', sourceName: 'c', target: 'c' })];
  bench.run({ secrets: [reference()], configs, env: ['WHO={{.Service.Name}}'], hostname: 'h{{.Task.Slot}}' });
  await bench.until('running');
  assert.equal(bench.files.text('t1', 1), '4@alpha one web');
  const config = bench.engine.running.get('t1')?.config;
  assert.deepEqual([config?.env, config?.hostname], [['WHO=web'], 'h4']);

  bench.hear([payload('two', { version: 2 })]);
  await eventually(() => bench.files.text('t1', 1) === '4@alpha two web');
});

test('a template that fails is the error of its task', async () => {
  await using bench = await Bench.start();
  bench.hear([payload('{{secret "nope"}}', { templateDriver: 'golang' })], { complete: true });
  bench.run({ secrets: [reference()] });
  await bench.until('rejected');
  assert.equal(
    bench.status?.error,
    'template: error calling secret: the service has no secret with the target "nope"',
  );
});
