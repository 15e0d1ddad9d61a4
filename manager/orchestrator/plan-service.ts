// What a replicated service needs next, as data: tasks to create, desired states to change, a new update status.
// Pure: the same store and the same time give the same plan, and planning again on its result changes nothing.
//
// Order of the rules: slots above the wanted count go; ended or lost tasks are replaced by the restart policy; a
// replacement starts when its delay is over and its predecessor is down; empty slots are filled; then the update
// (plan-update.ts) replaces what carries an old spec.

import { DEFAULT_STOP_GRACE_PERIOD_MS } from '../../core/defaults.ts';
import type { Task, TaskState, UpdateStatus } from '../../core/generated/objects.ts';
import { wantedReplicas } from '../../core/replicas.ts';
import { isTerminal, isWanted } from '../../core/task-state.ts';
import { earliest } from '../loop.ts';
import { planUpdate } from './plan-update.ts';
import {
  groupBySlot,
  isActive,
  isFinished,
  isNodeLost,
  isRestartDue,
  isStopped,
  type ServiceContext,
  type Slot,
} from './slots.ts';

export interface NewTask {
  readonly slot: number;
  readonly desiredState: 'ready' | 'running';
  /** Unix ms; 0: at once. */
  readonly notBeforeMs: number;
}

export interface DesiredChange {
  readonly task: Task;
  readonly desiredState: TaskState;
}

export interface ServicePlan {
  readonly create: readonly NewTask[];
  readonly change: readonly DesiredChange[];
  readonly updateStatus?: UpdateStatus;
  /** Swap the previous spec in: the update has failed and its failure action says so. */
  readonly rollback?: boolean;
  /** Come back then (Unix ms), even if nothing happens. */
  readonly wakeAtMs?: number;
}

/** A plan in the making. */
export interface PlanDraft {
  readonly create: NewTask[];
  readonly change: DesiredChange[];
  wakeAtMs: number | undefined;
}

// A predecessor that does not go down in this time does not keep its successor from starting (Swarm's value).
const OLD_TASK_TIMEOUT_MS = 60_000;

export function planService(context: ServiceContext): ServicePlan {
  const draft: PlanDraft = { create: [], change: [], wakeAtMs: undefined };
  const slots = groupBySlot(context.tasks.filter((task) => task.desiredState !== 'remove'));
  const keep = planScaleDown(slots, context, draft);
  for (const slot of keep) {
    planRestarts(slot, context, draft);
    planStarts(slot, context, draft);
  }
  planScaleUp(keep, context, draft);
  const update = planUpdate(keep, context, draft);
  return {
    create: draft.create,
    change: draft.change,
    ...(draft.wakeAtMs === undefined ? undefined : { wakeAtMs: draft.wakeAtMs }),
    ...update,
  };
}

/** The tasks of a service that is gone all have to go. */
export function planRemoval(tasks: readonly Task[]): ServicePlan {
  return {
    create: [],
    change: tasks
      .filter((task) => task.desiredState !== 'remove')
      .map((task) => ({ task, desiredState: 'remove' as const })),
  };
}

/**
 * The part of a plan that fits into one transaction: whole slots, because what happens in a slot belongs together.
 * Planning again when it is done gives the rest.
 */
export function limitPlan(plan: ServicePlan, changesMax: number): ServicePlan {
  if (plan.create.length + plan.change.length <= changesMax) return plan;
  const changesBySlot = new Map<number, number>();
  for (const slot of [...plan.change.map(({ task }) => task.slot), ...plan.create.map((task) => task.slot)])
    changesBySlot.set(slot, (changesBySlot.get(slot) ?? 0) + 1);
  const chosen = new Set<number>();
  let total = 0;
  for (const [slot, count] of changesBySlot) {
    if (chosen.size > 0 && total + count > changesMax) break;
    chosen.add(slot);
    total += count;
  }
  return {
    ...plan,
    create: plan.create.filter((task) => chosen.has(task.slot)),
    change: plan.change.filter(({ task }) => chosen.has(task.slot)),
  };
}

function replicasOf(context: ServiceContext): number {
  return wantedReplicas(context.service.spec);
}

