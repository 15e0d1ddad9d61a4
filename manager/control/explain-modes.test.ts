// `why` about jobs, services on every node, and what keeps failing.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { aNode, aServiceObject, aTask, NOW_MS, tablesOf } from '../../test/support/builders.ts';
import { explain } from './explain.ts';

const lines = (tables: ReturnType<typeof tablesOf>) =>
  explain(tables, { target: 's', kind: '' }, NOW_MS).steps.map(({ subject, text }) => `${subject}: ${text}`);

test('a job tells its completions, and those that have completed are no trouble', () => {
  const service = aServiceObject('s', 0, (spec) => ({
    ...spec,
    mode: { replicatedJob: { totalCompletions: 2, maxConcurrent: 0 } },
  }));
  const done = [1, 2].map((slot) => aTask('s', { slot, state: 'complete', desired: 'complete' }));
  const tables = tablesOf([service], done);

  assert.deepEqual(lines(tables), ['service: s: 2 of 2 tasks have completed, 0 are running']);
  assert.equal(explain(tables, { target: 's', kind: '' }, NOW_MS).ok, true);
});

test('what a job has completed on a node counts when that is down', () => {
  const service = aServiceObject('s', 0, (spec) => ({ ...spec, mode: { globalJob: {} } }));
  const tasks = ['n1', 'n2'].map((nodeId) =>
    aTask('s', { slot: 0, nodeId, state: 'complete', desired: 'complete' }),
  );
  const tables = tablesOf([service], tasks, [aNode('n1'), aNode('n2', { state: 'down' })]);

  assert.equal(lines(tables)[0], 'service: s: 2 of 2 tasks have completed, 0 are running');
});

test('of a global service what is on a node that is down does not count', () => {
  const service = aServiceObject('s', 0, (spec) => ({ ...spec, mode: { global: {} } }));
  const tasks = ['n1', 'n2'].map((nodeId) => aTask('s', { slot: 0, nodeId }));
  const tables = tablesOf([service], tasks, [aNode('n1'), aNode('n2', { state: 'down' })]);

  assert.equal(lines(tables)[0], 'service: s: 1 of 1 tasks are running');
});

test('a global service that no node is for says so, and is no failure', () => {
  const constraints = ['node.labels.x==1'];
  const service = aServiceObject('s', 0, (spec) => ({
    ...spec,
    mode: { global: {} },
    task: { ...spec.task, placement: { ...spec.task.placement, constraints } },
  }));
  const tables = tablesOf([service], []);

  assert.deepEqual(lines(tables), [
    'service: s: 0 of 0 tasks are running',
    'scheduler: there is no node that takes tasks and satisfies node.labels.x==1',
  ]);
  assert.equal(explain(tables, { target: 's', kind: '' }, NOW_MS).ok, true);
});

test('the delay of a restart tells that it has grown, and a node where all fails that it comes last', () => {
  const failed = Array.from({ length: 5 }, (_, index) =>
    aTask('s', {
      state: 'failed',
      desired: 'shutdown',
      createdAtMs: NOW_MS - 1_000 * index,
      endedAtMs: NOW_MS - 500,
    }),
  );
  const waiting = aTask('s', {
    state: 'ready',
    desired: 'ready',
    createdAtMs: NOW_MS - 10_000,
    notBeforeMs: NOW_MS + 30_000,
  });
  const found = lines(tablesOf([aServiceObject('s', 1)], [...failed, waiting]));

  assert.ok(
    found.some((line) => /starts in 30 s: it backs off to 40 s because/.test(line)),
    found.join('\n'),
  );
  assert.ok(
    found.some((line) => /n1 is the last node to be chosen: 5 tasks failed/.test(line)),
    found.join('\n'),
  );
});
