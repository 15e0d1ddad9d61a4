// What the store promises, whichever log stands behind it: run by its own tests on every log there is.

import assert from 'node:assert/strict';
import { describe, type TestContext, test } from 'node:test';
import { defined } from '../../core/assert.ts';
import { newServiceSpec } from '../../core/defaults.ts';
import { emptyMeta, type Service } from '../../core/generated/objects.ts';
import type {
  ApplyResult,
  Leadership,
  ObjectStateMachine,
  ReplicatedLog,
} from '../../manager/store/replicated-log.ts';
import { type Commit, Store } from '../../manager/store/store.ts';
import { systemClock } from '../../node/system-clock.ts';

export interface StoreSubject {
  readonly name: string;
  /** Why it cannot be tested here. */
  readonly skip?: string | false;
  /** A log of its own for one test, which leads once it is open. */
  readonly newLog: (t: TestContext) => Promise<ReplicatedLog>;
}

/** Holds proposals back until released, so that they overlap. */
class HeldLog implements ReplicatedLog {
  readonly #log: ReplicatedLog;
  #held: (() => void)[] | undefined;

  constructor(log: ReplicatedLog) {
    this.#log = log;
  }

  get leadership(): Leadership {
    return this.#log.leadership;
  }

  get appliedIndex(): number {
    return this.#log.appliedIndex;
  }

  get payloadBytesMax(): number {
    return this.#log.payloadBytesMax ?? Number.POSITIVE_INFINITY;
  }

  hold(): void {
    this.#held = [];
  }

  release(): void {
    const held = this.#held ?? [];
    this.#held = undefined;
    for (const propose of held) propose();
  }

  open(machine: ObjectStateMachine): Promise<void> {
    return this.#log.open(machine);
  }

