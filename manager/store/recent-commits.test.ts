import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { Task } from '../../core/generated/objects.ts';
import { anyTask } from '../../test/support/any-task.ts';
import { aNode, aTask } from '../../test/support/builders.ts';
import { plainCommit } from '../../test/support/plain-commit.ts';
import type { StoreEvent } from './apply-entry.ts';
import { RecentCommits } from './recent-commits.ts';
import type { Commit } from './store.ts';
import { PackedTasks } from './task-events.ts';

function push(recent: RecentCommits, commit: Commit): void {
  const tasks = new PackedTasks(2 * commit.events.length);
  for (const { kind, object, previous } of commit.events) {
    if (kind !== 'task') continue;
    if (previous !== undefined) tasks.add(previous as Task);
    tasks.add(object as Task);
  }
  recent.push(commit, tasks);
}

const task = aTask('s');

function commit(index: number, changes: number): Commit {
  const event = { kind: 'task', action: 'updated', object: task, previous: task } as const;
  return { index, events: Array.from({ length: changes }, () => event) };
}

function sizeOf(commits: readonly Commit[]): number {
  return commits.reduce((sum, { events }) => sum + events.length, 0);
}

test('keeps the last commits without a gap, and says from where on', () => {
  const recent = new RecentCommits();
  for (let index = 1; index <= 5_000; index++) {
    push(recent, commit(index, 1));
    const kept = recent.after(recent.forgottenIndex);
    assert.ok(kept.length <= 2_000 && kept.length >= Math.min(index, 1_000));
    assert.equal(kept[0]?.index, recent.forgottenIndex + 1);
    assert.equal(kept.at(-1)?.index, index);
  }
  assert.deepEqual(
    recent.after(4_998).map(({ index }) => index),
    [4_999, 5_000],
  );
});

test('holds no more than some ten thousand changes, however many there are in a commit', () => {
  const recent = new RecentCommits();
  for (let index = 1; index <= 500; index++) {
    push(recent, commit(index, 500));
    const kept = recent.after(recent.forgottenIndex);
    assert.ok(sizeOf(kept) < 40_000);
    assert.equal(kept[0]?.index, recent.forgottenIndex + 1);
  }
  // One alone is kept as little as many.
  push(recent, commit(501, 100_000));
  assert.equal(recent.forgottenIndex, 501);
  assert.deepEqual(recent.after(501), []);
});

test('gives back what happened as it was, whatever it happened to', () => {
  const anyEvent: fc.Arbitrary<StoreEvent> = fc.oneof(
    fc.constant({ kind: 'node', action: 'created', object: aNode('n1') } as const),
    anyTask.map((object) => ({ kind: 'task', action: 'created', object }) as const),
    anyTask.map((object) => ({ kind: 'task', action: 'removed', object }) as const),
    fc
      .tuple(anyTask, anyTask)
      .map(([object, previous]) => ({ kind: 'task', action: 'updated', object, previous }) as const),
  );
  fc.assert(
    fc.property(fc.array(fc.array(anyEvent), { maxLength: 20 }), (history) => {
      const recent = new RecentCommits();
      const commits = history.map((events, at) => ({ index: at + 1, events }));
      for (const each of commits) push(recent, each);
      assert.deepEqual(recent.after(0).map(plainCommit), commits);
    }),
  );
});
