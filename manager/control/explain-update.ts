// The part of `why` about an update of a service: how far it is, what it waits for, and until when. Pure.

import type { Service, Task, UpdateConfig } from '../../core/generated/objects.ts';
import { isJob } from '../../core/service-mode.ts';
import { hasFailed, isTerminal, isWanted } from '../../core/task-state.ts';
import type { TablesView } from '../store/tables.ts';
import { ago, type Draft, explainTroubles, seconds, tasksText, titleOf } from './explain-task.ts';
import { countGoal } from './task-counts.ts';

// The causes of the rest are the same more often than not.
const FAILURES_TOLD_MAX = 3;

export function explainUpdate(view: TablesView, service: Service, nowMs: number): Draft[] {
  const { spec, specVersion, updateStatus: status } = service;
  if (isJob(spec.mode))
    return [{ subject: 'update', text: `${spec.name} is a job: each change of it begins another iteration` }];
  if (status === undefined)
    return [
      { subject: 'update', text: `${spec.name}: its spec is number ${specVersion}; no update is under way` },
    ];
  const steps: Draft[] = [{ ...explainUpdateStatus(service, nowMs), depth: 0 }];
  const tasks = view.tasksOfService(service.id);
  const fresh = tasks.filter((task) => task.specVersion === specVersion);
  const isUnderWay = status.state === 'updating' || status.state === 'rollback-started';
  const running = fresh.filter((task) => isWanted(task) && task.status.state === 'running').length;
  steps.push({
    subject: 'progress',
    depth: 1,
    text: `${running} of ${countGoal(view, service)} tasks run with spec number ${specVersion}`,
  });
  const config = status.state.startsWith('rollback') ? spec.rollback : spec.update;
  const coming = fresh.filter((task) => isWanted(task) && task.status.state !== 'running');
  steps.push(...explainTroubles(view, coming, nowMs));
  steps.push(...explainFailures(service, fresh, config));
  if (isUnderWay) steps.push(...explainWaiting(fresh, coming.length, config, status.startedAtMs, nowMs));
  return steps;
}

export function explainUpdateStatus({ spec, updateStatus }: Service, nowMs: number): Draft {
  const { state, message, startedAtMs, noProgressSinceMs } = updateStatus as NonNullable<
    Service['updateStatus']
  >;
  const isPaused = state === 'paused' || state === 'rollback-paused' || noProgressSinceMs !== undefined;
  return {
    ok: !isPaused,
    subject: 'update',
    depth: 1,
    text: `${state}: ${message} (started ${ago(startedAtMs, nowMs)})`,
    remedy: isPaused
      ? `mend the cause and "tsswarm service update ${spec.name}", or "tsswarm service rollback ${spec.name}"`
      : '',
  };
}

function explainFailures(service: Service, fresh: readonly Task[], config: UpdateConfig): Draft[] {
  const failed = fresh
    .filter(({ status: { state } }) => isTerminal(state) && hasFailed(state))
    .sort((a, b) => b.status.timestampMs - a.status.timestampMs);
  if (failed.length === 0) return [];
  const { updateStatus } = service;
  const total = Math.max(1, updateStatus?.slotsTotal ?? 0);
  return [
    {
      ok: false,
      subject: 'failures',
      depth: 1,
      text: `${failed.length} of its tasks failed; more than ${Math.floor(config.maxFailureRatio * total)} of ${total} mean ${config.failureAction}`,
      remedy: `tsswarm service logs ${service.spec.name}`,
    },
    ...failed.slice(0, FAILURES_TOLD_MAX).map((task) => ({
      ok: false,
      subject: 'task',
      depth: 2,
      text: `${titleOf(service, task)} ${task.status.state}: ${task.status.error}`,
    })),
  ];
}

function explainWaiting(
  fresh: readonly Task[],
  comingCount: number,
  { delayMs, monitorMs, deadlineMs, parallelism }: UpdateConfig,
  startedAtMs: number,
  nowMs: number,
): Draft[] {
  const lastMs = fresh.reduce((latest, { status }) => Math.max(latest, status.runningAtMs), startedAtMs);
  const waiting = (text: string): Draft => ({ subject: 'waiting', depth: 1, text });
  const steps: Draft[] = [];
  if (comingCount > 0)
    steps.push(waiting(`for ${tasksText(comingCount)} to run, at most ${parallelism || 'all'} at once`));
  else if (nowMs < lastMs + delayMs)
    steps.push(waiting(`${seconds(lastMs + delayMs - nowMs)} of --update-delay`));
  else if (nowMs < lastMs + monitorMs)
    steps.push(
      waiting(`${seconds(lastMs + monitorMs - nowMs)} more, to see whether tasks fail (--update-monitor)`),
    );
  const deadlineAtMs = lastMs + delayMs + deadlineMs;
  if (deadlineMs > 0 && nowMs < deadlineAtMs)
    steps.push({
      subject: 'deadline',
      depth: 1,
      text: `in ${seconds(deadlineAtMs - nowMs)}, unless another task comes to run`,
    });
  return steps;
}
