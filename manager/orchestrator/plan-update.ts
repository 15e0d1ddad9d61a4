// Rolling updates: replaces slot by slot what was made from an old spec, watches the new tasks, and pauses, goes on
// or rolls back when too many fail. All it needs to remember stands in the service's update status; everything else
// is read off the tasks, so a new leader continues where the old one was.

import type { Task, UpdateConfig, UpdateStatus } from '../../core/generated/objects.ts';
import { compareTaskStates, hasFailed, isTerminal, isWanted } from '../../core/task-state.ts';
import { earliest } from '../loop.ts';
import { placeOf } from './plan-restarts.ts';
import type { PlanDraft, ServicePlan } from './plan-service.ts';
import { isDirty, mustMove, type ServiceContext, type Slot, slotKey } from './slots.ts';
import { moving, noProgress, tellProgress } from './update-progress.ts';

export type UpdateOutcome = Pick<ServicePlan, 'updateStatus' | 'rollback'>;

export function planUpdate(slots: readonly Slot[], context: ServiceContext, draft: PlanDraft): UpdateOutcome {
  for (const slot of slots) retireDoubles(slot, context, draft);
  const dirty = slots.filter((slot) => slot.tasks.some((task) => isWanted(task) && isDirty(task, context)));
  const status = context.service.updateStatus;
  if (status === undefined) {
    if (dirty.length === 0 || context.service.previousSpec === undefined) return {};
    return advance(newUpdate(dirty.length, context.nowMs), true, slots, dirty, context, draft);
  }
  // A node that was away or held has come back with what the others have given up since.
  if (dirty.length > 0 && (status.state === 'completed' || status.state === 'rollback-completed'))
    return advance(newUpdate(dirty.length, context.nowMs), true, slots, dirty, context, draft);
  if (status.state === 'updating' || status.state === 'rollback-started') {
    const counted =
      status.slotsTotal === 0 && dirty.length > 0 ? { ...status, slotsTotal: dirty.length } : status;
    return advance(counted, counted !== status, slots, dirty, context, draft);
  }
  // Paused: no slot is begun, but what a slot's successor has taken over is not left running beside it.
  for (const slot of dirty) retireOld(slot, context, draft);
  return {};
}

function newUpdate(slotsTotal: number, nowMs: number): UpdateStatus {
  return {
    state: 'updating',
    startedAtMs: nowMs,
    completedAtMs: 0,
    message: 'update in progress',
    slotsTotal,
  };
}

function isRollback(status: UpdateStatus): boolean {
  return status.state === 'rollback-started';
}

function advance(
  status: UpdateStatus,
  isNew: boolean,
  slots: readonly Slot[],
  dirty: readonly Slot[],
  context: ServiceContext,
  draft: PlanDraft,
): UpdateOutcome {
  const { spec, specVersion } = context.service;
  const config = isRollback(status) ? spec.rollback : spec.update;
  const fresh = context.tasks.filter((task) => task.specVersion === specVersion);
  const failed = fresh.filter((task) => isUpdateFailure(task, config));
  const ratio = failed.length / Math.max(1, status.slotsTotal);
  if (failed.length > 0 && ratio > config.maxFailureRatio && config.failureAction !== 'continue')
    return failUpdate(
      status,
      config,
      `due to failure or early termination of task ${failed[0]?.id}`,
      context.nowMs,
    );

  const settling = slots.filter((slot) => isSettling(slot, config, context, draft));
  if (dirty.length > 0 || settling.length > 0) {
    // An update that is given up begins nothing more.
    const told = tellProgress(status, config, fresh, context, draft);
    if (told === 'failed')
      return failUpdate(
        status,
        config,
        `because of ${noProgress(status, config, fresh, context)}`,
        context.nowMs,
      );
    const parallelism = config.parallelism === 0 ? dirty.length : config.parallelism;
    const waiting = dirty.filter((slot) => !slot.tasks.some((task) => isSuccessor(task, context)));
    // The delay holds back the next slot; slots in the middle of their replacement count against the parallelism.
    const free = Math.max(0, parallelism - settling.length);
    for (const slot of waiting.slice(0, free)) replaceSlot(slot, config, context, draft);
    for (const slot of dirty) retireOld(slot, context, draft);
    return isNew || told !== status ? { updateStatus: told } : {};
  }
  const calmAtMs = lastStartMs(fresh) + config.monitorMs;
  if (context.nowMs < calmAtMs) {
    draft.wakeAtMs = earliest(draft.wakeAtMs, calmAtMs);
    return isNew ? { updateStatus: status } : {};
  }
  return {
    updateStatus: {
      ...moving(status),
      state: isRollback(status) ? 'rollback-completed' : 'completed',
      completedAtMs: context.nowMs,
      message: isRollback(status) ? 'rollback completed' : 'update completed',
    },
  };
}

