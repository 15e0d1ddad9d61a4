// Managers over a real etcd: what followers see, who leads, and what is left when connections, leaders and etcd fail.

import assert from 'node:assert/strict';
import { after, before, describe, type TestContext, test } from 'node:test';
import { systemClock } from '../../node/system-clock.ts';
import { ChangeCodec } from '../../proto/generated/log.ts';
import { decode } from '../../proto/wire.ts';
import { setLogLevel } from '../../rpc/logger.ts';
import { aNode } from '../../test/support/builders.ts';
import { LEASE_SECONDS, newEtcdLog, startEtcdManager, TEST_TIMING } from '../../test/support/etcd-cluster.ts';
import { eventually } from '../../test/support/eventually.ts';
import { missingForEtcd, RealEtcd } from '../../test/support/real-etcd.ts';
import { aService } from '../../test/support/store-contract.ts';
import { TcpProxy } from '../../test/support/tcp-proxy.ts';
import { NotLeaderError } from '../store/replicated-log.ts';
import { type Commit, Store } from '../store/store.ts';
import type { Transaction } from '../store/transaction.ts';
import { EtcdClient } from './etcd-client.ts';
import { Keys } from './keys.ts';
import { Replica } from './replica.ts';
import type { EtcdSettings } from './settings.ts';
import { Writer } from './writer.ts';

setLogLevel('silent');

const create = (id: string) => (tx: Transaction) => tx.create('service', aService(id));
const bump = (id: string) => (tx: Transaction) => {
  const service = tx.get('service', id) ?? aService(id);
  tx.update('service', { ...service, specVersion: service.specVersion + 1 });
};
const inWords = (commits: readonly Commit[]) =>
  commits.map(({ index, events }) => [
    index,
    ...events.map(({ action, object, previous }) => [action, object, previous?.meta.version]),
  ]);

function commitsOf(store: Store): Commit[] {
  const commits: Commit[] = [];
  store.subscribe((commit) => commits.push(commit));
  return commits;
}

