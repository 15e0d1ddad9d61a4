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
