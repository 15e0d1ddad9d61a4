import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { systemClock } from '../../node/system-clock.ts';
import { EtcdCommitCodec } from '../../proto/generated/etcd.ts';
import { type Change, emptyChange, LogEntryCodec } from '../../proto/generated/log.ts';
import { decode, encode } from '../../proto/wire.ts';
import { MemoryLog } from '../../test/support/memory-log.ts';
import { plainCommit } from '../../test/support/plain-commit.ts';
import { aService } from '../../test/support/store-contract.ts';
import { type Commit, Store } from '../store/store.ts';
import { payloadsOf, planCommit } from './commit-record.ts';
import { NESTED_OPERATIONS_MAX, transaction } from './keys.ts';

/** A change of one of a few services, with guards that hold often and names that collide sometimes. */
const aChange: fc.Arbitrary<Change> = fc
  .record({
    id: fc.constantFrom('a', 'b', 'c'),
    name: fc.constantFrom('web', 'Web', 'db', 'api'),
    expectedVersion: fc.nat({ max: 6 }),
    isDelete: fc.boolean(),
  })
  .map(({ id, name, expectedVersion, isDelete }) => ({
    ...emptyChange,
    kind: 'service',
    id,
    expectedVersion,
    ...(!(isDelete && expectedVersion > 0) && { service: aService(id, name) }),
  }));
const anEntry = fc
  .uniqueArray(aChange, { selector: ({ id }) => id, minLength: 1, maxLength: 3 })
  .map((changes) => encode(LogEntryCodec, { timeMs: 1_000, changes, guards: [] }));

function aStore(): { store: Store; commits: Commit[] } {
  const store = new Store(new MemoryLog(), systemClock);
  const commits: Commit[] = [];
  store.subscribe((commit) => commits.push(commit));
  return { store, commits };
}

test('a commit and its objects say the same as the entries that they were made from', () => {
  fc.assert(
    fc.property(fc.array(fc.array(anEntry, { minLength: 1, maxLength: 6 }), { maxLength: 6 }), (batches) => {
      const [leader, follower] = [aStore(), aStore()];
      const stored = new Map<string, Uint8Array>();
      let index = 0;
      for (const batch of batches) {
        const plan = planCommit(leader.store, { index, term: 1 }, batch);
        const results = batch.map((payload, offset) => leader.store.apply(index + offset + 1, payload));
        assert.deepEqual(plan.results, results);
        index += batch.length;
        assert.equal(plan.index, index);

        for (const { kind, id, record } of plan.objects)
          if (record === undefined) stored.delete(`${kind}/${id}`);
          else stored.set(`${kind}/${id}`, record);
        const commit = decode(EtcdCommitCodec, plan.commit);
        for (const { index: at, payload } of payloadsOf(commit, (name) => stored.get(name)))
          follower.store.apply(at, payload);
      }

      assert.deepEqual(follower.commits.map(plainCommit), leader.commits.map(plainCommit));
      assert.deepEqual(
        [...stored.values()].map(String).sort(),
        [...leader.store.snapshot()].map(String).sort(),
      );
    }),
    { numRuns: 500 },
  );
});

test('objects that are stored beside a commit are not in it as well', () => {
  const { store } = aStore();
  const service = { ...aService('a'), spec: { ...aService('a').spec, labels: { note: 'x'.repeat(10_000) } } };
  const change = { ...emptyChange, kind: 'service', id: 'a', service };

  const plan = planCommit(store, { index: 0, term: 1 }, [
    encode(LogEntryCodec, { timeMs: 1, changes: [change], guards: [] }),
  ]);

  assert.ok((plan.objects[0]?.record?.length ?? 0) > 10_000);
  assert.ok(plan.commit.length < 100);
});

test('a transaction of any size stays within what etcd allows', () => {
  const put = (number: number) => ({ request_put: { key: Buffer.from(String(number)), value: Buffer.of() } });
  for (const count of [1, 128, 129, 252, 253, 1_000, NESTED_OPERATIONS_MAX]) {
    const operations = Array.from({ length: count }, (_, number) => put(number));
    const { success = [] } = transaction([], operations, []);
    const groups = success.map(({ request_txn }) => request_txn?.success ?? []);
    assert.ok(success.length <= 128);
    for (const group of groups) assert.ok(group.length <= 128 - (count > 128 ? success.length : 0));
    assert.deepEqual(count > 128 ? groups.flat() : success, operations);
  }
  assert.throws(
    () =>
      transaction(
        [],
        Array.from({ length: NESTED_OPERATIONS_MAX + 1 }, (_, n) => put(n)),
        [],
      ),
    {
      code: 'resource-exhausted',
    },
  );
});
