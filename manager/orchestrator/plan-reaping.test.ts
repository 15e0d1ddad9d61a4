import assert from 'node:assert/strict';
import { test } from 'node:test';
import { emptyFileReference, emptyMeta, type Task } from '../../core/generated/objects.ts';
import { aServiceObject, aTask, NOW_MS, tablesOf } from '../../test/support/builders.ts';
import { planPayloadReaping, planReaping, planRevisionReaping } from './plan-reaping.ts';

const reap = (tasks: readonly Task[], historyLimit: number, maxAttempts: number) =>
  planReaping(tasks, { historyLimit, maxAttempts, isKnownNode: () => true, hasRevision: () => true });

const someLimits = { historyLimit: 5, maxAttempts: 0, hasRevision: () => true };

const dead = (age: number) => aTask('s', { state: 'failed', desired: 'shutdown', createdAtMs: NOW_MS - age });

test('a removed task is deleted when nothing of it can run any more, not before', () => {
  const running = aTask('s', { desired: 'remove' });
  const ended = aTask('s', { desired: 'remove', state: 'shutdown' });
  const neverPlaced = aTask('s', { desired: 'remove', state: 'pending', nodeId: '' });
  assert.deepEqual(reap([running, ended, neverPlaced], 5, 0), [ended, neverPlaced]);
});

test('a task that came to a node in the moment in which that was removed is deleted once it is not wanted', () => {
  const limits = { ...someLimits, isKnownNode: (id: string) => id === 'n1' };
  const stranded = aTask('s', { nodeId: 'gone', state: 'assigned', desired: 'shutdown' });
  const stopping = aTask('s', { nodeId: 'n1', state: 'running', desired: 'shutdown' });
  const wanted = aTask('s', { nodeId: 'gone', state: 'assigned' });
  assert.deepEqual(planReaping([stranded, stopping, wanted, dead(1)], limits), [stranded]);
});

test('a task that no agent can be told of, since its revision is gone, is deleted once it is not wanted', () => {
  const limits = { ...someLimits, isKnownNode: () => true, hasRevision: (version: number) => version > 1 };
  const stopping = { ...aTask('s', { desired: 'remove' }), specVersion: 1 };
  const other = { ...aTask('s', { desired: 'remove' }), specVersion: 2 };
  const wanted = { ...aTask('s'), specVersion: 1 };
  assert.deepEqual(planReaping([stopping, other, wanted], limits), [stopping]);
});

test('history is kept per slot up to the limit, the newest of it', () => {
  const tasks = [dead(400), dead(300), dead(200), dead(100), aTask('s')];
  assert.deepEqual(reap(tasks, 2, 0), [tasks[1], tasks[0]]);
  assert.deepEqual(reap(tasks, -1, 0), [], 'a negative limit keeps everything');
});

test('as many ended tasks are kept as counting restart attempts needs', () => {
  assert.equal(reap([dead(3), dead(2), dead(1)], 0, 5).length, 0);
});

test('a revision goes when no task and neither the current nor the previous spec refers to it', () => {
  const first = aServiceObject('s', 1);
  const service = { ...first, specVersion: 3, previousSpec: first.spec, previousSpecVersion: 2 };
  const tables = tablesOf([service], [aTask('s', { specVersion: 1 })]);
  tables.put('revision', {
    id: 's.1',
    meta: first.meta,
    serviceId: 's',
    specVersion: 1,
    spec: first.spec,
    registryAuth: false,
  });
  const [task] = tables.task.values();

  assert.deepEqual(planRevisionReaping(tables, 's', new Set(), 1), []);
  assert.deepEqual(
    planRevisionReaping(tables, 's', new Set([task?.id ?? '']), 1).map(({ id }) => id),
    ['s.1'],
  );
  tables.delete('service', 's');
  tables.delete('task', task?.id ?? '');
  assert.equal(planRevisionReaping(tables, 's', new Set(), 1).length, 3);
});

test('of a secret the newest five versions are kept, and those that a revision asks for', () => {
  const service = aServiceObject('s', 1, (spec) => {
    const secrets = [{ ...emptyFileReference, sourceId: 'db', version: 2 }];
    return { ...spec, task: { ...spec.task, container: { ...spec.task.container, secrets } } };
  });
  const tables = tablesOf([service], []);
  const putVersions = (count: number) => {
    for (let version = 1; version <= count; version++) {
      const id = `db.${version}`;
      tables.put('payload', { id, meta: emptyMeta, sourceId: 'db', version, data: Buffer.from('x') });
    }
  };
  putVersions(5);
  assert.deepEqual(planPayloadReaping(tables, 'db'), []);
  putVersions(9);
  const versions = () => planPayloadReaping(tables, 'db').map(({ version }) => version);
  assert.deepEqual(versions(), [4, 3, 1]);
  for (const id of [...tables.revision.keys()]) tables.delete('revision', id);
  assert.deepEqual(versions(), [4, 3, 2, 1]);
});

test('the newest specs are kept to go back to, as many as the limit says, and none when the service is gone', () => {
  const service = { ...aServiceObject('s', 1), specVersion: 15 };
  const tables = tablesOf([service], []);
  const { spec } = service;
  for (let specVersion = 1; specVersion < 15; specVersion++)
    tables.put('revision', {
      id: `s.${specVersion}`,
      meta: emptyMeta,
      serviceId: 's',
      specVersion,
      spec,
      registryAuth: false,
    });
  const gone = planRevisionReaping(tables, 's', new Set(), 10).map((revision) => revision.specVersion);
  assert.deepEqual(
    gone.sort((a, b) => a - b),
    [1, 2, 3, 4, 5],
  );
  tables.delete('service', 's');
  assert.equal(planRevisionReaping(tables, 's', new Set(), 10).length, 15);
});

test('two ended tasks of a slot are kept whatever the limit says: failures in a row are counted by them', () => {
  const failed = [4, 3, 2, 1].map((age) =>
    aTask('s', { state: 'failed', desired: 'shutdown', createdAtMs: NOW_MS - age }),
  );

  assert.deepEqual(new Set(reap(failed, 0, 0)), new Set(failed.slice(0, 2)));
});

test('of a task that never reached a node, or whose node is gone, nothing waits for an end', () => {
  const neverPlaced = [4, 3, 2, 1].map((age) =>
    aTask('s', { state: 'pending', nodeId: '', desired: 'shutdown', createdAtMs: NOW_MS - age }),
  );
  assert.equal(reap(neverPlaced, 2, 0).length, 2, 'all but what the limit keeps');
  const lost = aTask('s', { nodeId: 'gone', desired: 'remove' });
  const limits = { ...someLimits, isKnownNode: (id: string) => id !== 'gone' };
  assert.deepEqual(planReaping([lost], limits), [lost]);
});