/** Marks surplus slots for removal; returns those that stay. */
function planScaleDown(slots: readonly Slot[], context: ServiceContext, draft: PlanDraft): Slot[] {
  const filled = slots.filter((slot) => isActive(slot) || isFinished(slot, context));
  const surplus = filled.length - replicasOf(context);
  if (surplus <= 0) return [...slots];
  const going = new Set(chooseForRemoval(filled, surplus));
  // Slots that hold nothing but history of a higher number than wanted go with them.
  for (const slot of slots) if (!filled.includes(slot) && slot.number > replicasOf(context)) going.add(slot);
  for (const slot of going)
    for (const task of slot.tasks) draft.change.push({ task, desiredState: 'remove' });
  return slots.filter((slot) => !going.has(slot));
}

/** First those that do not run, then those on the fullest nodes, then the highest numbers: Swarm's order. */
function chooseForRemoval(slots: readonly Slot[], count: number): Slot[] {
  const isRunning = (slot: Slot) =>
    slot.tasks.some((task) => isWanted(task) && task.status.state === 'running');
  const candidates = slots
    .map((slot) => ({ slot, isRunning: isRunning(slot), nodeId: slot.tasks.find(isWanted)?.nodeId ?? '' }))
    .sort((a, b) => Number(b.isRunning) - Number(a.isRunning) || a.slot.number - b.slot.number);
  // The last of each node is the first to go of those that it has.
  const byNode = [...Map.groupBy(candidates, ({ nodeId }) => nodeId).values()];
  return Array.from({ length: count }, () => {
    const fullest = byNode.reduce((best, other) => {
      const [mine, its] = [best.at(-1), other.at(-1)];
      if (mine === undefined || its === undefined) return mine === undefined ? other : best;
      const byRunning = Number(mine.isRunning) - Number(its.isRunning);
      return (byRunning || other.length - best.length || its.slot.number - mine.slot.number) > 0
        ? other
        : best;
    });
    return fullest.pop()?.slot;
  }).filter((slot) => slot !== undefined);
}

function planRestarts(slot: Slot, context: ServiceContext, draft: PlanDraft): void {
  for (const task of slot.tasks) {
    if (!isWanted(task)) continue;
    const isLost = isNodeLost(task, context);
    if (!isTerminal(task.status.state) && !isLost) continue;
    if (task.desiredState === 'ready' && context.nowMs < task.notBeforeMs) {
      // It failed while it waited for its turn: the delay paces attempts to prepare as well.
      draft.wakeAtMs = earliest(draft.wakeAtMs, task.notBeforeMs);
      continue;
    }
    draft.change.push({ task, desiredState: 'shutdown' });
    const hasSuccessor = slot.tasks.some(
      (other) => other !== task && isWanted(other) && !isTerminal(other.status.state),
    );
    if (hasSuccessor || !isRestartDue(task, slot, context)) continue;
    // A drained or lost node is no reason to wait.
    const delayMs = isTerminal(task.status.state) && !isLost ? context.service.spec.task.restart.delayMs : 0;
    draft.create.push({ slot: slot.number, desiredState: 'ready', notBeforeMs: context.nowMs + delayMs });
  }
}

/** Lets prepared replacements run once their time has come and their predecessors are down. */
function planStarts(slot: Slot, context: ServiceContext, draft: PlanDraft): void {
  for (const task of slot.tasks) {
    if (task.desiredState !== 'ready' || isTerminal(task.status.state) || isNodeLost(task, context)) continue;
    const waitsForOld = slot.tasks.some((other) => other !== task && !isStopped(other, context));
    const timeoutAtMs = task.meta.createdAtMs + stopTimeMs(context) + OLD_TASK_TIMEOUT_MS;
    const startAtMs = waitsForOld ? Math.max(task.notBeforeMs, timeoutAtMs) : task.notBeforeMs;
    if (context.nowMs >= startAtMs) draft.change.push({ task, desiredState: 'running' });
    else draft.wakeAtMs = earliest(draft.wakeAtMs, startAtMs);
  }
}

/** How long a task of the service may take to stop. */
function stopTimeMs({ service }: ServiceContext): number {
  const { endpoint, task } = service.spec;
  return endpoint.drainMs + (task.container.stopGracePeriodMs ?? DEFAULT_STOP_GRACE_PERIOD_MS);
}

/** Fills the lowest free numbers. */
function planScaleUp(slots: readonly Slot[], context: ServiceContext, draft: PlanDraft): void {
  const taken = new Set(draft.create.map((task) => task.slot));
  for (const slot of slots) if (isActive(slot) || isFinished(slot, context)) taken.add(slot.number);
  let missing = replicasOf(context) - taken.size;
  for (let number = 1; missing > 0; number++) {
    if (taken.has(number)) continue;
    missing--;
    draft.create.push({ slot: number, desiredState: 'running', notBeforeMs: 0 });
  }
}
