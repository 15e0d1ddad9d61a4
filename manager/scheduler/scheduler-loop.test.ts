// The scheduler's loop on a store: what is placed, and when it is looked at again.

import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { FakeClock } from '../../core/clock.ts';
import type { Node, ServiceSpec, Task } from '../../core/generated/objects.ts';
import { setLogLevel } from '../../rpc/logger.ts';
import { aNode, aServiceObject, aTask, type NodeOptions } from '../../test/support/builders.ts';
import { eventually } from '../../test/support/eventually.ts';
import { MemoryLog } from '../../test/support/memory-log.ts';
import { createRevision } from '../store/service-revision.ts';
import { Store } from '../store/store.ts';
import type { Transaction } from '../store/transaction.ts';
import { Scheduler } from './scheduler-loop.ts';

setLogLevel('silent');

const clock = new FakeClock();

async function scheduling(t: TestContext, nodes: readonly Node[]): Promise<Store> {
  return (await start(t, nodes)).store;
}

async function start(
  t: TestContext,
  nodes: readonly Node[],
): Promise<{ readonly store: Store; readonly scheduler: Scheduler }> {
  const store = new Store(new MemoryLog(), clock);
  await store.open();
  await store.batch(nodes.map((node) => (tx) => tx.create('node', node)));
  const stop = new AbortController();
  t.after(() => stop.abort());
  const scheduler = new Scheduler({ store, clock });
  void scheduler.run(stop.signal);
  return { store, scheduler };
}

/** Changes a task between a decision about it and the write of that. */
function changeMeanwhile(store: Store, change: (tx: Transaction) => void): void {
  const batch = store.batch.bind(store);
  store.batch = async (steps) => {
    store.batch = batch;
    await store.update(change);
    await batch(steps);
  };
}

async function createService(
  store: Store,
  name: string,
  count: number,
  change: (spec: ServiceSpec) => ServiceSpec = (spec) => spec,
): Promise<void> {
  const service = aServiceObject(name, count, change);
  await store.batch([
    (tx) => {
      tx.create('service', service);
      createRevision(tx, service, undefined);
    },
    ...Array.from(
      { length: count },
      (_, index) => (tx: Parameters<Parameters<Store['update']>[0]>[0]) =>
        tx.create('task', aTask(name, { slot: index + 1, nodeId: '', state: 'pending' })),
    ),
  ]);
}

const tasksOf = (store: Store, name: string) => store.view.tasksOfService(name);
const placed = (store: Store, name: string) => tasksOf(store, name).filter(({ nodeId }) => nodeId !== '');
const reserving = (memoryBytes: number) => (spec: ServiceSpec) => ({
  ...spec,
  task: { ...spec.task, resources: { ...spec.task.resources, reservations: { cpuNanos: 0, memoryBytes } } },
});
const nextTo = (affinity: string) => (spec: ServiceSpec) => ({
  ...spec,
  task: { ...spec.task, placement: { ...spec.task.placement, affinities: [affinity] } },
});

test('very many tasks are placed, and those without room are told why, each of them', async (t) => {
  const store = await scheduling(t, [aNode('a', { memoryBytes: 3_000 }), aNode('b', { memoryBytes: 3_000 })]);
  await createService(store, 'many', 8_000, reserving(1));
  await eventually(() =>
    tasksOf(store, 'many').every(({ nodeId, status }) => nodeId !== '' || status.error !== ''),
  );
  assert.equal(placed(store, 'many').length, 6_000);
  const reasons = new Set(tasksOf(store, 'many').map(({ status }) => status.error));
  assert.deepEqual([...reasons].sort(), ['', 'no suitable node (insufficient resources on 2 nodes)']);
});

test('a task that waits is placed when room is made, and not before', async (t) => {
  const store = await scheduling(t, [aNode('a', { memoryBytes: 1_000 })]);
  await createService(store, 'first', 1, reserving(600));
  await eventually(() => placed(store, 'first').length === 1);
  await createService(store, 'second', 1, reserving(600));
  await eventually(() => tasksOf(store, 'second')[0]?.status.error !== '');
  const end = (task: Task) => ({ ...task, status: { ...task.status, state: 'shutdown' as const } });
  assert.equal(placed(store, 'second').length, 0);

  await store.update((tx) => tx.update('task', end(tasksOf(store, 'first')[0] as Task)));

  await eventually(() => placed(store, 'second').length === 1);
});

test('a task that waits is placed when another one is removed, whatever its state', async (t) => {
  const store = await scheduling(t, [aNode('a', { memoryBytes: 1_000 })]);
  await createService(store, 'first', 1, reserving(600));
  await eventually(() => placed(store, 'first').length === 1);
  await createService(store, 'second', 1, reserving(600));
  await eventually(() => tasksOf(store, 'second')[0]?.status.error !== '');

  await store.update((tx) => tx.delete('task', (tasksOf(store, 'first')[0] as Task).id));

  await eventually(() => placed(store, 'second').length === 1);
});

test('a task that waits is placed when another one takes on a spec that reserves less', async (t) => {
  const store = await scheduling(t, [aNode('a', { memoryBytes: 1_000 })]);
  await createService(store, 'first', 1, reserving(600));
  await eventually(() => placed(store, 'first').length === 1);
  await createService(store, 'second', 1, reserving(600));
  await eventually(() => tasksOf(store, 'second')[0]?.status.error !== '');

  await store.update((tx) => {
    const service = { ...aServiceObject('first', 1, reserving(300)), specVersion: 2 };
    createRevision(tx, service, undefined);
    tx.update('task', { ...(tasksOf(store, 'first')[0] as Task), specVersion: 2 });
  });

  await eventually(() => placed(store, 'second').length === 1);
});

