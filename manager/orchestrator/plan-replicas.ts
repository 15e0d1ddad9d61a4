// Numbered slots: those above the wanted count go, the lowest free ones are filled. Pure.

import { wantedReplicas } from '../../core/replicas.ts';
import { isWanted } from '../../core/task-state.ts';
import { firstTask } from './plan-restarts.ts';
import type { PlanDraft } from './plan-service.ts';
import { isActive, isFinished, type ServiceContext, type Slot } from './slots.ts';

/** Marks surplus slots for removal; returns those that stay. */
export function planScaleDown(slots: readonly Slot[], context: ServiceContext, draft: PlanDraft): Slot[] {
  const filled = slots.filter((slot) => isActive(slot) || isFinished(slot, context));
  const surplus = filled.length - wantedReplicas(context.service.spec);
  if (surplus <= 0) return slots.filter((slot) => slot.tasks.length > 0);
  const going = new Set(chooseForRemoval(filled, surplus));
  // Slots that hold nothing but history of a higher number than wanted go with them.
  for (const slot of slots)
    if (!filled.includes(slot) && slot.number > wantedReplicas(context.service.spec)) going.add(slot);
  for (const slot of going)
    for (const task of slot.tasks) draft.change.push({ task, desiredState: 'remove' });
  return slots.filter((slot) => slot.tasks.length > 0 && !going.has(slot));
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

/** Fills the lowest free numbers. `all` has also those slots that are being left. */
export function planScaleUp(
  all: readonly Slot[],
  keep: readonly Slot[],
  context: ServiceContext,
  draft: PlanDraft,
): void {
  const taken = new Set(draft.create.map((task) => task.slot));
  for (const slot of keep) if (isActive(slot) || isFinished(slot, context)) taken.add(slot.number);
  let missing = wantedReplicas(context.service.spec) - taken.size;
  const byNumber = missing > 0 ? new Map(all.map((slot) => [slot.number, slot])) : new Map<number, Slot>();
  for (let number = 1; missing > 0; number++) {
    if (taken.has(number)) continue;
    missing--;
    draft.create.push(firstTask({ slot: number }, byNumber.get(number), context));
  }
}
