// What a service needs next, as data: tasks to create, desired states to change, a new update status.
// Pure: the same store and the same time give the same plan, and planning again on its result changes nothing.
//
// Order of the rules: slots that are not wanted any more go; ended or lost tasks are replaced by the restart policy; a
// replacement starts when its delay is over and its predecessor is down; empty slots are filled; then the update
// (plan-update.ts) replaces what carries an old spec. Jobs have iterations in place of updates (plan-job.ts).

import type { Task, TaskState, UpdateStatus } from '../../core/generated/objects.ts';
import { isGlobal, isJob } from '../../core/service-mode.ts';
import { planJob } from './plan-job.ts';
import { planNodeSlots, planNodes } from './plan-nodes.ts';
import { planScaleDown, planScaleUp } from './plan-replicas.ts';
import { planRestarts, planStarts } from './plan-restarts.ts';
import { planUpdate, type UpdateOutcome } from './plan-update.ts';
import { groupBySlot, isToAdopt, type ServiceContext, type Slot, slotKey } from './slots.ts';

export interface NewTask {
  /** 0: it is for a node. */
  readonly slot: number;
  /** Of the slot that is a node. */
  readonly nodeId?: string;
  readonly desiredState: 'ready' | 'running' | 'complete';
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
  /** Tasks that take on the current spec as they are: of what they feel only limits and reservations differ. */
  readonly adopt: readonly Task[];
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

export function planService(context: ServiceContext): ServicePlan {
  const { mode } = context.service.spec;
  const draft: PlanDraft = { create: [], change: [], wakeAtMs: undefined };
  const all = groupBySlot(context.tasks);
  const slots = isGlobal(mode) ? planNodeSlots(all, context, draft) : all;
  const update = isJob(mode) ? planJob(slots, context, draft) : planLasting(slots, context, draft);
  const { create, change } = draft;
  const going = new Set(change.map(({ task }) => task));
  return {
    create,
    change,
    adopt: isJob(mode) ? [] : context.tasks.filter((task) => !going.has(task) && isToAdopt(task, context)),
    ...(draft.wakeAtMs === undefined ? undefined : { wakeAtMs: draft.wakeAtMs }),
    ...update,
  };
}

/** Of services whose tasks are to run on and on. */
function planLasting(slots: readonly Slot[], context: ServiceContext, draft: PlanDraft): UpdateOutcome {
  const inNodes = isGlobal(context.service.spec.mode);
  const keep = inNodes ? slots : planScaleDown(slots, context, draft);
  for (const slot of keep) {
    planRestarts(slot, context, draft);
    planStarts(slot, context, draft);
  }
  if (inNodes) planNodes(keep, context, draft);
  else planScaleUp(slots, keep, context, draft);
  return planUpdate(keep, context, draft);
}

/** The tasks of a service that is gone all have to go. */
export function planRemoval(tasks: readonly Task[]): ServicePlan {
  return {
    create: [],
    adopt: [],
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
  if (plan.create.length + plan.change.length + plan.adopt.length <= changesMax) return plan;
  const changesBySlot = new Map<number | string, number>();
  for (const slot of [...plan.change.map(({ task }) => slotKey(task)), ...plan.create.map(slotKey)])
    changesBySlot.set(slot, (changesBySlot.get(slot) ?? 0) + 1);
  const chosen = new Set<number | string>();
  let total = 0;
  for (const [slot, count] of changesBySlot) {
    if (chosen.size > 0 && total + count > changesMax) break;
    chosen.add(slot);
    total += count;
  }
  return {
    ...plan,
    create: plan.create.filter((task) => chosen.has(slotKey(task))),
    change: plan.change.filter(({ task }) => chosen.has(slotKey(task))),
    adopt: plan.adopt.slice(0, Math.max(0, changesMax - total)),
  };
}
