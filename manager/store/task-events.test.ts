// What entries do to tasks against what they say, on the tables and on a rehearsal of them.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { Task } from '../../core/generated/objects.ts';
import { type Change, emptyChange, LogEntryCodec } from '../../proto/generated/log.ts';
import { encode } from '../../proto/wire.ts';
import { anyTask, anyTaskIds } from '../../test/support/any-task.ts';
import { plainCommit } from '../../test/support/plain-commit.ts';
import { applyEntry, type StoreEvent } from './apply-entry.ts';
import { TablesRehearsal } from './rehearsal.ts';
import { Tables } from './tables.ts';

type Step = { readonly id: string; readonly how: 'put' | 'status' | 'delete'; readonly task: Task };

/** Each task once in an entry, as a transaction writes them. */
const anyEntry = fc.uniqueArray(
  fc.record<Step>({
    id: fc.constantFrom(...anyTaskIds),
    how: fc.constantFrom('put', 'status', 'delete'),
    task: anyTask,
  }),
  { selector: ({ id }) => id, maxLength: anyTaskIds.length },
);

/** Of a task that is not there, nothing can be but put. */
function changeOf({ id, how, task }: Step, known: Task | undefined): Change {
  const content =
    how === 'delete' && known !== undefined
      ? {}
      : how === 'status' && known !== undefined
        ? { taskStatus: task.status }
        : { task: { ...task, id } };
  return { ...emptyChange, kind: 'task', id, expectedVersion: known?.meta.version ?? 0, ...content };
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

test('events say what the changes say, whenever they are asked, and a rehearsal has the same digest', () => {
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
      for (const { events, expected } of seen)
        assert.deepEqual(plainCommit({ index: 0, events }).events, expected);
      assert.deepEqual(new Map([...tables.task.values()].map((task) => [task.id, task])), model);
    }),
  );
});
