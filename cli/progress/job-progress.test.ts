import assert from 'node:assert/strict';
import { test } from 'node:test';
import { newServiceSpec } from '../../core/defaults.ts';
import {
  emptyService,
  emptyTask,
  type Service,
  type Task,
  type TaskState,
} from '../../core/generated/objects.ts';
import { formatJob, measureJob } from './job-progress.ts';

function aJob(restart: Partial<Service['spec']['task']['restart']> = {}): Service {
  const spec = newServiceSpec('work', { image: 'busybox' });
  return {
    ...emptyService,
    specVersion: 2,
    spec: {
      ...spec,
      mode: { replicatedJob: { totalCompletions: 3, maxConcurrent: 0 } },
      task: { ...spec.task, restart: { ...spec.task.restart, condition: 'on-failure', ...restart } },
    },
  };
}

function aTask(slot: number, state: TaskState, specVersion = 2): Task {
  const desiredState = state === 'failed' ? 'shutdown' : 'complete';
  return { ...emptyTask, slot, specVersion, desiredState, status: { ...emptyTask.status, state } };
}

test('completions of the current iteration count, those of older ones do not', () => {
  const tasks = [aTask(1, 'complete'), aTask(2, 'running'), aTask(3, 'complete', 1)];
  const progress = measureJob({ service: aJob(), tasks, total: 3 });

  assert.deepEqual([progress.completed, progress.active, progress.verdict.kind], [1, 1, 'waiting']);
  assert.match(formatJob(progress)[0] ?? '', /^job progress: 1 out of 3 complete \[=+> +\] 33%$/);
});

test('a job is over when all have completed, or when one may not be tried again', () => {
  const all = [1, 2, 3].map((slot) => aTask(slot, 'complete'));
  assert.equal(measureJob({ service: aJob(), tasks: all, total: 3 }).verdict.kind, 'settled');

  const failed = [aTask(1, 'failed'), aTask(1, 'failed')];
  const verdict = (restart: Parameters<typeof aJob>[0]) =>
    measureJob({ service: aJob(restart), tasks: failed, total: 3 }).verdict.kind;
  assert.equal(verdict({}), 'waiting');
  assert.equal(verdict({ condition: 'none' }), 'failed');
  assert.equal(verdict({ maxAttempts: 1 }), 'failed');
  assert.equal(verdict({ maxAttempts: 2 }), 'waiting');
});
