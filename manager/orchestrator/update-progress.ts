// Whether an update gets on: one in which no task has come to run for as long as its deadline says why. Pure.

import type { Task, UpdateConfig, UpdateStatus } from '../../core/generated/objects.ts';
import { isTerminal, isWanted } from '../../core/task-state.ts';
import { earliest } from '../loop.ts';
import type { PlanDraft } from './plan-service.ts';
import type { ServiceContext } from './slots.ts';

/** `fresh` are the tasks of the current spec. The same status: there is nothing to tell. */
export function tellProgress(
  status: UpdateStatus,
  config: UpdateConfig,
  fresh: readonly Task[],
  context: ServiceContext,
  draft: PlanDraft,
): UpdateStatus | 'failed' {
  if (config.deadlineMs === 0) return status;
  const sinceMs = progressAtMs(status, fresh);
  // Without a leader nothing goes on: that is no reason to roll back what was going well.
  const deadlineAtMs = Math.max(sinceMs, context.ledSinceMs) + config.delayMs + config.deadlineMs;
  if (context.nowMs < deadlineAtMs) {
    draft.wakeAtMs = earliest(draft.wakeAtMs, deadlineAtMs);
    return status.noProgressSinceMs === undefined ? status : moving(status);
  }
  if (config.failureAction === 'rollback' && status.state === 'updating') return 'failed';
  const message = noProgress(status, config, fresh, context);
  if (status.noProgressSinceMs === sinceMs && status.message === message) return status;
  return { ...status, noProgressSinceMs: sinceMs, message };
}

/** "no progress since 2026-01-02T03:04:05Z: no suitable node (…)", with what the oldest task that waits says. */
export function noProgress(
  status: UpdateStatus,
  { deadlineMs }: UpdateConfig,
  fresh: readonly Task[],
  { service }: ServiceContext,
): string {
  const since = new Date(progressAtMs(status, fresh)).toISOString().replace(/\.\d+Z$/, 'Z');
  const [oldest] = fresh
    .filter((task) => isWanted(task) && !isTerminal(task.status.state) && task.status.state !== 'running')
    .sort((a, b) => a.meta.createdAtMs - b.meta.createdAtMs || (a.id < b.id ? -1 : 1));
  const last = fresh
    .filter(({ status: { error } }) => error !== '')
    .sort((a, b) => b.status.timestampMs - a.status.timestampMs)[0];
  const reason =
    oldest?.status.error ||
    last?.status.error ||
    (oldest ? `a task is ${oldest.status.state}` : 'no task has been made');
  return `no progress since ${since}: ${reason} (deadline of ${deadlineMs / 1000} s, ${service.spec.name})`;
}

/** It is under way again, or over. */
export function moving(status: UpdateStatus): UpdateStatus {
  const { noProgressSinceMs, ...rest } = status;
  if (noProgressSinceMs === undefined) return status;
  return { ...rest, message: status.state === 'updating' ? 'update in progress' : 'rollback in progress' };
}

/** When a task of the current spec last came to run. */
function progressAtMs({ startedAtMs }: UpdateStatus, fresh: readonly Task[]): number {
  return fresh.reduce((latest, { status }) => Math.max(latest, status.runningAtMs), startedAtMs);
}
