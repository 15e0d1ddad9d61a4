// Drains on a store: what is marked, and when.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FakeClock } from '../../core/clock.ts';
import { emptyMeta, type Task } from '../../core/generated/objects.ts';
import { setLogLevel } from '../../rpc/logger.ts';
import { aNode, aServiceObject, aTask, NOW_MS } from '../../test/support/builders.ts';
import { eventually } from '../../test/support/eventually.ts';
import { MemoryLog } from '../../test/support/memory-log.ts';
import { Store } from '../store/store.ts';
import { runDrainLoop } from './drain-loop.ts';

setLogLevel('silent');

const bare = (task: Task): Task => ({ ...task, meta: emptyMeta });

async function turns(): Promise<void> {
  for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve));
}

async function start(t: { after: (act: () => void) => void }) {
  const clock = new FakeClock(NOW_MS);
  const store = new Store(new MemoryLog(), clock);
  await store.open();
  const stop = new AbortController();
  t.after(() => stop.abort());
  const node = aNode('n1', { availability: 'drain' });
  await store.update((tx) => {
    const spec = { ...node.spec, drainRate: 1, drainDeadlineMs: 600_000 };
    tx.create('node', { ...node, spec, drainStartedAtMs: NOW_MS });
    tx.create(
      'service',
      aServiceObject('s', 3, (spec) => ({ ...spec, update: { ...spec.update, order: 'start-first' } })),
    );
  });
  void runDrainLoop({ store, clock }, stop.signal);
  const marked = () => [...store.view.task.values()].filter(({ eviction }) => eviction !== undefined);
  return { clock, store, marked, stop };
}

test('a task that comes to a drained node afterwards goes as well (B14: moby#42295)', async (t) => {
  const { store, marked } = await start(t);
  await store.update((tx) => tx.create('task', bare(aTask('s', { state: 'assigned' }))));

  await eventually(() => marked().length === 1);
  assert.deepEqual(
    marked().map(({ leavesLast }) => leavesLast),
    [false],
    'it does not serve yet',
  );
});

test('tasks leave one by one, and all at once when the deadline has come', async (t) => {
  const { clock, store, marked } = await start(t);
  await store.update((tx) => {
    for (const slot of [1, 2, 3]) tx.create('task', bare(aTask('s', { slot })));
  });
  await eventually(() => marked().length === 1);
  assert.equal(marked()[0]?.leavesLast, true);
  await eventually(() => clock.nextAtMs === NOW_MS + 600_000);

  clock.advance(600_000);

  await eventually(() => marked().length === 3);
  assert.ok(marked().every(({ leavesLast }) => leavesLast === false));
});

test('the next one leaves when the successor of the one before runs, whichever service that is of', async (t) => {
  const { store, marked } = await start(t);
  const [first, second] = [bare(aTask('s')), bare(aTask('t', { slot: 1 }))];
  await store.update((tx) => {
    tx.create('service', aServiceObject('t', 1));
    for (const task of [first, second]) tx.create('task', task);
  });
  await eventually(() => marked().length === 1);
  const successor = bare(aTask('s', { nodeId: 'n2', state: 'starting' }));
  await store.update((tx) => {
    const task = tx.get('task', first.id) as Task;
    tx.update('task', {
      ...task,
      desiredState: 'shutdown',
      status: { ...task.status, state: 'shutdown' },
    });
    tx.create('task', successor);
  });
  await turns();
  assert.deepEqual(
    marked().map(({ id }) => id),
    [first.id],
  );

  await store.update((tx) =>
    tx.update('task', {
      ...successor,
      status: { ...successor.status, state: 'running', runningAtMs: NOW_MS },
    }),
  );
  await eventually(() => marked().length === 2);
});

test('what has not gone when a drain is taken back stays, under another leader as well', async (t) => {
  for (const isOtherLeader of [false, true]) {
    const { clock, store, marked, stop } = await start(t);
    await store.update((tx) => tx.create('task', bare(aTask('s'))));
    await eventually(() => marked().length === 1);
    assert.equal(marked()[0]?.leavesLast, true);
    if (isOtherLeader) stop.abort();

    await store.update((tx) => tx.update('node', aNode('n1')));
    const other = new AbortController();
    t.after(() => other.abort());
    if (isOtherLeader) void runDrainLoop({ store, clock }, other.signal);
    await eventually(() => marked().length === 0);
    assert.equal([...store.view.task.values()][0]?.leavesLast, undefined);
  }
});
