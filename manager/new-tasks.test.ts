// New tasks on their way: made by the services' loop, placed by the scheduler while they are made.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { type TestContext, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { FakeClock } from '../core/clock.ts';
import type { Task } from '../core/generated/objects.ts';
import { setLogLevel } from '../rpc/logger.ts';
import { aNode, aServiceObject, aTask } from '../test/support/builders.ts';
import { eventually } from '../test/support/eventually.ts';
import { MemoryLog } from '../test/support/memory-log.ts';
import { runServiceLoop } from './orchestrator/service-loop.ts';
import { Scheduler } from './scheduler/scheduler-loop.ts';
import { createRevision } from './store/service-revision.ts';
import { Store } from './store/store.ts';

setLogLevel('silent');

const TASK_BYTES = 1_000;

/** A node with room for so many tasks, and both loops. */
async function cluster(t: TestContext, room: number, log = new MemoryLog()) {
  const clock = new FakeClock();
  const store = new Store(log, clock);
  await store.open();
  await store.update((tx) => tx.create('node', aNode('a', { memoryBytes: room * TASK_BYTES })));
  const stop = new AbortController();
  t.after(() => stop.abort());
  const scheduler = new Scheduler({ store, clock });
  void scheduler.run(stop.signal);
  void runServiceLoop({ store, clock, randomBytes, placer: scheduler }, stop.signal);
  return { store, scheduler };
}

function aService(replicas: number) {
  const reservations = { cpuNanos: 0, memoryBytes: TASK_BYTES };
  return aServiceObject('s', replicas, (spec) => ({
    ...spec,
    task: { ...spec.task, resources: { ...spec.task.resources, reservations } },
  }));
}

test('new tasks are placed while they are made, those without room tell why, and room that is made is used', async (t) => {
  const { store } = await cluster(t, 4);
  const first = new Map<string, string>();
  store.subscribe(({ events }) => {
    for (const { kind, action, object } of events)
      if (kind === 'task' && action === 'created') first.set(object.id, (object as Task).status.state);
  });
  const tasks = () => store.view.tasksOfService('s');

  await store.update((tx) => {
    const service = aService(6);
    tx.create('service', service);
    createRevision(tx, service, undefined);
  });
  await eventually(() => tasks().filter(({ status }) => status.error !== '').length === 2);
  assert.deepEqual(
    tasks().map(({ nodeId, status }) => [nodeId, status.state, status.error]),
    [
      ...Array(4).fill(['a', 'assigned', '']),
      ...Array(2).fill(['', 'pending', 'no suitable node (insufficient resources on 1 node)']),
    ],
  );
  assert.equal([...first.values()].filter((state) => state === 'assigned').length, 4);

  await store.update((tx) => tx.create('node', aNode('b', { memoryBytes: TASK_BYTES })));
  await eventually(() => tasks().filter(({ nodeId }) => nodeId === 'b').length === 1);
});

test('what was booked for a task that is not stored is free again', async (t) => {
  const { scheduler } = await cluster(t, 1);
  const { spec } = aService(1);
  const nodeOf = (id: string) =>
    scheduler.placeNew(spec, [{ ...aTask('s', { nodeId: '', state: 'pending' }), id }])[0]?.nodeId;

  assert.equal(nodeOf('lost'), 'a');
  assert.equal(nodeOf('too many'), '');
  scheduler.settle(['lost']);
  assert.equal(nodeOf('next'), 'a');
});

test('what the scheduler has booked stays booked while the making of the same tasks is settled', async (t) => {
  const log = new MemoryLog();
  const { store, scheduler } = await cluster(t, 1, log);
  store.subscribe(({ events }) => {
    log.isHeld ||= events.some(({ kind, action }) => kind === 'task' && action === 'created');
  });
  const service = aService(1);
  await store.update((tx) => {
    const everywhere = { ...service, spec: { ...service.spec, mode: { global: {} } } };
    tx.create('service', everywhere);
    createRevision(tx, everywhere, undefined);
  });
  // The loop that has made the task goes on; what the scheduler decided is on its way.
  await delay(10);

  const [other] = scheduler.placeNew(service.spec, [aTask('other', { nodeId: '', state: 'pending' })]);

  assert.equal(other?.nodeId, '');
  log.release();
  await eventually(() => store.view.tasksOfService('s')[0]?.status.state === 'assigned');
});

test('who waits already comes first', async (t) => {
  const { store, scheduler } = await cluster(t, 1);
  const { spec } = aService(1);
  const place = () => scheduler.placeNew(spec, [aTask('s', { nodeId: '', state: 'pending' })])[0]?.nodeId;
  let whileOneWaits: string | undefined;
  store.subscribe(() => {
    whileOneWaits ??= place();
  });

  await store.update((tx) => tx.create('task', aTask('other', { nodeId: '', state: 'pending' })));

  assert.equal(whileOneWaits, '');
  await eventually(() => place() === 'a');
});