test('a task that takes on another spec while it is being placed is placed by that', async (t) => {
  const store = await scheduling(t, [aNode('a'), aNode('b', { labels: { rack: '2' } })]);
  const onRack = (rack: number) => (spec: ServiceSpec) => ({
    ...spec,
    task: {
      ...spec.task,
      placement: { ...spec.task.placement, constraints: [`node.labels.rack==${rack}`] },
    },
  });
  await createService(store, 'web', 1, onRack(1));
  await eventually(() => tasksOf(store, 'web')[0]?.status.error !== '');
  changeMeanwhile(store, (tx) => {
    createRevision(tx, { ...aServiceObject('web', 1, onRack(2)), specVersion: 2 }, undefined);
    tx.update('task', { ...(tasksOf(store, 'web')[0] as Task), specVersion: 2 });
  });

  await store.update((tx) => tx.update('node', aNode('a', { labels: { rack: '1' } })));

  await eventually(() => placed(store, 'web').length === 1);
  assert.equal(tasksOf(store, 'web')[0]?.nodeId, 'b');
});

test('a node that changes while a task is being placed on it is looked at anew', async (t) => {
  const changes: NodeOptions[] = [{ availability: 'drain' }, {}, { labels: { rack: '1' }, memoryBytes: 100 }];
  for (const change of changes) {
    const store = await scheduling(t, [aNode('a'), aNode('b', { labels: { rack: '2' } })]);
    await createService(store, 'web', 1, (spec) => {
      const { placement } = spec.task;
      return reserving(600)({
        ...spec,
        task: { ...spec.task, placement: { ...placement, constraints: ['node.labels.rack==1'] } },
      });
    });
    await eventually(() => tasksOf(store, 'web')[0]?.status.error !== '');
    let isDecided = false;
    changeMeanwhile(store, (tx) => {
      isDecided = true;
      tx.update('node', aNode('a', change));
    });

    await store.update((tx) => tx.update('node', aNode('a', { labels: { rack: '1' }, memoryBytes: 1_000 })));
    await eventually(() => isDecided);
    for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve));
    assert.deepEqual(placed(store, 'web'), []);
  }
});

test('a task is not placed where another has taken on more while it was being placed', async (t) => {
  const store = await scheduling(t, [aNode('a', { memoryBytes: 1_000 })]);
  await createService(store, 'other', 1, reserving(300));
  await eventually(() => placed(store, 'other').length === 1);
  let isDecided = false;
  changeMeanwhile(store, (tx) => {
    isDecided = true;
    createRevision(tx, { ...aServiceObject('other', 1, reserving(600)), specVersion: 2 }, undefined);
    tx.update('task', { ...(tasksOf(store, 'other')[0] as Task), specVersion: 2 });
  });

  const web = aServiceObject('web', 1, reserving(500));
  await store.update((tx) => {
    tx.create('service', web);
    createRevision(tx, web, undefined);
    tx.create('task', aTask('web', { nodeId: '', state: 'pending' }));
  });
  await eventually(() => isDecided);
  await eventually(() => tasksOf(store, 'web')[0]?.status.error !== '');
  assert.deepEqual(placed(store, 'web'), []);
});

test('what is taken for a task that changes while it is being placed is given to nobody else', async (t) => {
  const { store, scheduler } = await start(t, [aNode('a', { memoryBytes: 100 })]);
  await createService(store, 'web', 1, reserving(600));
  await eventually(() => tasksOf(store, 'web')[0]?.status.error !== '');
  const other = aTask('other', { nodeId: '', state: 'pending' });
  const { spec } = aServiceObject('other', 1, reserving(600));
  const others: Task[] = [];
  changeMeanwhile(store, (tx) => {
    tx.update('task', { ...(tasksOf(store, 'web')[0] as Task), desiredState: 'ready' });
    const stop = store.subscribe(() => {
      stop();
      others.push(...scheduler.placeNew(spec, [other]));
    });
  });

  await store.update((tx) => tx.update('node', aNode('a', { memoryBytes: 1_000 })));

  await eventually(() => placed(store, 'web').length === 1 && others.length === 1);
  assert.equal(others[0]?.nodeId, '');
});

test('a task that wants company is placed when that has come', async (t) => {
  const store = await scheduling(t, [aNode('a'), aNode('b')]);
  await createService(store, 'cache', 1, nextTo('service==app'));
  await eventually(() => /affinities/.test(tasksOf(store, 'cache')[0]?.status.error ?? ''));

  await createService(store, 'app', 1);

  await eventually(() => placed(store, 'cache').length === 1);
  assert.equal(tasksOf(store, 'cache')[0]?.nodeId, tasksOf(store, 'app')[0]?.nodeId);
});

test('a node that comes back gets what was waiting for it', async (t) => {
  const down = aNode('a', { state: 'down' });
  const store = await scheduling(t, [down]);
  await createService(store, 'web', 3);
  await eventually(() => tasksOf(store, 'web').every(({ status }) => /not available/.test(status.error)));
  await store.update((tx) => tx.update('node', aNode('a')));
  await eventually(() => placed(store, 'web').length === 3);
});
