import assert from 'node:assert/strict';
import { test } from 'node:test';
import { aServiceObject, aTask, tablesOf } from '../../test/support/builders.ts';
import { AssignmentTracker } from './assignments.ts';
import { NetworkDirectory } from './network-directory.ts';

test('a task that takes on another spec goes out with it, and the spec before is forgotten with its last task', () => {
  const first = aServiceObject('s', 2);
  const service = { ...first, specVersion: 2, previousSpec: first.spec, previousSpecVersion: 1 };
  const tasks = [aTask('s', { slot: 1 }), aTask('s', { slot: 2 })];
  const tables = tablesOf([service], tasks);
  const directory = new NetworkDirectory(tables);
  const tracker = new AssignmentTracker('n1');
  const ids = (revisions: readonly { readonly id: string }[] = []) => revisions.map(({ id }) => id);
  assert.deepEqual(ids(tracker.complete(tables, directory).revisions), ['s.1']);

  const adopt = (position: number) => {
    const task = { ...(tasks[position] ?? aTask('s')), specVersion: 2 };
    tables.put('task', task);
    tracker.note(task);
    return tracker.incremental(tables, directory);
  };
  const one = adopt(0);
  assert.deepEqual(
    [ids(one?.revisions), ids(one?.tasks), one?.removedRevisionIds],
    [['s.2'], [tasks[0]?.id], []],
  );
  const other = adopt(1);
  assert.deepEqual([ids(other?.revisions), other?.removedRevisionIds], [[], ['s.1']]);
});

test('what an agent tells of its own tasks is no news to it; a task that ends frees what it needed', () => {
  const task = aTask('s', { state: 'starting' });
  const tables = tablesOf([aServiceObject('s', 1)], [task]);
  const tracker = new AssignmentTracker('n1');
  tracker.complete(tables, new NetworkDirectory(tables));
  const told = (change: Partial<typeof task.status>) => ({ ...task, status: { ...task.status, ...change } });

  assert.equal(tracker.note(told({ state: 'running' }), task), false);
  assert.equal(tracker.note(told({ message: 'still pulling' }), task), false);
  assert.equal(tracker.note(told({ state: 'failed' }), task), true);
  assert.equal(tracker.note({ ...task, desiredState: 'shutdown' }, task), true);
  assert.equal(tracker.note({ ...task, specVersion: 2 }, task), true);
  // Removed.
  assert.equal(tracker.note(task), true);
  assert.equal(tracker.note({ ...task, id: 'other', nodeId: 'n2' }), false);
});
