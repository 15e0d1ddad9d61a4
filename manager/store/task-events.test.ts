// What entries do to tasks against what they say, on the tables and on a rehearsal of them.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isDeepStrictEqual } from 'node:util';
import fc from 'fast-check';
import { emptyTask, emptyTaskStatus, type Task, type TaskStatus } from '../../core/generated/objects.ts';
import { isTerminal } from '../../core/task-state.ts';
import { type Change, emptyChange, LogEntryCodec } from '../../proto/generated/log.ts';
import { encode } from '../../proto/wire.ts';
import { anyTask, anyTaskIds } from '../../test/support/any-task.ts';
import { plainCommit } from '../../test/support/plain-commit.ts';
import { applyEntry, type StoreEvent } from './apply-entry.ts';
import { TablesRehearsal } from './rehearsal.ts';
import { Tables } from './tables.ts';
import type { TaskEvent } from './task-events.ts';

interface Step {
  readonly id: string;
  /** `part` and `status-part`: no more than one field is new. */
  readonly how: 'put' | 'part' | 'status' | 'status-part' | 'delete';
  readonly task: Task;
  readonly field: keyof Task;
  readonly statusField: keyof TaskStatus;
}

/** Each task once in an entry, as a transaction writes them. */
const anyEntry = fc.uniqueArray(
  fc.record<Step>({
    id: fc.constantFrom(...anyTaskIds),
    how: fc.constantFrom('put', 'part', 'status', 'status-part', 'delete'),
    task: anyTask,
    field: fc.constantFrom(...(Object.keys(emptyTask) as (keyof Task)[]), 'leavesLast', 'eviction'),
    statusField: fc.constantFrom(...(Object.keys(emptyTaskStatus) as (keyof TaskStatus)[]), 'container'),
  }),
  { selector: ({ id }) => id, maxLength: anyTaskIds.length },
);

/** Of a task that is not there, nothing can be but put. */
function changeOf(step: Step, known: Task | undefined): Change {
  const { id, task } = step;
  const content = known === undefined ? { task: { ...task, id } } : contentOf(step, known);
  return { ...emptyChange, kind: 'task', id, expectedVersion: known?.meta.version ?? 0, ...content };
}

function contentOf({ id, how, task, field, statusField }: Step, known: Task): Partial<Change> {
  if (how === 'delete') return {};
  if (how === 'status') return { taskStatus: task.status };
  if (how === 'status-part') return { taskStatus: { ...known.status, ...partOf(task.status, statusField) } };
  return { task: how === 'put' ? { ...task, id } : { ...known, ...partOf(task, field), id } };
}

/** Nothing of what it does not have. */
function partOf<T extends object>(whole: T, key: keyof T): Partial<T> {
  return key in whole ? ({ [key]: whole[key] } as Partial<T>) : {};
}

/** As the changes say, done to plain objects. */
function modelEvent(model: Map<string, Task>, change: Change, index: number, timeMs: number): StoreEvent {
  const { id, task, taskStatus } = change;
  const previous = model.get(id);
  const whole = task ?? (taskStatus && previous && { ...previous, status: taskStatus });
  if (whole === undefined) {
    model.delete(id);
    return { kind: 'task', action: 'removed', object: previous! };
  }
  const meta = { version: index, createdAtMs: previous?.meta.createdAtMs ?? timeMs, updatedAtMs: timeMs };
  const object = { ...whole, meta };
  model.set(id, object);
  return previous === undefined
    ? { kind: 'task', action: 'created', object }
    : { kind: 'task', action: 'updated', object, previous };
}

function idOf({ object }: StoreEvent): string {
  return object.id;
}

function isRemark(event: StoreEvent): boolean {
  return (event as TaskEvent).isRemark;
}

/** The task goes on, and nothing else is new but when it was told, in which words and of which process. */
function isRemarkOfModel({ object, previous }: StoreEvent): boolean {
  if (previous === undefined || isTerminal((object as Task).status.state)) return false;
  return isDeepStrictEqual(withoutRemarks(object as Task), withoutRemarks(previous as Task));
}

function withoutRemarks({ status, ...task }: Task): unknown {
  const { timestampMs: _, message: _message, container: _container, ...decisive } = status;
  return { ...task, meta: { ...task.meta, version: 0, updatedAtMs: 0 }, status: decisive };
}

test('events say what the changes say, whenever they are asked, and a rehearsal has the same digest', () => {
  let remarks = 0;
  fc.assert(
    fc.property(fc.array(anyEntry, { maxLength: 12 }), (history) => {
      const tables = new Tables();
      const model = new Map<string, Task>();
      const seen = history.map((steps, at) => {
        const index = at + 1;
        const timeMs = 1_000 + index;
        const changes = steps.map((step) => changeOf(step, model.get(step.id)));
        const expected = changes.map((change) => modelEvent(model, change, index, timeMs));
        const rehearsed = new TablesRehearsal(tables).add(
          index,
          encode(LogEntryCodec, { timeMs, changes, guards: [] }),
        ).result;
        const outcome = applyEntry(tables, index, { timeMs, changes, guards: [] });
        assert.ok(outcome.applied && rehearsed.applied);
        assert.equal(rehearsed.digest, outcome.digest);
        return { events: outcome.events, expected };
      });
      for (const { events, expected } of seen) {
        assert.deepEqual(plainCommit({ index: 0, events }).events, expected);
        const ids = events.filter(isRemark).map(idOf);
        assert.deepEqual(ids, expected.filter(isRemarkOfModel).map(idOf));
        remarks += ids.length;
      }
      assert.deepEqual(new Map([...tables.task.values()].map((task) => [task.id, task])), model);
    }),
  );
  assert.ok(remarks > 0);
});
