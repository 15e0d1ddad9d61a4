// Credentials for the registry of a service's image: kept beside its revisions, seen by nobody but the nodes that pull.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { DEFAULT_SPEC_HISTORY_LIMIT } from '../core/defaults.ts';
import { hasCode } from '../core/errors.ts';
import { emptyMeta, emptyNode, type RegistryAuth, type ServiceSpec } from '../core/generated/objects.ts';
import { systemClock } from '../node/system-clock.ts';
import { setLogLevel } from '../rpc/logger.ts';
import { aTask } from '../test/support/builders.ts';
import { aService } from '../test/support/cluster-in-process.ts';
import { eventually } from '../test/support/eventually.ts';
import { MemoryLog } from '../test/support/memory-log.ts';
import { createService, removeService, updateService } from './control/service-api.ts';
import { newTurns } from './control/turns.ts';
import { SessionPayloads } from './dispatcher/session-payloads.ts';
import { runReaperLoop } from './orchestrator/reaper-loop.ts';
import { runServiceLoop } from './orchestrator/service-loop.ts';
import { registryAuthOf } from './store/service-revision.ts';
import { Store } from './store/store.ts';

setLogLevel('silent');

const auth: RegistryAuth = {
  registry: 'registry.example',
  username: 'user',
  password: 'open sesame',
  identityToken: '',
};
const specOf = (image: string): ServiceSpec => aService('web', { container: { image } });

async function aWorld() {
  const store = new Store(new MemoryLog(), systemClock);
  await store.open();
  const options = { store, clock: systemClock, randomBytes, takeTurn: newTurns() };
  const update = async (change: { spec?: ServiceSpec; rollback?: boolean; registryAuth?: RegistryAuth }) => {
    const service = store.view.byName('service', 'web');
    assert.ok(service);
    return updateService(options, {
      serviceId: service.id,
      version: service.specVersion,
      rollback: false,
      ...change,
    });
  };
  const create = (registryAuth?: RegistryAuth) =>
    createService(options, { spec: specOf('registry.example/app:1'), ...(registryAuth && { registryAuth }) });
  const passwords = () => {
    const service = store.view.byName('service', 'web');
    return [...store.view.revision.values()]
      .filter(({ serviceId }) => serviceId === service?.id)
      .sort((a, b) => a.specVersion - b.specVersion)
      .map(({ specVersion, serviceId }) => registryAuthOf(store.view, serviceId, specVersion)?.password);
  };
  return { store, options, create, update, passwords };
}

test('credentials are in no answer, and stay when the service is updated without new ones', async () => {
  const { create, update, passwords } = await aWorld();

  const created = await create(auth);
  const updated = await update({ spec: specOf('registry.example/app:2') });
  await update({ spec: specOf('registry.example/app:3'), registryAuth: { ...auth, password: 'new' } });
  await update({ spec: specOf('registry.example/app:4') });

  assert.ok(!JSON.stringify([created, updated]).includes('open sesame'));
  assert.deepEqual(passwords(), ['open sesame', 'open sesame', 'new', 'new']);
});

test('a rollback brings back the credentials of the previous spec', async () => {
  const { create, update, passwords } = await aWorld();
  await create(auth);
  await update({ spec: specOf('registry.example/app:2'), registryAuth: { ...auth, password: 'wrong' } });

  await update({ rollback: true });

  assert.deepEqual(passwords(), ['open sesame', 'wrong', 'open sesame']);
});

test('credentials are never shown to another registry', async () => {
  const { create, update, passwords, options } = await aWorld();
  await create(auth);

  await update({ spec: specOf('elsewhere.example/app:1') });

  assert.deepEqual(passwords(), ['open sesame', undefined]);
  await assert.rejects(
    createService(options, {
      spec: { ...specOf('elsewhere.example/app:1'), name: 'other' },
      registryAuth: auth,
    }),
    (error) =>
      hasCode(error, 'invalid-argument') &&
      error.message.includes('registry-auth') &&
      !error.message.includes('sesame'),
  );
});

test('a node gets them with its first task of the revision, and is told to forget them with the last', async () => {
  const { store, create, options } = await aWorld();
  const { service } = await create(auth);
  await store.update((tx) => tx.create('node', { ...emptyNode, id: 'n', meta: emptyMeta }));
  const mine = new SessionPayloads('n');
  const others = new SessionPayloads('another');
  assert.deepEqual(mine.complete(store.view)[0]?.payloads, []);
  const task = { ...aTask(service.id, { specVersion: 1, nodeId: 'n', state: 'assigned' }) };
  await store.update((tx) => tx.create('task', task));

  const [sent] = mine.catchUp(store.view);
  assert.equal(sent?.payloads[0]?.id, `${service.id}.1`);
  assert.ok(Buffer.from(sent?.payloads[0]?.data ?? []).includes('open sesame'));
  assert.deepEqual(others.complete(store.view)[0]?.payloads, []);
  assert.deepEqual(mine.catchUp(store.view), []);
  await store.update((tx) => tx.delete('task', task.id));
  assert.deepEqual(mine.catchUp(store.view)[0]?.removedIds, [`${service.id}.1`]);
  await removeService(options.store, 'web');
});

test('credentials are deleted with the last use of their revision', async () => {
  const { store, create, update, options } = await aWorld();
  const stopping = new AbortController();
  const reaper = runReaperLoop({ store, clock: systemClock }, stopping.signal);
  await create(auth);
  for (let tag = 2; tag < 2 * DEFAULT_SPEC_HISTORY_LIMIT; tag++)
    await update({ spec: specOf(`registry.example/app:${tag}`) });

  // Those that an operator can go back to.
  await eventually(() => store.view.payload.size === DEFAULT_SPEC_HISTORY_LIMIT);
  await removeService(options.store, 'web');
  await eventually(() => store.view.payload.size === 0);
  stopping.abort();
  await reaper;
});

test('an update that fails goes back to the previous spec with its credentials', async () => {
  const { store, create, update, passwords } = await aWorld();
  const stopping = new AbortController();
  const loop = runServiceLoop({ store, clock: systemClock, randomBytes }, stopping.signal);
  await create(auth);
  const spec = specOf('registry.example/app:2');
  await update({
    spec: { ...spec, update: { ...spec.update, failureAction: 'rollback' } },
    registryAuth: { ...auth, password: 'wrong' },
  });
  await eventually(async () => {
    const failing = [...store.view.task.values()].find(
      ({ specVersion, status }) => specVersion === 2 && status.state !== 'failed',
    );
    if (failing !== undefined)
      await store.update((tx) => {
        const status = { ...failing.status, state: 'failed' as const, error: 'no' };
        tx.update('task', { ...(tx.view.task.get(failing.id) ?? failing), status });
      });
    const old = [...store.view.task.values()].find(
      ({ specVersion, status, desiredState }) =>
        specVersion === 1 &&
        (desiredState === 'shutdown' ? status.state !== 'shutdown' : status.state === 'new'),
    );
    if (old !== undefined)
      await store.update((tx) => {
        const state = old.desiredState === 'shutdown' ? ('shutdown' as const) : ('running' as const);
        const runningAtMs = systemClock.nowMs();
        tx.update('task', {
          ...(tx.view.task.get(old.id) ?? old),
          status: { ...old.status, state, runningAtMs },
        });
      });
    return store.view.byName('service', 'web')?.specVersion === 3;
  });

  assert.deepEqual(passwords(), ['open sesame', 'wrong', 'open sesame']);
  stopping.abort();
  await loop;
});