  propose(payload: Uint8Array): Promise<ApplyResult> {
    if (this.#held === undefined) return this.#log.propose(payload);
    const { promise, resolve } = Promise.withResolvers<ApplyResult>();
    this.#held.push(() => resolve(this.#log.propose(payload)));
    return promise;
  }

  readBarrier(): Promise<void> {
    return this.#log.readBarrier();
  }

  onLeadership(listener: (leadership: Leadership) => void): () => void {
    return this.#log.onLeadership(listener);
  }

  transferLeadership(): Promise<void> {
    return this.#log.transferLeadership();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#log[Symbol.asyncDispose]();
  }
}

async function* inChunks(records: readonly Uint8Array[]): AsyncIterable<Uint8Array[]> {
  for (const record of records) yield [Buffer.from(record)];
}

export function aService(id: string, name = id): Service {
  return {
    id,
    meta: emptyMeta,
    spec: newServiceSpec(name, { image: 'busybox' }),
    specVersion: 1,
    previousSpecVersion: 0,
    virtualAddresses: [],
    ports: [],
  };
}

const whole = (commit: Commit): Commit => commit;

export function describeStore({ name, skip = false, newLog }: StoreSubject): void {
  const aStore = async (t: TestContext): Promise<{ store: Store; log: HeldLog }> => {
    const log = new HeldLog(await newLog(t));
    t.after(() => log[Symbol.asyncDispose]());
    // Time stands still while it decides: what a batch is divided into is not for a slow machine to say.
    const store = new Store(log, { ...systemClock, elapsedMs: () => 0 });
    await store.open();
    return { store, log };
  };

  describe(`a store on ${name}`, { skip }, () => {
    test('an object carries the index of the entry that last changed it, and its times', async (t) => {
      const { store } = await aStore(t);
      const before = store.index;
      await store.update((tx) => tx.create('service', aService('a')));
      await store.update((tx) => tx.create('service', aService('b')));
      await store.update((tx) => tx.update('service', { ...aService('a'), specVersion: 2 }));

      assert.equal(store.view.service.get('a')?.meta.version, before + 3);
      assert.equal(store.view.service.get('b')?.meta.version, before + 2);
      assert.ok((store.view.service.get('a')?.meta.createdAtMs ?? 0) > 0);
    });

    test('what rests on an object that somebody changes or removes meanwhile is decided again', async (t) => {
      for (const change of ['update', 'delete'] as const) {
        const { store, log } = await aStore(t);
        await store.update((tx) => tx.create('service', aService('a')));
        const seen: (number | undefined)[] = [];
        log.hold();
        const changing = store.update((tx) => {
          if (change === 'delete') tx.delete('service', 'a');
          else tx.update('service', { ...aService('a'), specVersion: 2 });
        });
        const resting = store.update((tx) => {
          const service = tx.get('service', 'a');
          seen.push(service?.specVersion);
          if (service === undefined) return;
          tx.expect('service', 'a');
          tx.create('service', aService('b'));
        });
        log.release();
        await Promise.all([resting, changing]);

        assert.deepEqual(seen, [1, change === 'delete' ? undefined : 2]);
        assert.equal(store.view.service.get('b') !== undefined, change === 'update');
      }
    });

    test('a transaction that throws stores nothing', async (t) => {
      const { store } = await aStore(t);
      const before = store.index;
      await assert.rejects(
        store.update((tx) => {
          tx.create('service', aService('a'));
          throw new Error('changed my mind');
        }),
        /changed my mind/,
      );
      assert.equal(store.view.service.size, 0);
      assert.equal(store.index, before);
    });

    test('two writers of one object both succeed, the second on top of the first', async (t) => {
      const { store, log } = await aStore(t);
      await store.update((tx) => tx.create('service', aService('a')));
      log.hold();
      const bump = () =>
        store.update((tx) => {
          const service = tx.view.service.get('a') as Service;
          tx.update('service', { ...service, specVersion: service.specVersion + 1 });
        });

      const both = Promise.all([bump(), bump()]);
      log.release();
      await both;

      assert.equal(store.view.service.get('a')?.specVersion, 3);
    });

    test('a writer that names an old version is refused as out of sequence', async (t) => {
      const { store } = await aStore(t);
      await store.update((tx) => tx.create('service', aService('a')));
      const version = store.view.service.get('a')?.meta.version ?? 0;
      await store.update((tx) => tx.update('service', aService('a'), version));

      await assert.rejects(
        store.update((tx) => tx.update('service', aService('a'), version)),
        { code: 'out-of-sequence' },
      );
    });

    test('a write that gives one name to two services is refused as a whole', async (t) => {
      const { store } = await aStore(t);

      await assert.rejects(
        store.update((tx) => {
          tx.create('service', aService('a', 'web'));
          tx.create('service', aService('b', 'web'));
        }),
        /name of service web is wanted twice/,
      );

      assert.equal(store.view.service.size, 0);
    });

    test('of two services created at once under one name only one is stored', async (t) => {
      const { store, log } = await aStore(t);
      log.hold();
      const create = (id: string) =>
        store.update((tx) => {
          if (tx.view.byName('service', 'web') !== undefined) throw new Error('name is taken');
          tx.create('service', aService(id, 'web'));
        });

      const outcomes = Promise.allSettled([create('a'), create('b')]);
      log.release();

      assert.deepEqual(
        (await outcomes).map(({ status }) => status),
        ['fulfilled', 'rejected'],
      );
      assert.equal(store.view.service.size, 1);
    });

    test('a watch resumes where another ended, and says so when that is too long ago', async (t) => {
      const { store } = await aStore(t);
      const create = (id: string) => store.update((tx) => tx.create('service', aService(id)));
      await create('a');
      const seen = store.index;
      for (const id of ['b', 'c']) await create(id);
      const stop = new AbortController();
      const resumed = store.watch(stop.signal, { select: whole, after: seen });
      await create('d');
      stop.abort();

      const ids: string[] = [];
      for await (const { events } of resumed) ids.push(...events.map(({ object }) => object.id));
      assert.deepEqual(ids, ['b', 'c', 'd']);

      for (let count = 0; count < 2_000; count++)
        await store.update((tx) => {
          const service = defined(tx.get('service', 'a'), 'service a');
          tx.update('service', { ...service, specVersion: service.specVersion + 1 });
        });
      const late = store
        .watch(new AbortController().signal, { select: whole, after: seen })
        [Symbol.asyncIterator]();
      await assert.rejects(late.next(), { code: 'resource-exhausted', message: /not kept any more/ });
    });

    test('a watch holds for its reader what was selected, and nothing else', async (t) => {
      const { store } = await aStore(t);
      await store.update((tx) => tx.create('service', aService('a0')));
      const seen = store.index;
      const stop = new AbortController();
      const select = ({ events }: Commit) => {
        const ids = events.map(({ object }) => object.id).filter((id) => id.startsWith('a'));
        return ids.length > 0 ? ids : undefined;
      };
      for (const id of ['a1', 'b1']) await store.update((tx) => tx.create('service', aService(id)));
      const selected = store.watch(stop.signal, { select, after: seen });
      for (const id of ['b2', 'a2']) await store.update((tx) => tx.create('service', aService(id)));
      stop.abort();

      const ids: string[][] = [];
      for await (const each of selected) ids.push(each);
      assert.deepEqual(ids, [['a1'], ['a2']]);
    });

    test('a watch has every change after its snapshot, in order and once', async (t) => {
      const { store } = await aStore(t);
      await store.update((tx) => tx.create('service', aService('before')));
      const before = store.index;
      const stop = new AbortController();
      const commits = store.watch(stop.signal, { select: whole });
      const names = [...store.view.service.values()].map(({ id }) => id);

      for (const id of ['x', 'y', 'z']) await store.update((tx) => tx.create('service', aService(id)));
      await store.update((tx) => tx.delete('service', 'x'));
      stop.abort();

      const seen: Commit[] = [];
      for await (const commit of commits) seen.push(commit);
      assert.deepEqual(names, ['before']);
      assert.deepEqual(
        seen.map(({ index, events }) => [index - before, events[0]?.action, events[0]?.object.id]),
        [
          [1, 'created', 'x'],
          [2, 'created', 'y'],
          [3, 'created', 'z'],
          [4, 'removed', 'x'],
        ],
      );
    });

    test('a batch larger than one entry is split, and every step is applied once', async (t) => {
      const { store } = await aStore(t);
      const before = store.index;
      const steps = Array.from(
        { length: 1_200 },
        (_, index) => (tx: Parameters<Parameters<Store['update']>[0]>[0]) =>
          tx.create('service', aService(`s${index}`)),
      );
      await store.batch(steps);

      assert.equal(store.view.service.size, 1_200);
      assert.equal(store.index, before + 3);
    });

    test('an entry above the size limit is refused with its size', async (t) => {
      const { store } = await aStore(t);
      const huge = aService('a');
      const labels = { note: 'x'.repeat(2 * 2 ** 20) };
      await assert.rejects(
        store.update((tx) => tx.create('service', { ...huge, spec: { ...huge.spec, labels } })),
        { code: 'resource-exhausted' },
      );
    });

    test('a snapshot restores an equal store and does not see later changes', async (t) => {
      const { store } = await aStore(t);
      await store.update((tx) => tx.create('service', aService('a')));
      const snapshot = store.snapshot();
      await store.update((tx) => tx.create('service', aService('b')));

      const { store: other } = await aStore(t);
      await other.restore(1, inChunks([...snapshot]));

      assert.deepEqual([...other.view.service.values()], [store.view.service.get('a')]);
      assert.equal(other.view.byName('service', 'A')?.id, 'a');
    });

    test('a batch of big objects takes as many entries as it needs', async (t) => {
      const { store } = await aStore(t);
      const big = (id: string): Service => ({
        ...aService(id),
        spec: newServiceSpec(id, { image: 'busybox', args: ['x'.repeat(500_000)] }),
      });

      await store.batch(['a', 'b', 'c', 'd', 'e'].map((id) => (tx) => tx.create('service', big(id))));

      assert.equal(store.view.service.size, 5);
    });

    test('what is too big by itself is refused, and named', async (t) => {
      const { store } = await aStore(t);
      const huge = { ...aService('a'), spec: newServiceSpec('a', { image: 'b', args: ['x'.repeat(2e6)] }) };

      await assert.rejects(store.batch([(tx) => tx.create('service', huge)]), { code: 'resource-exhausted' });
    });
  });
}
