// Jobs: tasks that are to end well once, for each number or on each node. Every spec of the service is an iteration: what
// an older one has still running is stopped, and the new one begins from nothing. Pure.

import { wantedReplicas } from '../../core/replicas.ts';
import { isGlobal } from '../../core/service-mode.ts';
import { isTerminal, isWanted } from '../../core/task-state.ts';
import { planNodes } from './plan-nodes.ts';
import { firstTask, planRestarts, planStarts } from './plan-restarts.ts';
import type { PlanDraft } from './plan-service.ts';
import { isFinished, type ServiceContext, type Slot } from './slots.ts';

/** `slots` are all, in the global mode those of nodes that are to run the job. Jobs have no update status. */
export function planJob(slots: readonly Slot[], context: ServiceContext, draft: PlanDraft): object {
  const { spec } = context.service;
  const wanted = wantedReplicas(spec);
  for (const slot of slots) planEndOfOld(slot, context, draft, slot.number > wanted);
  const current = slots
    .map((slot) => currentPart(slot, context))
    .filter((slot) => isGlobal(spec.mode) || slot.number <= wanted);
  for (const slot of current) {
    planRestarts(slot, context, draft);
    planStarts(slot, context, draft);
  }
  if (isGlobal(spec.mode)) planNodes(current, context, draft);
  else planCompletions(current, wanted, context, draft);
  return {};
}

/** Tasks of older iterations are stopped; those of numbers that the job does not have any more leave no history. */
function planEndOfOld(slot: Slot, context: ServiceContext, draft: PlanDraft, isSurplus: boolean): void {
  const isNumbered = slot.nodeId === '';
  for (const task of slot.tasks) {
    if (task.specVersion === context.service.specVersion) continue;
    if (isSurplus && isNumbered) draft.change.push({ task, desiredState: 'remove' });
    else if (isWanted(task) && !isTerminal(task.status.state))
      draft.change.push({ task, desiredState: 'shutdown' });
  }
}

/** The slot as the current iteration has it; what older ones had there counts as leaving. */
function currentPart(slot: Slot, { service }: ServiceContext): Slot {
  const isCurrent = ({ specVersion }: { readonly specVersion: number }) =>
    specVersion === service.specVersion;
  return {
    ...slot,
    tasks: slot.tasks.filter(isCurrent),
    leaving: [...slot.leaving, ...slot.tasks.filter((task) => !isCurrent(task))],
  };
}

/** Begins as many of the missing completions as may be under way at once. */
function planCompletions(
  slots: readonly Slot[],
  wanted: number,
  context: ServiceContext,
  draft: PlanDraft,
): void {
  const byNumber = new Map(slots.map((slot) => [slot.number, slot]));
  const underWay = new Set([
    ...slots.filter(isUnderWay).map(({ number }) => number),
    ...draft.create.map(({ slot }) => slot),
  ]);
  const atOnce = context.service.spec.mode.replicatedJob?.maxConcurrent || wanted;
  for (let number = 1; number <= wanted && underWay.size < atOnce; number++) {
    const slot = byNumber.get(number);
    if (underWay.has(number) || (slot !== undefined && isOver(slot, context))) continue;
    draft.create.push(firstTask({ slot: number }, slot, context));
    underWay.add(number);
  }
}

/** Also while a task that has failed waits to be replaced. */
function isUnderWay(slot: Slot): boolean {
  return slot.tasks.some((task) => isWanted(task) && task.status.state !== 'complete');
}

/** It has completed, or has failed as often as it may; also when that is found out just now. */
function isOver(slot: Slot, context: ServiceContext): boolean {
  return (
    slot.tasks.some((task) => task.status.state === 'complete' || isWanted(task)) || isFinished(slot, context)
  );
}
