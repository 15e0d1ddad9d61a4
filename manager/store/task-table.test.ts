// The table of tasks against a plain map: whatever is put, changed and deleted, both say the same.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { emptyTask, type Task } from '../../core/generated/objects.ts';
import { anyTask, anyTaskIds } from '../../test/support/any-task.ts';
import { type StateCount, TaskTable } from './task-table.ts';

type Step =
  | { readonly put: Task }
  | { readonly status: Task }
  | { readonly delete: string }
  | { readonly snapshot: true };

const steps = fc.array(
  fc.oneof(
    { weight: 6, arbitrary: anyTask.map((put): Step => ({ put })) },
    { weight: 6, arbitrary: anyTask.map((status): Step => ({ status })) },
    { weight: 2, arbitrary: fc.constantFrom(...anyTaskIds).map((id): Step => ({ delete: id })) },
    { weight: 1, arbitrary: fc.constant<Step>({ snapshot: true }) },
  ),
  { maxLength: 400, size: 'max' },
);

function byId(tasks: Iterable<Task>): Task[] {
  return [...tasks].sort((a, b) => (a.id < b.id ? -1 : 1));
}

function countsOf(tasks: Iterable<Task>): StateCount[] {
  const groups = Map.groupBy(tasks, ({ status, desiredState }) => `${status.state} ${desiredState}`);
  return [...groups.values()].flatMap((group) => {
    const [first] = group;
    if (first === undefined) return [];
    return { state: first.status.state, desiredState: first.desiredState, count: group.length };
  });
}

function inOrder(counts: Iterable<StateCount>): StateCount[] {
  return [...counts].sort((a, b) => (JSON.stringify(a) < JSON.stringify(b) ? -1 : 1));
}

test('the table is what a map of the tasks would be, and its groups are those with that service or node', () => {
  fc.assert(
    fc.property(steps, (taken) => {
      const table = new TaskTable();
      const model = new Map<string, Task>();
      for (const step of taken) take(step, table, model);
      assert.equal(table.size, model.size);
      assert.deepEqual(byId(table.values()), byId(model.values()));
      for (const id of anyTaskIds) {
        assert.deepEqual(table.get(id), model.get(id));
        assert.equal(table.nodeOf(id), model.get(id)?.nodeId);
        assert.equal(table.versionOf(id), model.get(id)?.meta.version ?? 0);
      }
      for (const group of ['s1', 's2', 's3'])
        assert.deepEqual(
          byId(table.ofService(group)),
          byId(model.values()).filter(({ serviceId }) => serviceId === group),
        );
      assert.deepEqual(inOrder(table.stateCounts()), inOrder(countsOf(model.values())));
      for (const group of ['s1', 's2', 's3'])
        assert.deepEqual(
          inOrder(table.stateCounts(group)),
          inOrder(countsOf([...model.values()].filter(({ serviceId }) => serviceId === group))),
        );
      for (const group of ['n1', 'n2', 'n3'])
        assert.deepEqual(
          byId(table.onNode(group)),
          byId(model.values()).filter(({ nodeId }) => nodeId === group),
        );
    }),
  );
});

test('a snapshot is of its moment, whatever changes before it is read', () => {
  fc.assert(
    fc.property(steps, (taken) => {
      const table = new TaskTable();
      const model = new Map<string, Task>();
      const snapshots: (readonly [Iterable<Task>, readonly Task[]])[] = [];
      for (const step of taken) {
        if ('snapshot' in step) snapshots.push([table.snapshot(), [...model.values()]]);
        take(step, table, model);
      }
      for (const [snapshot, expected] of snapshots) assert.deepEqual(byId(snapshot), byId(expected));
    }),
  );
});

/** Tasks on several pages. */
function manyTasks(count: number): { table: TaskTable; change: (message: string) => void } {
  const table = new TaskTable();
  const ids = Array.from({ length: count }, (_, at) => `task-${at}`);
  for (const id of ids) table.put({ ...emptyTask, id, serviceId: 's' });
  const status = (message: string) => ({ ...emptyTask.status, message });
  const meta = { version: 2, updatedAtMs: 2 };
  const change = (message: string) => {
    for (const id of ids) table.putStatus(id, status(message), meta);
  };
  return { table, change };
}

test('a snapshot that is read in parts is of its moment, and another one of its own', () => {
  const { table, change } = manyTasks(1_000);
  change('before');
  const [one, other] = [table.snapshot()[Symbol.iterator](), table.snapshot()];
  const messages = new Set<string>();
  for (let count = 0; count < 600; count++) messages.add((one.next().value as Task).status.message);

  change('after');

  for (const { status } of { [Symbol.iterator]: () => one }) messages.add(status.message);
  for (const { status } of other) messages.add(status.message);
  assert.deepEqual([...messages], ['before']);
  assert.deepEqual(new Set([...table.snapshot()].map(({ status }) => status.message)), new Set(['after']));
});

test('pages are copied only while a snapshot has them to read', () => {
  const { table, change } = manyTasks(100_000);
  const grownMb = (act: () => void) => {
    const before = process.memoryUsage().arrayBuffers;
    act();
    return (process.memoryUsage().arrayBuffers - before) / 2 ** 20;
  };
  const taken = table.snapshot();
  // 88 bytes of numbers for each task.
  assert.ok(grownMb(() => change('copied')) > 5);

  for (const _ of taken);
  for (const _ of table.snapshot());
  for (const _ of table.snapshot()) break;

  assert.ok(grownMb(() => change('in place')) < 1);
});

function take(step: Step, table: TaskTable, model: Map<string, Task>): void {
  if ('put' in step) {
    table.put(step.put);
    model.set(step.put.id, step.put);
  } else if ('status' in step) {
    const { id, status, meta } = step.status;
    const known = model.get(id);
    if (known === undefined) return;
    table.putStatus(id, status, meta);
    const { version, updatedAtMs } = meta;
    model.set(id, { ...known, status, meta: { ...known.meta, version, updatedAtMs } });
  } else if ('delete' in step) {
    table.delete(step.delete);
    model.delete(step.delete);
  }
}

test('the tasks of a service come in the order in which they came to it', () => {
  const table = new TaskTable();
  const put = (id: string, serviceId = 's') => table.put({ ...emptyTask, id, serviceId });
  for (const id of ['c', 'a', 'b']) put(id);
  put('c');
  assert.deepEqual(
    table.ofService('s').map(({ id }) => id),
    ['c', 'a', 'b'],
  );
  put('c', 'other');
  put('c');
  assert.deepEqual(
    table.ofService('s').map(({ id }) => id),
    ['a', 'b', 'c'],
  );
});
