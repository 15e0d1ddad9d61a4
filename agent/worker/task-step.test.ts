import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { TaskState } from '../../core/generated/objects.ts';
import { isTerminal, TASK_STATES } from '../../core/task-state.ts';
import { nextAction } from './task-step.ts';

test('an ended task rests, whatever is wanted of it', () => {
  for (const state of TASK_STATES.filter(isTerminal))
    for (const desired of TASK_STATES) assert.equal(nextAction(state, desired), 'rest');
});

test('a task that is to stop is shut down from every step of the staircase', () => {
  for (const state of TASK_STATES.filter((state) => !isTerminal(state)))
    for (const desired of ['shutdown', 'remove'] satisfies TaskState[])
      assert.equal(nextAction(state, desired), 'shut-down');
});

test('a task that is only to be prepared waits at READY for the order to run', () => {
  assert.equal(nextAction('accepted', 'ready'), 'prepare');
  assert.equal(nextAction('ready', 'ready'), 'rest');
  assert.equal(nextAction('ready', 'running'), 'start');
});

test('steps that a crash interrupted are taken again', () => {
  assert.equal(nextAction('preparing', 'running'), 'prepare');
  assert.equal(nextAction('starting', 'running'), 'start');
  assert.equal(nextAction('running', 'running'), 'wait');
});
