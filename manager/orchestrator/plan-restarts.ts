// What follows on a task of a slot: a replacement by the restart policy, after a delay that grows when it keeps failing,
// and its start once nothing of the slot runs any more. Pure.

import { DEFAULT_STOP_GRACE_PERIOD_MS } from '../../core/defaults.ts';
import type { Task } from '../../core/generated/objects.ts';
import { isJob } from '../../core/service-mode.ts';
import { hasFailed, isTerminal, isWanted } from '../../core/task-state.ts';
import { earliest } from '../loop.ts';
import type { NewTask, PlanDraft } from './plan-service.ts';
import { isLeavingLast, isRestartDue, isStopped, mustMove, type ServiceContext, type Slot } from './slots.ts';

// A predecessor that does not go down in this time does not keep its successor from starting (Swarm's value).
const OLD_TASK_TIMEOUT_MS = 60_000;
/** So many failures of a slot in a row are no accident any more. */
export const FAILURES_PATIENT = 3;
// The first pause where the policy has none, or less.
const BACK_OFF_MIN_MS = 1_000;
// Kubernetes' bound.
const BACK_OFF_MAX_MS = 5 * 60_000;
// A task that ran for this long, or the policy's window, is not taken for one that dies at once.
const CALM_MS = 60_000;

/** Ended and lost tasks are replaced, where the restart policy says so. */
export function planRestarts(slot: Slot, context: ServiceContext, draft: PlanDraft): void {
  // The end of a node in the middle of an update that starts first: both tasks of the slot have ended, or are lost.
  let isFollowed = false;
  for (const task of slot.tasks) {
    if (!isWanted(task)) continue;
    if (isLeavingLast(task, context)) {
      planDeparture(task, slot, context, draft);
      continue;
    }
    const isLost = mustMove(task, context);
    if (!isTerminal(task.status.state) && !isLost) continue;
    // What a job is there for; it stays as it is.
    if (task.status.state === 'complete' && task.desiredState === 'complete') continue;
    if (task.desiredState === 'ready' && context.nowMs < task.notBeforeMs) {
      // It failed while it waited for its turn: the delay paces attempts to prepare as well.
      draft.wakeAtMs = earliest(draft.wakeAtMs, task.notBeforeMs);
      continue;
    }
    draft.change.push({ task, desiredState: 'shutdown' });
    const hasSuccessor = slot.tasks.some(
      (other) => !isTerminal(other.status.state) && isOtherThatStays(other, task, context),
    );
    if (hasSuccessor || isFollowed || !isRestartDue(task, slot, context)) continue;
    isFollowed = true;
    // A drained or lost node is no reason to wait.
    const delayMs = isTerminal(task.status.state) && !isLost ? restartDelayMs(task, slot, context) : 0;
    draft.create.push({ ...placeOf(slot), desiredState: 'ready', notBeforeMs: context.nowMs + delayMs });
  }
}

function isOtherThatStays(other: Task, task: Task, context: ServiceContext): boolean {
  return other !== task && isWanted(other) && !mustMove(other, context);
}

/** It is stopped when its successor runs. An attempt that fails is repeated like those of other tasks. */
function planDeparture(task: Task, slot: Slot, context: ServiceContext, draft: PlanDraft): void {
  const hasSuccessor = slot.tasks.some(
    (other) => other.status.state === 'running' && isOtherThatStays(other, task, context),
  );
  if (hasSuccessor) draft.change.push({ task, desiredState: 'shutdown' });
  else if (slot.tasks[0] === task)
    draft.create.push({ ...placeOf(slot), desiredState: goalState(context), notBeforeMs: 0 });
}

/** Lets prepared replacements run once their time has come and their predecessors are down. */
export function planStarts(slot: Slot, context: ServiceContext, draft: PlanDraft): void {
  for (const task of slot.tasks) {
    if (task.desiredState !== 'ready' || isTerminal(task.status.state) || mustMove(task, context)) continue;
    const startAtMs = isHeld(slot, context, task)
      ? Math.max(task.notBeforeMs, patienceEndsAtMs(task, slot, context))
      : task.notBeforeMs;
    if (startAtMs === Number.POSITIVE_INFINITY) continue;
    if (context.nowMs >= startAtMs) draft.change.push({ task, desiredState: goalState(context) });
    else draft.wakeAtMs = earliest(draft.wakeAtMs, startAtMs);
  }
}

/** How long a task of the service may take to stop. */
function stopTimeMs({ service }: ServiceContext): number {
  const { endpoint, task } = service.spec;
  return endpoint.drainMs + (task.container.stopGracePeriodMs ?? DEFAULT_STOP_GRACE_PERIOD_MS);
}

/** Two tasks of one node's slot never run at once, however long the first one takes to stop. */
function patienceEndsAtMs(task: Task, slot: Slot, context: ServiceContext): number {
  if (slot.nodeId !== '') return Number.POSITIVE_INFINITY;
  return task.meta.createdAtMs + stopTimeMs(context) + OLD_TASK_TIMEOUT_MS;
}

/** Something of the slot, other than `task`, may still run. */
function isHeld(slot: Slot, context: ServiceContext, task?: Task): boolean {
  const isLive = (other: Task) =>
    other !== task && !isStopped(other, context) && !(isWanted(other) && isLeavingLast(other, context));
  return slot.tasks.some(isLive) || slot.leaving.some(isLive);
}

/** The first task of a slot that is free, or that some task is still leaving. */
export function firstTask(
  place: Pick<NewTask, 'slot' | 'nodeId'>,
  slot: Slot | undefined,
  context: ServiceContext,
): NewTask {
  const waits = slot !== undefined && isHeld(slot, context);
  return { ...place, desiredState: waits ? 'ready' : goalState(context), notBeforeMs: 0 };
}

export function placeOf({ number, nodeId }: Slot): Pick<NewTask, 'slot' | 'nodeId'> {
  return number > 0 ? { slot: number } : { slot: 0, nodeId };
}

/** What a task is to come to. */
export function goalState({ service }: ServiceContext): 'running' | 'complete' {
  return isJob(service.spec.mode) ? 'complete' : 'running';
}

/**
 * Twice the delay before, once a slot has failed several times in a row, up to a bound: what dies wherever it is
 * started is not made better by being started often. Read off the tasks, so that another leader comes to the same.
 */
function restartDelayMs(task: Task, slot: Slot, context: ServiceContext): number {
  const { delayMs, maxAttempts, windowMs } = context.service.spec.task.restart;
  // Who bounds the attempts has said how often it may die.
  if (maxAttempts > 0 || !hasEndedEarly(task, windowMs)) return delayMs;
  const calmIndex = slot.tasks.findIndex((other) => !isLikeFailure(other, task, windowMs));
  const failures = calmIndex < 0 ? slot.tasks.length : calmIndex;
  if (failures < FAILURES_PATIENT) return delayMs;
  const before = task.notBeforeMs === 0 ? 0 : task.notBeforeMs - task.meta.createdAtMs;
  return Math.max(delayMs, Math.min(Math.max(2 * before, BACK_OFF_MIN_MS), BACK_OFF_MAX_MS));
}

function isLikeFailure(other: Task, task: Task, windowMs: number): boolean {
  return other.specVersion === task.specVersion && hasEndedEarly(other, windowMs);
}

/** It failed before it had run, healthy where that is checked, for as long as makes the failures before it forgotten. */
function hasEndedEarly({ status }: Task, windowMs: number): boolean {
  if (!hasFailed(status.state)) return false;
  return status.runningAtMs === 0 || status.timestampMs - status.runningAtMs < Math.max(windowMs, CALM_MS);
}