/** A new task that ended by itself before it ran, or within the monitor time after. */
function isUpdateFailure(task: Task, config: UpdateConfig): boolean {
  if (!isTerminal(task.status.state)) return false;
  const endedByItself = hasFailed(task.status.state) || task.status.state === 'complete';
  if (!endedByItself) return false;
  return (
    task.status.runningAtMs === 0 || task.status.timestampMs - task.status.runningAtMs <= config.monitorMs
  );
}

function failUpdate(status: UpdateStatus, config: UpdateConfig, cause: string, nowMs: number): UpdateOutcome {
  if (config.failureAction === 'rollback' && !isRollback(status))
    return {
      rollback: true,
      updateStatus: {
        state: 'rollback-started',
        startedAtMs: nowMs,
        completedAtMs: 0,
        message: `update rolled back ${cause}`,
        slotsTotal: 0,
      },
    };
  return {
    updateStatus: {
      ...status,
      state: isRollback(status) ? 'rollback-paused' : 'paused',
      message: `${isRollback(status) ? 'rollback' : 'update'} paused ${cause}`,
    },
  };
}

/** A current task that managers want and that has not ended. */
function isSuccessor(task: Task, context: ServiceContext): boolean {
  return isWanted(task) && !isDirty(task, context) && !isTerminal(task.status.state);
}

/** A successor that does not run yet. */
function isInProgress(task: Task, context: ServiceContext): boolean {
  return isSuccessor(task, context) && task.status.state !== 'running';
}

/** The slot is being replaced, or was so recently that the next one has to wait for the delay. */
function isSettling(slot: Slot, config: UpdateConfig, context: ServiceContext, draft: PlanDraft): boolean {
  const ofSpec = slot.tasks.filter((task) => task.specVersion === context.service.specVersion);
  // A slot that failed has been counted; the update does not wait for its next attempts.
  if (ofSpec.some((task) => isUpdateFailure(task, config))) return false;
  const fresh = ofSpec.filter(isWanted);
  if (fresh.some((task) => isInProgress(task, context))) return true;
  const isNewlyMade = fresh.some((task) => task.status.state === 'running');
  if (!isNewlyMade) return false;
  const readyAtMs = Math.max(...fresh.map((task) => task.status.runningAtMs)) + config.delayMs;
  if (context.nowMs >= readyAtMs) return false;
  draft.wakeAtMs = earliest(draft.wakeAtMs, readyAtMs);
  return true;
}

function replaceSlot(slot: Slot, config: UpdateConfig, context: ServiceContext, draft: PlanDraft): void {
  const place = placeOf(slot);
  if (draft.create.some((task) => slotKey(task) === slotKey(place))) return;
  const old = slot.tasks.filter((task) => isWanted(task) && isDirty(task, context));
  // Start-first keeps what serves: the newest that runs. What an earlier update had begun is given up.
  const kept =
    config.order === 'start-first' ? old.find((task) => task.status.state === 'running') : undefined;
  for (const task of old) if (task !== kept) shutDown(task, draft);
  const desiredState = config.order === 'start-first' ? 'running' : 'ready';
  draft.create.push({ ...place, desiredState, notBeforeMs: 0 });
}

/** Start-first: the old task goes when a current one of its slot runs. */
function retireOld(slot: Slot, context: ServiceContext, draft: PlanDraft): void {
  const hasFresh = slot.tasks.some(
    (task) => isWanted(task) && !isDirty(task, context) && task.status.state === 'running',
  );
  if (!hasFresh) return;
  for (const task of slot.tasks) if (isWanted(task) && isDirty(task, context)) shutDown(task, draft);
}

/**
 * One current task is enough for a slot. There are two when an update that starts first is taken back, or changed into one
 * that asks no more than the task before it has: the one that has come further stays.
 */
function retireDoubles(slot: Slot, context: ServiceContext, draft: PlanDraft): void {
  if (slot.tasks.length < 2) return;
  const current = slot.tasks.filter((task) => isSuccessor(task, context) && !mustMove(task, context));
  const [, ...doubles] = current.sort(
    (a, b) => compareTaskStates(b.status.state, a.status.state) || a.meta.createdAtMs - b.meta.createdAtMs,
  );
  for (const task of doubles) shutDown(task, draft);
}

function shutDown(task: Task, draft: PlanDraft): void {
  const planned = draft.change.findIndex((change) => change.task === task);
  if (planned < 0) draft.change.push({ task, desiredState: 'shutdown' });
  // Its time to start has come together with the update that replaces it.
  else if (draft.change[planned]?.desiredState === 'running')
    draft.change[planned] = { task, desiredState: 'shutdown' };
}

function lastStartMs(tasks: readonly Task[]): number {
  return tasks.reduce((latest, task) => Math.max(latest, task.status.runningAtMs), 0);
}
