// What an operator's etcd does to its clients: it is killed, held up, short of members, strict about who they are.

import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { describe, type TestContext, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import { hasCode } from '../../core/errors.ts';
import { systemClock } from '../../node/system-clock.ts';
import { setLogLevel } from '../../rpc/logger.ts';
import { aManager, LEASE_SECONDS, newEtcdLog, startEtcdManager } from '../../test/support/etcd-cluster.ts';
import { eventually } from '../../test/support/eventually.ts';
import { type EtcdOptions, missingForEtcd, RealEtcd } from '../../test/support/real-etcd.ts';
import { aService } from '../../test/support/store-contract.ts';
import { newIdentities } from '../../test/support/test-authority.ts';
import { Store } from '../store/store.ts';
import { eraseFromEtcd, foundInEtcd } from './cluster-prefix.ts';
import { EtcdLog } from './etcd-log.ts';

setLogLevel('silent');

const run = promisify(execFile);
const CHILD = path.join(import.meta.dirname, '..', '..', 'test', 'support', 'etcd-manager-child.ts');

describe('managers over an etcd in trouble', { skip: missingForEtcd }, () => {
  const anEtcd = async (t: TestContext, options: EtcdOptions = {}) => {
    const etcd = await RealEtcd.start(options);
    t.after(() => etcd[Symbol.asyncDispose]());
    return etcd;
  };
  const start = async (t: TestContext, ...args: Parameters<typeof startEtcdManager>) => {
    const manager = await startEtcdManager(...args);
    t.after(() => manager[Symbol.asyncDispose]());
    return manager;
  };
  const create = (store: Store, id: string) => store.update((tx) => tx.create('service', aService(id)));

  /** Writes until told to stop; remembers what was acknowledged. */
  const writeOn = (stores: readonly Store[], signal: AbortSignal) => {
    const acknowledged: string[] = [];
    const writer = async (name: string) => {
      for (let number = 0; !signal.aborted; number++) {
        const id = `${name}-${number}`;
        try {
          await Promise.any(stores.map((store) => create(store, id)));
          acknowledged.push(id);
        } catch {
          await delay(20);
        }
      }
    };
    return { acknowledged, ended: Promise.all(['x', 'y', 'z'].map(writer)) };
  };

  test('etcd that is killed and started again in the middle of writes loses none that was acknowledged', async (t) => {
    const etcd = await anEtcd(t);
    const settings = etcd.settings();
    const [first, second] = [await start(t, settings, 'n1'), await start(t, settings, 'n2')];
    const stop = new AbortController();
    const { acknowledged, ended } = writeOn([first.store, second.store], stop.signal);

    for (let round = 0; round < 3; round++) {
      const before = acknowledged.length;
      await eventually(() => acknowledged.length > before + 20, 20_000);
      await etcd.kill();
      await delay(300);
      etcd.startAgain();
    }
    const before = acknowledged.length;
    await eventually(() => acknowledged.length > before + 20, 20_000);
    stop.abort();
    await ended;
    await Promise.all([first.log.readBarrier(), second.log.readBarrier()]);

    const fresh = await start(t, settings, 'n3');
    for (const { store } of [first, second, fresh])
      assert.deepEqual(
        acknowledged.filter((id) => store.view.service.get(id) === undefined),
        [],
      );
    const versions = ({ store }: { store: Store }) =>
      [...store.view.service.values()].map(({ id, meta }) => `${id} ${meta.version}`).sort();
    assert.deepEqual(versions(first), versions(fresh));
    assert.deepEqual(versions(second), versions(fresh));
  });

  test('while etcd hangs, writes and reads are answered with a reason in time; when it is back they work', async (t) => {
    const etcd = await anEtcd(t);
    const { log, store } = await start(t, etcd.settings(), 'n1');
    await create(store, 'a');

    etcd.pause();
    const startedMs = performance.now();
    await assert.rejects(create(store, 'b'), { code: 'unavailable' });
    assert.ok(performance.now() - startedMs < LEASE_SECONDS * 1_000 + 500);
    await assert.rejects(create(store, 'c'), { code: 'unavailable' });
    await assert.rejects(log.readBarrier(), { code: 'unavailable' });
    etcd.resume();

    await eventually(() => log.leadership.isLeader, 20_000);
    await create(store, 'd');
    await log.readBarrier();
    assert.ok(store.view.service.get('d') !== undefined);
  });

  test('of three members one may be killed at any time, also the one that is being asked', async (t) => {
    const etcd = await anEtcd(t, { members: 3 });
    const [first, second] = [await start(t, etcd.settings(), 'n1'), await start(t, etcd.settings(), 'n2')];
    const stop = new AbortController();
    const { acknowledged, ended } = writeOn([first.store, second.store], stop.signal);

    for (const member of [0, 1, 2]) {
      const before = acknowledged.length;
      await eventually(() => acknowledged.length > before + 20, 20_000);
      await etcd.kill(member);
      const without = acknowledged.length;
      await eventually(() => acknowledged.length > without + 20, 30_000);
      etcd.startAgain(member);
      await delay(1_000);
    }
    stop.abort();
    await ended;
    await Promise.all([first.log.readBarrier(), second.log.readBarrier()]);

    for (const { store } of [first, second])
      assert.ok(acknowledged.every((id) => store.view.service.get(id) !== undefined));
  });

  test('a leader whose process is held past its lease finds another one in its place', async (t) => {
    const etcd = await anEtcd(t);
    const settings = etcd.settings();
    const child = spawn(process.execPath, [CHILD, JSON.stringify(settings)], {
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    });
    t.after(() => child.kill('SIGKILL'));
    await once(child, 'message');
    const second = await start(t, settings, 'n2');
    assert.equal(second.log.leadership.leaderAddress, 'child:2377');

    child.kill('SIGSTOP');
    child.send({ create: 'too-late' });
    await eventually(() => second.log.leadership.isLeader, LEASE_SECONDS * 4_000);
    await create(second.store, 'in-time');
    child.kill('SIGCONT');
    const [answer] = await once(child, 'message');

    assert.equal((answer as { code: string }).code, 'unavailable');
    await second.log.readBarrier();
    assert.equal(second.store.view.service.get('too-late'), undefined);
    child.kill('SIGKILL');
  });

  test('a leader that is killed is followed when its lease has run out', async (t) => {
    const etcd = await anEtcd(t);
    const settings = etcd.settings();
    const child = spawn(process.execPath, [CHILD, JSON.stringify(settings)], {
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    });
    await once(child, 'message');
    const [second, third] = [await start(t, settings, 'n2'), await start(t, settings, 'n3')];
    child.send({ create: 'a' });
    await once(child, 'message');

    child.kill('SIGKILL');
    await eventually(
      () => second.log.leadership.isLeader || third.log.leadership.isLeader,
      LEASE_SECONDS * 4_000,
    );
    const [leader, follower] = second.log.leadership.isLeader ? [second, third] : [third, second];
    await create(leader.store, 'b');
    await follower.log.readBarrier();

    assert.ok(
      follower.store.view.service.get('a') !== undefined &&
        follower.store.view.service.get('b') !== undefined,
    );
  });

  test('an etcd that wants certificates and a password gets them, and refuses whoever has none', async (t) => {
    const directory = await mkdtemp(path.join(os.tmpdir(), 'tsw-etcd-tls-'));
    t.after(() => rm(directory, { recursive: true }));
    const tls = await certificates(directory);
    const etcd = await anEtcd(t, { tls });
    await etcd.client.user('root').create('secret');
    await etcd.client.role('root').create();
    await etcd.client.user('root').addRole('root');
    const ctl = (...args: string[]) =>
      run(
        'etcdctl',
        [
          '--endpoints',
          etcd.hosts[0] ?? '',
          '--cacert',
          tls.caFile,
          '--cert',
          tls.certFile,
          '--key',
          tls.keyFile,
          ...args,
        ],
        { env: { ...process.env, ETCDCTL_API: '3' } },
      );
    await ctl('auth', 'enable');
    const passwordFile = path.join(directory, 'password');
    writeFileSync(passwordFile, 'secret\n');

    const { store } = await start(t, etcd.settings({ user: 'root', passwordFile }), 'n1');
    await create(store, 'a');
    assert.equal(store.view.service.size, 1);

    writeFileSync(path.join(directory, 'wrong'), 'guess');
    const wrong = etcd.settings({ user: 'root', passwordFile: path.join(directory, 'wrong') });
    await assert.rejects(foundInEtcd(wrong, 'cluster', systemClock), { code: 'permission-denied' });
    const naked = etcd.settings({ certFile: '', keyFile: '', prefix: '/other' });
    await assert.rejects(foundInEtcd(naked, 'cluster', systemClock), /does not answer/);
  });

  test('a prefix belongs to one cluster, and is free again when that has been erased', async (t) => {
    const etcd = await anEtcd(t);
    const settings = etcd.settings();
    await foundInEtcd(settings, 'one', systemClock);
    await foundInEtcd(settings, 'one', systemClock);

    await assert.rejects(
      foundInEtcd(settings, 'two', systemClock),
      /already holds cluster one under \/tsswarm/,
    );
    await eraseFromEtcd(settings, 'two', systemClock);
    await assert.rejects(foundInEtcd(settings, 'two', systemClock), { code: 'failed-precondition' });
    await eraseFromEtcd(settings, 'one', systemClock);
    await foundInEtcd(settings, 'two', systemClock);

    await etcd.client.put('/elsewhere/thing').value('1');
    await assert.rejects(
      foundInEtcd(etcd.settings({ prefix: '/elsewhere' }), 'three', systemClock),
      /something else/,
    );
  });

  test('an etcd that is not there is said so, and a stopping manager does not wait for it', async (t) => {
    const etcd = await anEtcd(t);
    const settings = etcd.settings();
    const log = await newEtcdLog(settings);
    await etcd.kill();

    await assert.rejects(new Store(log, systemClock).open(), (error) => {
      return hasCode(error, 'unavailable') && error.hint?.includes(settings.hosts[0] ?? '') === true;
    });
    await log[Symbol.asyncDispose]();

    const stop = new AbortController();
    const stopped = new EtcdLog({ ...aManager(settings), signal: stop.signal });
    const opening = new Store(stopped, systemClock).open();
    const startedMs = performance.now();
    stop.abort();
    await assert.rejects(opening, /stopping/);
    await stopped[Symbol.asyncDispose]();
    assert.ok(performance.now() - startedMs < 3_000);
  });
});

async function certificates(directory: string) {
  const identity = (await newIdentities(['etcd'], ['127.0.0.1'])).get('etcd');
  const files = {
    caFile: path.join(directory, 'ca.pem'),
    certFile: path.join(directory, 'cert.pem'),
    keyFile: path.join(directory, 'key.pem'),
  };
  writeFileSync(files.caFile, identity?.roots ?? '');
  writeFileSync(files.certFile, identity?.certificate ?? '');
  writeFileSync(files.keyFile, identity?.key ?? '');
  return files;
}
