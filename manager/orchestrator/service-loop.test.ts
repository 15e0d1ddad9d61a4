// The orchestrator's loop on a store: what a plan becomes.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { FakeClock } from '../../core/clock.ts';
import { defaultClusterNetwork, defaultClusterSpec } from '../../core/defaults.ts';
import { emptyClusterSecrets, emptyMeta } from '../../core/generated/objects.ts';
import { isTerminal, isWanted } from '../../core/task-state.ts';
import { setLogLevel } from '../../rpc/logger.ts';
import { aServiceObject, aTask } from '../../test/support/builders.ts';
import { eventually } from '../../test/support/eventually.ts';
import { MemoryLog } from '../../test/support/memory-log.ts';
import { createRevision } from '../store/service-revision.ts';
import { Store } from '../store/store.ts';
import { runReaperLoop } from './reaper-loop.ts';
import { runServiceLoop } from './service-loop.ts';

setLogLevel('silent');
// More than fit into one entry of the log.
const MANY = 20_000;

test('a service of very many replicas is created, scaled down and removed, and holds up no other', async (t) => {
  const clock = new FakeClock();
  const store = new Store(new MemoryLog(), clock);
  await store.open();
  const stop = new AbortController();
  t.after(() => stop.abort());
  void runServiceLoop({ store, clock, randomBytes }, stop.signal);
  void runReaperLoop({ store, clock }, stop.signal);
  const [big, small] = [aServiceObject('big', MANY), aServiceObject('small', 2)];
  const wanted = (id: string) => store.view.tasksOfService(id).filter(isWanted).length;

  for (const service of [big, small])
    await store.update((tx) => {
      tx.create('service', service);
      createRevision(tx, service, undefined);
    });
  await eventually(() => wanted('big') === MANY && wanted('small') === 2);
  const slots = new Set(store.view.tasksOfService('big').map(({ slot }) => slot));
  assert.equal(slots.size, MANY);

  await store.update((tx) => {
    const spec = { ...big.spec, mode: { replicated: { replicas: 1_000 } } };
    tx.update('service', { ...big, spec });
  });
  await eventually(() => wanted('big') === 1_000 && store.view.tasksOfService('big').length === 1_000);

  await store.update((tx) => tx.delete('service', 'big'));
  await eventually(() => store.view.tasksOfService('big').length === 0);
  assert.equal(store.view.revisionsOfService('big').length, 0);
  assert.equal(wanted('small'), 2);
});

test('services are decided while those before them are being written, and none twice when a write fails', async (t) => {
  const clock = new FakeClock();
  const log = new FailingLog();
  const store = new Store(log, clock);
  await store.open();
  const stop = new AbortController();
  t.after(() => stop.abort());
  const ids = Array.from({ length: 12 }, (_, number) => `s${number}`);
  await store.batch(
    ids.map((id) => (tx) => {
      const service = aServiceObject(id, 500);
      tx.create('service', service);
      createRevision(tx, service, undefined);
    }),
  );
  log.isHeld = true;
  log.proposals = 0;
  const loop = runServiceLoop({ store, clock, randomBytes }, stop.signal);
  await setImmediate();
  assert.ok(log.proposals > 1, `${log.proposals} writes at once`);
  assert.ok(log.proposals < ids.length, `${log.proposals} writes at once`);

  log.failures = 2;
  log.release();
  await eventually(() => {
    clock.advance(1_000);
    return ids.every((id) => store.view.tasksOfService(id).length === 500);
  });
  assert.equal(log.failures, 0);
  for (const id of ids) {
    const slots = new Set(store.view.tasksOfService(id).map(({ slot }) => slot));
    assert.equal(slots.size, 500, id);
  }
  stop.abort();
  await loop;
});

/** Counts proposals, and loses as many of the next as it is told. */
class FailingLog extends MemoryLog {
  proposals = 0;
  failures = 0;

  override async propose(payload: Uint8Array): ReturnType<MemoryLog['propose']> {
    this.proposals++;
    if (this.failures > 0) {
      this.failures--;
      throw new Error('not written');
    }
    return super.propose(payload);
  }
}

test('a shorter history is there at once, for services that nothing happens to as well', async (t) => {
  const clock = new FakeClock();
  const store = new Store(new MemoryLog(), clock);
  await store.open();
  const stop = new AbortController();
  t.after(() => stop.abort());
  const service = aServiceObject('s', 1);
  const ended = Array.from({ length: 5 }, (_, index) =>
    aTask('s', { state: 'failed', desired: 'shutdown', specVersion: 5, createdAtMs: index }),
  );
  const cluster = {
    id: 'c',
    meta: emptyMeta,
    spec: defaultClusterSpec,
    secrets: emptyClusterSecrets,
    network: defaultClusterNetwork,
  };
  await store.update((tx) => {
    tx.create('cluster', cluster);
    tx.create('service', { ...service, specVersion: 5 });
    for (let specVersion = 1; specVersion <= 5; specVersion++)
      createRevision(tx, { ...service, specVersion }, undefined);
    for (const task of ended) tx.create('task', task);
  });
  void runReaperLoop({ store, clock }, stop.signal);
  const kept = () => [store.view.tasksOfService('s').length, store.view.revisionsOfService('s').length];
  assert.deepEqual(kept(), [5, 5]);

  const spec = { ...defaultClusterSpec, taskHistoryLimit: 3, specHistoryLimit: 2 };
  await store.update((tx) => tx.update('cluster', { ...cluster, spec }));
  await eventually(() => kept().join() === '3,2');
});

test('another leader counts the attempts and the back-off of the one before it', async (t) => {
  const clock = new FakeClock();
  const store = new Store(new MemoryLog(), clock);
  await store.open();
  const restart = { condition: 'any', delayMs: 1_000, maxAttempts: 2, windowMs: 0 } as const;
  const service = aServiceObject('s', 1, (spec) => ({ ...spec, task: { ...spec.task, restart } }));
  await store.update((tx) => {
    tx.create('service', service);
    createRevision(tx, service, undefined);
  });
  const live = () =>
    store.view.tasksOfService('s').filter((task) => isWanted(task) && !isTerminal(task.status.state));
  /** A leader of its own sees a task to its start and to its failure. */
  const leadThroughAFailure = async () => {
    const stop = new AbortController();
    t.after(() => stop.abort());
    const loop = runServiceLoop({ store, clock, randomBytes }, stop.signal);
    await eventually(
      () => live().some(({ desiredState }) => desiredState === 'running') || void clock.advance(500),
    );
    clock.advance(10);
    await store.update((tx) => {
      const [task] = live();
      if (task === undefined) throw new Error('no task');
      const status = { ...task.status, state: 'failed' as const, error: 'boom', timestampMs: clock.nowMs() };
      tx.update('task', { ...task, status });
    });
    await eventually(() =>
      store.view.tasksOfService('s').every((task) => !isWanted(task) || !isTerminal(task.status.state)),
    );
    stop.abort();
    await loop;
  };

  // The start and two attempts.
  for (let leader = 0; leader < 3; leader++) await leadThroughAFailure();

  assert.equal(live().length, 0);
  assert.equal(store.view.tasksOfService('s').length, 3);
});
