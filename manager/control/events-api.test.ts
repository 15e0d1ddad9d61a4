// What watchers are told of changes, where they go on, and what becomes of those that do not read.

import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { FakeClock } from '../../core/clock.ts';
import type { Service, Task } from '../../core/generated/objects.ts';
import type { ClusterEvent, WatchEventsRequest } from '../../proto/generated/control.ts';
import { aNode, aServiceObject, aTask } from '../../test/support/builders.ts';
import { eventually } from '../../test/support/eventually.ts';
import { MemoryLog } from '../../test/support/memory-log.ts';
import { Store } from '../store/store.ts';
import { watchEvents } from './events-api.ts';

const clock = new FakeClock();

async function openStore(): Promise<Store> {
  const store = new Store(new MemoryLog(), clock);
  await store.open();
  return store;
}

/** All that is told from now on. */
async function watching(t: TestContext, store: Store, request: Partial<WatchEventsRequest> = {}) {
  const stop = new AbortController();
  t.after(() => stop.abort());
  const events: ClusterEvent[] = [];
  const stream = watchEvents({ store, clock }, { kinds: [], ...request }, stop.signal)[
    Symbol.asyncIterator
  ]();
  const first = await stream.next();
  assert.deepEqual(first.value.events, []);
  const reading = (async () => {
    for (let next = await stream.next(); !next.done; next = await stream.next())
      events.push(...next.value.events);
  })();
  reading.catch(() => {});
  return { events, reading };
}

const textOf = ({ kind, action, attributes }: ClusterEvent) =>
  `${kind} ${action} ${Object.entries(attributes)
    .map(([key, value]) => `${key}=${value}`)
    .join(' ')}`;

test('what is created, changed and removed is told, with what has changed, and nothing else', async (t) => {
  const store = await openStore();
  const { events } = await watching(t, store);
  const web = aServiceObject('web', 2);
  const task = aTask('web', { nodeId: 'n1', state: 'assigned' });
  await store.update((tx) => tx.create('node', aNode('n1')));
  await store.update((tx) => tx.create('service', web));
  await store.update((tx) => tx.create('task', task));
  const change = (edit: (service: Service) => Service) =>
    store.update((tx) => tx.update('service', edit(tx.view.service.get('web') as Service)));
  await change((service) => ({ ...service, virtualAddresses: [{ networkId: 'x', address: '10.0.0.2' }] }));
  await change((service) => ({
    ...service,
    spec: { ...service.spec, mode: { replicated: { replicas: 5 } } },
  }));
  await change((service) => ({ ...service, spec: { ...service.spec, labels: { a: 'b' } } }));
  const fail = (current: Task): Task => ({
    ...current,
    status: { ...current.status, state: 'failed', error: 'task: non-zero exit (1)' },
  });
  await store.update((tx) => tx.update('task', fail(tx.view.task.get(task.id) as Task)));
  await store.update((tx) => tx.update('node', aNode('n1', { availability: 'drain', state: 'down' })));
  await store.update((tx) => tx.delete('service', 'web'));

  await eventually(() => events.some(({ action }) => action === 'remove'));
  assert.deepEqual(events.map(textOf), [
    'node create name=n1',
    'service create name=web',
    'task create name=web.1 service=web node=n1',
    'service update name=web replicas.old=2 replicas.new=5',
    'service update name=web',
    'task update name=web.1 service=web node=n1 error=task: non-zero exit (1) state.old=assigned state.new=failed',
    'node update name=n1 state.old=ready state.new=down availability.old=active availability.new=drain',
    'service remove name=web',
  ]);
  assert.ok(events.every(({ timeMs }) => timeMs === clock.nowMs()));
});

test('only the types that were asked for are told, and unknown ones are refused', async (t) => {
  const store = await openStore();
  const { events } = await watching(t, store, { kinds: ['service'] });
  await store.update((tx) => tx.create('node', aNode('n1')));
  await store.update((tx) => tx.create('service', aServiceObject('web', 1)));
  await eventually(() => events.length > 0);
  assert.deepEqual(events.map(textOf), ['service create name=web']);
  await assert.rejects(
    async () => watching(t, store, { kinds: ['volume'] }),
    /type: "volume" must be one of service, node, task, network, secret, config/,
  );
});

test('who comes back hears what came meanwhile', async (t) => {
  const store = await openStore();
  await store.update((tx) => tx.create('service', aServiceObject('first', 1)));
  const after = store.index;
  await store.update((tx) => tx.create('service', aServiceObject('second', 1)));
  const { events } = await watching(t, store, { after });
  await store.update((tx) => tx.create('service', aServiceObject('third', 1)));
  await eventually(() => events.length === 2);
  assert.deepEqual(
    events.map(({ attributes }) => attributes['name']),
    ['second', 'third'],
  );
});

test('who does not read is cut off and told, and nobody else is', async (t) => {
  const store = await openStore();
  const { events } = await watching(t, store, { kinds: ['service'] });
  const stop = new AbortController();
  t.after(() => stop.abort());
  const slow = watchEvents({ store, clock }, { kinds: [] }, stop.signal)[Symbol.asyncIterator]();
  await slow.next();
  for (let version = 0; version < 12_000; version++)
    await store.update((tx) =>
      version === 0
        ? tx.create('node', aNode('n1'))
        : tx.update('node', aNode('n1', { state: version % 2 === 0 ? 'ready' : 'suspect' })),
    );
  await assert.rejects(
    async () => {
      for (let next = await slow.next(); !next.done; ) next = await slow.next();
    },
    { code: 'resource-exhausted', message: /too slow/ },
  );
  await store.update((tx) => tx.create('service', aServiceObject('web', 1)));
  await eventually(() => events.length === 1);
});
