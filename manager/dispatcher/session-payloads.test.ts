import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  emptyFileReference,
  emptyMeta,
  emptyPayloadSpec,
  type FileReference,
} from '../../core/generated/objects.ts';
import type { Payloads } from '../../proto/generated/dispatcher.ts';
import { aServiceObject, aTask, tablesOf } from '../../test/support/builders.ts';
import type { Tables } from '../store/tables.ts';
import { SessionPayloads } from './session-payloads.ts';

function put(tables: Tables, id: string, version: number, text = `${id} ${version}`): void {
  const spec = { ...emptyPayloadSpec, name: id };
  tables.put('secret', { id, meta: emptyMeta, spec, latestVersion: version });
  const data = Buffer.from(text);
  tables.put('payload', { id: `${id}.${version}`, meta: emptyMeta, sourceId: id, version, data });
}

/** A service with these references, and its revision. */
function aService(id: string, ...references: readonly (string | Partial<FileReference>)[]) {
  const secrets = references.map((reference) => ({
    ...emptyFileReference,
    ...(typeof reference === 'string' ? { sourceId: reference } : reference),
  }));
  return aServiceObject(id, 1, (spec) => ({
    ...spec,
    task: { ...spec.task, container: { ...spec.task.container, secrets } },
  }));
}

const ids = (messages: readonly Payloads[]) =>
  messages.flatMap(({ payloads }) => payloads.map(({ id, newest }) => (newest ? id : `${id} old`)));
const removed = (messages: readonly Payloads[]) => messages.flatMap(({ removedIds }) => removedIds);

test('a node gets what its own tasks refer to, and nothing else', () => {
  const tables = tablesOf(
    [aService('web', 'a', 'b'), aService('api', 'c')],
    [aTask('web', { nodeId: 'n1' }), aTask('web', { nodeId: 'n1' }), aTask('api', { nodeId: 'n2' })],
  );
  for (const id of ['a', 'b', 'c', 'd']) put(tables, id, 1);
  const messages = new SessionPayloads('n1').complete(tables);
  assert.deepEqual(ids(messages), ['a.1', 'b.1']);
  assert.deepEqual(
    messages.map(({ complete }) => complete),
    [true],
  );
  assert.deepEqual(ids(new SessionPayloads('n3').complete(tables)), []);
});

test('a session begins with what is complete, also when that is nothing', () => {
  const [first, ...rest] = new SessionPayloads('n1').complete(tablesOf([], []));
  assert.deepEqual([first, rest], [{ complete: true, payloads: [], removedIds: [] }, []]);
});

test('a version goes out once, and is forgotten with the last task that has not ended', () => {
  const first = aTask('web', { nodeId: 'n1' });
  const second = aTask('web', { nodeId: 'n1' });
  const tables = tablesOf([aService('web', 'a')], [first]);
  put(tables, 'a', 1);
  const session = new SessionPayloads('n1');
  session.complete(tables);
  tables.put('task', second);
  assert.deepEqual(session.catchUp(tables), []);

  for (const [task, gone] of [
    [first, []],
    [second, ['a.1']],
  ] as const) {
    tables.put('task', { ...task, status: { ...task.status, state: 'shutdown' } });
    assert.deepEqual(removed(session.catchUp(tables)), gone);
  }
});

test('a new version takes the place of the old one, unless that is asked for', () => {
  const tables = tablesOf(
    [aService('web', 'a'), aService('old', { sourceId: 'b', version: 1 }), aService('both', 'b')],
    ['web', 'old', 'both'].map((service) => aTask(service, { nodeId: 'n1' })),
  );
  put(tables, 'a', 1);
  put(tables, 'b', 1);
  const session = new SessionPayloads('n1');
  assert.deepEqual(ids(session.complete(tables)), ['a.1', 'b.1']);
  assert.ok(session.refersTo('a') && !session.refersTo('c'));
  put(tables, 'a', 2);
  put(tables, 'b', 2);
  const news = session.catchUp(tables);
  assert.deepEqual([ids(news).sort(), removed(news)], [['a.2', 'b.1 old', 'b.2'], ['a.1']]);
  assert.deepEqual(session.catchUp(tables), []);
});

test('many versions are more than one message, and what goes is in the last', () => {
  const names = ['a', 'b', 'c', 'd'];
  const task = aTask('web', { nodeId: 'n1' });
  const tables = tablesOf([aService('web', ...names)], [task]);
  for (const name of names) put(tables, name, 1, 'x'.repeat(400 * 1024));
  const session = new SessionPayloads('n1');
  const messages = session.complete(tables);
  assert.deepEqual(
    messages.map(({ complete, payloads }) => [complete, payloads.length]),
    [
      [true, 2],
      [false, 2],
    ],
  );
  for (const name of names) put(tables, name, 2, 'y'.repeat(400 * 1024));
  assert.deepEqual(
    session.catchUp(tables).map(({ removedIds }) => removedIds.length),
    [0, 4],
  );
});
