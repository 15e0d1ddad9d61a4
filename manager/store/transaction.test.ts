// What a write asks the log to carry.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Task } from '../../core/generated/objects.ts';
import { aTask, tablesOf } from '../../test/support/builders.ts';
import { Transaction } from './transaction.ts';

const known = aTask('s');
const status = { ...known.status, message: 'started' };

function changesOf(change: (task: Task) => Task) {
  const tx = new Transaction(tablesOf([], [known]));
  tx.update('task', change(tx.get('task', known.id) as Task));
  return tx.changes().map(({ expectedVersion, task, taskStatus }) => ({ expectedVersion, task, taskStatus }));
}

test('of a task with nothing new but its status, the log carries the status', () => {
  assert.deepEqual(
    changesOf((task) => ({ ...task, status })),
    [{ expectedVersion: known.meta.version, task: undefined, taskStatus: status }],
  );
});

test('a task of which anything else is new goes into the log whole', () => {
  const others: Partial<Task>[] = [
    { serviceId: 'other' },
    { specVersion: 2 },
    { slot: 2 },
    { nodeId: 'n2' },
    { desiredState: 'shutdown' },
    { notBeforeMs: 1 },
    { attachments: [{ networkId: 'net', addresses: [] }] },
    { eviction: 'drained' },
    { genericResources: [{ kind: 'GPU', count: 1, names: [] }] },
    { leavesLast: false },
  ];
  for (const other of others)
    assert.deepEqual(
      changesOf((task) => ({ ...task, ...other, status })),
      [
        {
          expectedVersion: known.meta.version,
          task: { ...known, ...other, status },
          taskStatus: undefined,
        },
      ],
    );
});

test('the status alone can be written: the same as to update the task with it', () => {
  const tx = new Transaction(tablesOf([], [known]));
  assert.deepEqual(tx.taskReport(known.id), {
    version: known.meta.version,
    nodeId: known.nodeId,
    status: known.status,
  });
  tx.updateStatus(known.id, { ...status, message: 'starting' });
  tx.updateStatus(known.id, status);
  assert.deepEqual(tx.taskReport(known.id)?.status, status);
  assert.deepEqual(tx.get('task', known.id), { ...known, status });
  const { id, meta } = known;
  assert.deepEqual(tx.changes(), [{ kind: 'task', id, expectedVersion: meta.version, taskStatus: status }]);
  assert.throws(() => tx.updateStatus('other', status), /task other not found/);
});

test('a status that is written before or after something else of its task goes with it', () => {
  const whole = { ...known, status, slot: 2 };
  const first = new Transaction(tablesOf([], [known]));
  first.updateStatus(known.id, status);
  first.update('task', { ...(first.get('task', known.id) as Task), slot: 2 });
  const last = new Transaction(tablesOf([], [known]));
  last.update('task', { ...known, slot: 2 });
  last.updateStatus(known.id, status);
  for (const tx of [first, last]) {
    assert.deepEqual(tx.get('task', known.id), whole);
    assert.deepEqual(
      tx.changes().map(({ task, taskStatus }) => [task, taskStatus]),
      [[whole, undefined]],
    );
  }
});

test('of a task that goes, no status is left', () => {
  const tx = new Transaction(tablesOf([], [known]));
  tx.updateStatus(known.id, status);
  tx.delete('task', known.id);
  assert.equal(tx.taskReport(known.id), undefined);
  assert.throws(() => tx.updateStatus(known.id, status), /not found/);
  assert.deepEqual(
    tx.changes().map(({ id, task, taskStatus }) => [id, task, taskStatus]),
    [[known.id, undefined, undefined]],
  );
});

test('a new task goes into the log whole, and one that goes leaves its name only', () => {
  const tx = new Transaction(tablesOf([], [known]));
  const made = aTask('s');
  tx.create('task', made);
  tx.delete('task', known.id);
  assert.deepEqual(
    tx.changes().map(({ id, task, taskStatus }) => [id, task, taskStatus]),
    [
      [made.id, made, undefined],
      [known.id, undefined, undefined],
    ],
  );
});
