import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FakeClock } from '../../core/clock.ts';
import { newServiceSpec } from '../../core/defaults.ts';
import { emptyMeta, type Service } from '../../core/generated/objects.ts';
import { MemoryLog } from '../../test/support/memory-log.ts';
import { type Commit, Store } from './store.ts';

async function aStore(): Promise<{ store: Store; log: MemoryLog }> {
  const log = new MemoryLog();
  const store = new Store(log, new FakeClock());
  await store.open();
  return { store, log };
}

async function* inChunks(records: readonly Uint8Array[]): AsyncIterable<Uint8Array[]> {
  for (const record of records) yield [Buffer.from(record)];
}

function aService(id: string, name = id): Service {
  return {
    id,
    meta: emptyMeta,
    spec: newServiceSpec(name, { image: 'busybox' }),
    specVersion: 1,
    previousSpecVersion: 0,
  };
}

test('an object carries the index of the entry that last changed it, and its times', async () => {
  const { store } = await aStore();
  await store.update((tx) => tx.create('service', aService('a')));
  await store.update((tx) => tx.create('service', aService('b')));
  await store.update((tx) => tx.update('service', { ...aService('a'), specVersion: 2 }));

  assert.equal(store.view.service.get('a')?.meta.version, 3);
  assert.equal(store.view.service.get('b')?.meta.version, 2);
  assert.ok((store.view.service.get('a')?.meta.createdAtMs ?? 0) > 0);
});

test('a transaction that throws stores nothing', async () => {
  const { store } = await aStore();
  await assert.rejects(
    store.update((tx) => {
      tx.create('service', aService('a'));
      throw new Error('changed my mind');
    }),
    /changed my mind/,
  );
  assert.equal(store.view.service.size, 0);
  assert.equal(store.index, 0);
});

test('two writers of one object both succeed, the second on top of the first', async () => {
  const { store, log } = await aStore();
  await store.update((tx) => tx.create('service', aService('a')));
  log.isHeld = true;
  const bump = () =>
    store.update((tx) => {
      const service = tx.view.service.get('a') as Service;
      tx.update('service', { ...service, specVersion: service.specVersion + 1 });
    });

  const both = Promise.all([bump(), bump()]);
  log.isHeld = false;
  log.release();
  await both;

  assert.equal(store.view.service.get('a')?.specVersion, 3);
});

test('a writer that names an old version is refused as out of sequence', async () => {
  const { store } = await aStore();
  await store.update((tx) => tx.create('service', aService('a')));
  await store.update((tx) => tx.update('service', aService('a'), 1));

  await assert.rejects(
    store.update((tx) => tx.update('service', aService('a'), 1)),
    { code: 'out-of-sequence' },
  );
});

test('of two services created at once under one name only one is stored', async () => {
  const { store, log } = await aStore();
  log.isHeld = true;
  const create = (id: string) =>
    store.update((tx) => {
      if (tx.view.serviceByName('web') !== undefined) throw new Error('name is taken');
      tx.create('service', aService(id, 'web'));
    });

  const outcomes = Promise.allSettled([create('a'), create('b')]);
  log.isHeld = false;
  log.release();

  assert.deepEqual(
    (await outcomes).map(({ status }) => status),
    ['fulfilled', 'rejected'],
  );
  assert.equal(store.view.service.size, 1);
});

test('a watch has every change after its snapshot, in order and once', async () => {
  const { store } = await aStore();
  await store.update((tx) => tx.create('service', aService('before')));
  const stop = new AbortController();
  const commits = store.watch(stop.signal);
  const names = [...store.view.service.values()].map(({ id }) => id);

  for (const id of ['x', 'y', 'z']) await store.update((tx) => tx.create('service', aService(id)));
  await store.update((tx) => tx.delete('service', 'x'));
  stop.abort();

  const seen: Commit[] = [];
  for await (const commit of commits) seen.push(commit);
  assert.deepEqual(names, ['before']);
  assert.deepEqual(
    seen.map(({ index, events }) => [index, events[0]?.action, events[0]?.object.id]),
    [
      [2, 'created', 'x'],
      [3, 'created', 'y'],
      [4, 'created', 'z'],
      [5, 'removed', 'x'],
    ],
  );
});

test('a batch larger than one entry is split, and every step is applied once', async () => {
  const { store } = await aStore();
  const steps = Array.from(
    { length: 450 },
    (_, index) => (tx: Parameters<Parameters<Store['update']>[0]>[0]) =>
      tx.create('service', aService(`s${index}`)),
  );
  await store.batch(steps);

  assert.equal(store.view.service.size, 450);
  assert.equal(store.index, 3);
});

test('an entry above the size limit is refused with its size', async () => {
  const { store } = await aStore();
  const huge = aService('a');
  const labels = { note: 'x'.repeat(2 * 2 ** 20) };
  await assert.rejects(
    store.update((tx) => tx.create('service', { ...huge, spec: { ...huge.spec, labels } })),
    { code: 'resource-exhausted' },
  );
});

test('a snapshot restores an equal store and does not see later changes', async () => {
  const { store } = await aStore();
  await store.update((tx) => tx.create('service', aService('a')));
  const snapshot = store.snapshot();
  await store.update((tx) => tx.create('service', aService('b')));

  const { store: other } = await aStore();
  await other.restore(1, inChunks([...snapshot]));

  assert.deepEqual([...other.view.service.values()], [store.view.service.get('a')]);
  assert.equal(other.view.serviceByName('A')?.id, 'a');
});

test('a batch of big objects takes as many entries as it needs', async () => {
  const { store } = await aStore();
  const big = (id: string): Service => ({
    ...aService(id),
    spec: newServiceSpec(id, { image: 'busybox', args: ['x'.repeat(500_000)] }),
  });

  await store.batch(['a', 'b', 'c', 'd', 'e'].map((id) => (tx) => tx.create('service', big(id))));

  assert.equal(store.view.service.size, 5);
});

test('what is too big by itself is refused, and named', async () => {
  const { store } = await aStore();
  const huge = { ...aService('a'), spec: newServiceSpec('a', { image: 'b', args: ['x'.repeat(2e6)] }) };

  await assert.rejects(store.batch([(tx) => tx.create('service', huge)]), { code: 'resource-exhausted' });
});