describe('managers over etcd', { skip: missingForEtcd }, () => {
  let etcd: RealEtcd;
  let prefixes = 0;
  before(async () => {
    etcd = await RealEtcd.start();
  });
  after(() => etcd?.[Symbol.asyncDispose]());

  const aPrefix = () => etcd.settings({ prefix: `/cluster-${++prefixes}` });
  /** The same etcd by a way that can be cut. */
  const throughProxy = async (t: TestContext, settings: EtcdSettings) => {
    const proxy = await TcpProxy.open(Number(new URL(etcd.hosts[0] ?? '').port));
    t.after(() => proxy[Symbol.asyncDispose]());
    return { proxy, settings: { ...settings, hosts: [`http://127.0.0.1:${proxy.port}`] } };
  };
  const start = async (t: TestContext, ...args: Parameters<typeof startEtcdManager>) => {
    const manager = await startEtcdManager(...args);
    t.after(() => manager[Symbol.asyncDispose]());
    return manager;
  };

  test('a follower sees the same commits as the leader, also of entries that shared a transaction', async (t) => {
    const settings = aPrefix();
    const [leader, follower] = [await start(t, settings, 'n1'), await start(t, settings, 'n2')];
    const [ledger, copy] = [commitsOf(leader.store), commitsOf(follower.store)];

    await leader.store.update((tx) => {
      for (const id of 'abc') create(id)(tx);
    });
    await Promise.all(
      Array.from({ length: 20 }, (_, turn) => leader.store.update(bump('abc'[turn % 3] ?? ''))),
    );
    await Promise.all([
      leader.store.update((tx) => tx.delete('service', 'a')),
      leader.store.update(create('d')),
      leader.store.update((tx) => tx.delete('service', 'b')),
    ]);
    await Promise.all([
      leader.store.update(create('e')),
      leader.store.update((tx) => tx.delete('service', 'd')),
    ]);
    await follower.log.readBarrier();

    assert.deepEqual(inWords(copy), inWords(ledger));
    assert.equal(follower.store.index, leader.store.index);
    assert.deepEqual([...follower.store.view.service.values()], [...leader.store.view.service.values()]);
  });

  test('the objects lie readable under their own keys, and go with them', async (t) => {
    const settings = aPrefix();
    const { store } = await start(t, settings, 'n1');
    await Promise.all([store.update(create('a')), store.update(create('b'))]);
    await store.update((tx) => tx.delete('service', 'b'));

    const values = await etcd.client.getAll().prefix(`${settings.prefix}/objects/`).buffers();

    assert.deepEqual(Object.keys(values), [`${settings.prefix}/objects/service/a`]);
    const record = decode(ChangeCodec, values[`${settings.prefix}/objects/service/a`] ?? Buffer.of());
    assert.deepEqual(record.service, store.view.service.get('a'));
  });

  test('only the leader writes, and a manager that is not says who does', async (t) => {
    const settings = aPrefix();
    await start(t, settings, 'n1');
    const { store } = await start(t, settings, 'n2');

    await assert.rejects(
      store.update(create('a')),
      (error) => error instanceof NotLeaderError && error.leaderAddress === 'n1:2377',
    );
  });

  test('a manager that begins later has everything, and one that stops gives leadership away at once', async (t) => {
    const settings = aPrefix();
    const first = await start(t, settings, 'n1');
    await first.store.batch(Array.from({ length: 700 }, (_, number) => create(`s${number}`)));

    const second = await start(t, settings, 'n2');
    assert.equal(second.store.view.service.size, 700);
    const stoppedMs = performance.now();
    await first[Symbol.asyncDispose]();
    await eventually(() => second.log.leadership.isLeader);

    assert.ok(performance.now() - stoppedMs < 1_000);
    await second.store.update(bump('s1'));
    assert.equal(second.store.view.service.get('s1')?.specVersion, 2);
  });

  test('an update of a thousand objects is one commit; one of five thousand is refused and harms no other', async (t) => {
    const settings = aPrefix();
    const [leader, follower] = [await start(t, settings, 'n1'), await start(t, settings, 'n2')];
    const copy = commitsOf(follower.store);
    const many = (count: number, name: string) => (tx: Transaction) => {
      for (let number = 0; number < count; number++) tx.create('node', aNode(`${name}${number}`));
    };

    await leader.store.update(many(1_000, 'x'));
    const [small, big, other] = await Promise.allSettled([
      leader.store.update(create('small')),
      leader.store.update(many(5_000, 'y')),
      leader.store.update(create('other')),
    ]);
    await follower.log.readBarrier();

    assert.deepEqual([small?.status, big?.status, other?.status], ['fulfilled', 'rejected', 'fulfilled']);
    assert.equal(big?.status === 'rejected' && big.reason.code, 'resource-exhausted');
    assert.deepEqual(
      copy.map(({ events }) => events.length),
      [1_000, 1, 1],
    );
  });

  test('leadership that is handed over goes to another manager, and to nobody when there is none', async (t) => {
    const settings = aPrefix();
    const first = await start(t, settings, 'n1');
    await assert.rejects(first.log.transferLeadership(), { code: 'failed-precondition' });

    const second = await start(t, settings, 'n2');
    await first.log.transferLeadership();

    assert.deepEqual([first.log.leadership.isLeader, first.log.leadership.leaderAddress], [false, 'n2:2377']);
    await eventually(() => second.log.leadership.isLeader);
    await second.store.update(create('a'));
    await first.log.readBarrier();
    assert.ok(first.store.view.service.get('a') !== undefined);
  });

  test('a leader that is cut off stops believing in itself before another one leads', async (t) => {
    const settings = aPrefix();
    const { proxy, settings: cuttable } = await throughProxy(t, settings);
    const first = await start(t, cuttable, 'n1');
    const second = await start(t, settings, 'n2');
    const log: string[] = [];
    first.log.onLeadership(({ isLeader }) => log.push(`first ${isLeader}`));
    second.log.onLeadership(({ isLeader }) => isLeader && log.push('second true'));

    proxy.stall();
    const pending = first.store.update(create('lost'));
    await assert.rejects(pending, { code: 'unavailable' });
    await assert.rejects(first.store.update(create('lost too')), NotLeaderError);
    await eventually(() => second.log.leadership.isLeader, LEASE_SECONDS * 4_000);
    await second.store.update(create('kept'));
    proxy.heal();
    proxy.cut();
    proxy.heal();
    await eventually(() => first.store.view.service.get('kept') !== undefined, 10_000);

    assert.deepEqual(log.slice(0, 2), ['first false', 'second true']);
    assert.deepEqual([...first.store.view.service.values()], [...second.store.view.service.values()]);
  });

  test('a leader that slept through the end of its term can write nothing', async (t) => {
    const settings = aPrefix();
    const current = await start(t, settings, 'n1');
    await current.store.update(create('a'));
    const keys = new Keys(settings.prefix);
    const client = new EtcdClient(settings, systemClock);
    t.after(() => client.close());
    const commit = await etcd.client.kv.range({ key: keys.commit });
    const { term } = current.log.leadership;
    const revision = Number(commit.kvs[0]?.mod_revision);
    // It believes in the term before and knows the last commit; or is of this term and has missed a commit.
    for (const belief of [
      { term: term - 1, revision },
      { term, revision: revision - 1 },
    ]) {
      let hasSteppedDown = false;
      const asleep = new Writer({
        client,
        keys,
        replica: new Replica(new Store(current.log, systemClock), systemClock),
        defer: setImmediate,
        notLeader: () => new NotLeaderError(undefined),
        stepDown: () => {
          hasSteppedDown = true;
        },
        observe: () => {},
      });
      asleep.lead(belief.term, belief.revision, new AbortController().signal);

      await assert.rejects(asleep.propose(Buffer.alloc(0)), NotLeaderError);

      assert.ok(hasSteppedDown);
      const now = await etcd.client.kv.range({ key: keys.commit });
      assert.equal(now.kvs[0]?.mod_revision, commit.kvs[0]?.mod_revision);
    }
  });

  test('a follower that was cut off goes on where it was; after compaction it reads everything again', async (t) => {
    const settings = aPrefix();
    const leader = await start(t, settings, 'n1');
    const { proxy, settings: cuttable } = await throughProxy(t, settings);
    const follower = await start(t, cuttable, 'n2');
    const copy = commitsOf(follower.store);
    await leader.store.update(create('a'));
    await follower.log.readBarrier();

    proxy.cut();
    await leader.store.update(create('b'));
    await leader.store.update(create('c'));
    proxy.heal();
    await eventually(() => follower.store.index === leader.store.index);
    assert.deepEqual(
      copy.map(({ index }) => index),
      [1, 2, 3],
    );

    proxy.cut();
    for (let turn = 0; turn < 5; turn++) await leader.store.update(bump('a'));
    await leader.store.update((tx) => tx.delete('service', 'c'));
    const { header } = await etcd.client.kv.range({ key: Buffer.from('x') });
    await etcd.client.kv.compact({ revision: header.revision });
    const watching = follower.store
      .watch(new AbortController().signal, { select: (commit) => commit })
      [Symbol.asyncIterator]();
    proxy.heal();
    await eventually(() => follower.store.index === leader.store.index);

    await assert.rejects(watching.next(), { code: 'resource-exhausted' });
    assert.deepEqual([...follower.store.view.service.values()], [...leader.store.view.service.values()]);
    await leader.store.update(create('d'));
    await eventually(() => follower.store.view.service.get('d') !== undefined);
    assert.deepEqual(
      copy.map(({ index }) => index),
      [1, 2, 3, leader.store.index],
    );
  });

  test('the leader discards history after a while', async (t) => {
    const settings = { ...aPrefix(), compaction: 'on' as const };
    const { store } = await start(t, settings, 'n1', {
      timing: { ...TEST_TIMING, historyMs: 100 },
    });
    const { header } = await etcd.client.kv.range({ key: Buffer.from('x') });
    await store.update(create('a'));
    await store.update(create('b'));

    await eventually(() =>
      etcd.client.kv.range({ key: Buffer.from('x'), revision: header.revision }).then(
        () => false,
        (error: Error) => error.message.includes('compacted'),
      ),
    );
  });

  test('a manager of a node follows its own earlier life without waiting for the lease', async (t) => {
    const settings = aPrefix();
    const { proxy, settings: cuttable } = await throughProxy(t, settings);
    const first = await start(t, cuttable, 'n1');
    await first.store.update(create('a'));
    proxy.cut();

    const startedMs = performance.now();
    const second = await start(t, settings, 'n1');

    assert.ok(second.log.leadership.isLeader);
    assert.ok(performance.now() - startedMs < 1_000);
    assert.ok(second.log.leadership.term > first.log.leadership.term);
  });

  test('a manager refuses an etcd that does not hold its cluster, and ends when it is emptied', async (t) => {
    const settings = aPrefix();
    const fatal = Promise.withResolvers<unknown>();
    const first = await start(t, settings, 'n1', { onFatal: fatal.resolve });
    await first.store.update(create('a'));
    const other = await newEtcdLog(settings, 'n2', { clusterId: 'another' });
    t.after(() => other[Symbol.asyncDispose]());
    await assert.rejects(new Store(other, systemClock).open(), { code: 'failed-precondition' });

    await etcd.client.delete().prefix(settings.prefix);

    assert.match(String(await fatal.promise), /nothing of cluster/);
    await assert.rejects(first.store.update(create('b')));
  });
});
