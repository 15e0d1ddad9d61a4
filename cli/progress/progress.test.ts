import assert from 'node:assert/strict';
import { test } from 'node:test';
import { newServiceSpec } from '../../core/defaults.ts';
import {
  emptyService,
  emptyTask,
  emptyUpdateStatus,
  type Service,
  type Task,
  type TaskState,
  type UpdateState,
} from '../../core/generated/objects.ts';
import { formatProgress, measureProgress, type Verdict } from './progress.ts';

const SPEC = newServiceSpec('web', { image: 'busybox' });

function aService(replicas: number, state?: UpdateState): Service {
  return {
    ...emptyService,
    id: 's',
    specVersion: 2,
    spec: { ...SPEC, mode: { replicated: { replicas } } },
    ...(state && { updateStatus: { ...emptyUpdateStatus, state, message: 'because' } }),
  };
}

interface TaskOptions {
  readonly specVersion?: number;
  readonly desiredState?: TaskState;
  readonly error?: string;
  readonly createdAtMs?: number;
}

function aTask(slot: number, state: TaskState, options: TaskOptions = {}): Task {
  const { specVersion = 2, desiredState = 'running', error = '', createdAtMs = 0 } = options;
  return {
    ...emptyTask,
    id: `t${slot}${state}`,
    slot,
    specVersion,
    desiredState,
    meta: { ...emptyTask.meta, createdAtMs },
    status: { ...emptyTask.status, state, error },
  };
}

function measure(service: Service, tasks: readonly Task[], isRollback = false) {
  return measureProgress({ service, tasks, specOf: () => undefined, isRollback });
}

test('slots without tasks yet, starting and running are shown each on a line', () => {
  const progress = measure(aService(3), [aTask(1, 'running'), aTask(2, 'preparing')]);

  assert.equal(progress.verdict.kind, 'waiting');
  assert.deepEqual(formatProgress(progress), [
    'overall progress: 1 out of 3 tasks',
    `1/3: running   [${'='.repeat(49)}>]`,
    `2/3: preparing [${'='.repeat(30)}>${' '.repeat(19)}]`,
    '3/3:',
  ]);
});

test('the reason of the failure before stands beside the bar of its replacement', () => {
  const failed = aTask(1, 'failed', {
    desiredState: 'shutdown',
    error: 'task: non-zero exit (1)',
    createdAtMs: 1,
  });
  const replacement = aTask(1, 'ready', { desiredState: 'ready', createdAtMs: 2 });

  const [, line] = formatProgress(measure(aService(1), [failed, replacement]));

  assert.match(line ?? '', /^1\/1: ready .* task: non-zero exit \(1\)$/);
});

test('tasks of another spec do not count, unless a task cannot tell the difference', () => {
  const old = aTask(1, 'running', { specVersion: 1 });
  const restartChanged = { ...SPEC, task: { ...SPEC.task, restart: { ...SPEC.task.restart, delayMs: 1 } } };
  const service = aService(1);

  assert.equal(measure(service, [old]).running, 0);
  assert.equal(
    measureProgress({ service, tasks: [old], specOf: () => restartChanged, isRollback: false }).running,
    1,
  );
});

test('many slots are shown by their sum alone', () => {
  const tasks = Array.from({ length: 25 }, (_, index) => aTask(index + 1, 'running'));

  assert.deepEqual(formatProgress(measure(aService(25), tasks)), ['overall progress: 25 out of 25 tasks']);
});

test('the verdict follows the update', () => {
  const running = [aTask(1, 'running')];
  const cases: readonly (readonly [UpdateState | undefined, boolean, Verdict['kind']])[] = [
    [undefined, false, 'stable'],
    ['updating', false, 'waiting'],
    ['completed', false, 'settled'],
    ['paused', false, 'failed'],
    ['rollback-started', false, 'waiting'],
    ['rollback-completed', false, 'failed'],
    ['rollback-completed', true, 'settled'],
    ['rollback-paused', true, 'failed'],
  ];
  for (const [state, isRollback, kind] of cases)
    assert.equal(
      measure(aService(1, state), running, isRollback).verdict.kind,
      kind,
      `${state} ${isRollback}`,
    );
});

test('a slot that restart condition none has ended is a failure', () => {
  const service = aService(1);
  const once = {
    ...service,
    spec: {
      ...service.spec,
      task: { ...SPEC.task, restart: { ...SPEC.task.restart, condition: 'none' as const } },
    },
  };

  const { verdict } = measure(once, [
    aTask(1, 'failed', { desiredState: 'shutdown', error: 'task: non-zero exit (1)' }),
  ]);

  assert.equal(verdict.kind, 'failed');
});

test('no replicas is an end as well', () => {
  assert.equal(measure(aService(0), []).verdict.kind, 'stable');
});
