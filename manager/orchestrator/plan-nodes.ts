// Slots of nodes, for services with one task on each: which nodes keep theirs, and which are to get one. Pure.

import { fitsPlacement, takesTasks } from '../../core/eligible-node.ts';
import type { Node } from '../../core/generated/objects.ts';
import { isJob } from '../../core/service-mode.ts';
import { isTerminal, isWanted } from '../../core/task-state.ts';
import { firstTask, planStarts } from './plan-restarts.ts';
import type { PlanDraft } from './plan-service.ts';
import { isActive, isDirty, isFinished, type ServiceContext, type Slot } from './slots.ts';

/**
 * gone: nothing of the service is to be left on the node, which may not exist any more. refused: the placement does not
 * want it, or it is being drained. away: it is down; there is no other place for its task, which may still run. held: it
 * keeps what it has.
 */
type Standing = 'gone' | 'refused' | 'away' | 'held' | 'wanted';

function standingOf(node: Node | undefined, { spec }: ServiceContext['service']): Standing {
  if (node === undefined || (spec.stopped && !isJob(spec.mode))) return 'gone';
  if (spec.stopped || node.spec.availability === 'drain' || !fitsPlacement(node, spec.task.placement))
    return 'refused';
  if (node.status.state === 'down') return 'away';
  return node.spec.availability === 'pause' ? 'held' : 'wanted';
}

/** Tells tasks to go that may not stay on their nodes; returns the slots that are to be looked after. */
export function planNodeSlots(slots: readonly Slot[], context: ServiceContext, draft: PlanDraft): Slot[] {
  return slots.filter((slot) => {
    const standing = standingOf(context.nodeOf(slot), context.service);
    if (standing === 'gone')
      for (const task of slot.tasks) draft.change.push({ task, desiredState: 'remove' });
    else if (standing !== 'wanted') planAside(slot, standing, context, draft);
    return standing === 'wanted';
  });
}

function planAside(
  slot: Slot,
  standing: Exclude<Standing, 'gone' | 'wanted'>,
  context: ServiceContext,
  draft: PlanDraft,
): void {
  const isOfJob = isJob(context.service.spec.mode);
  for (const task of slot.tasks) {
    if (!isWanted(task)) continue;
    const hasEnded = isTerminal(task.status.state);
    if (hasEnded && isOfJob) continue;
    // An older iteration of a job is over everywhere; a node that comes back is not to go on with what is out of date.
    const isStale = isOfJob ? task.specVersion !== context.service.specVersion : isDirty(task, context);
    const isOver = standing === 'held' ? hasEnded || (isOfJob && isStale) : isStale;
    if (standing === 'refused' || isOver) draft.change.push({ task, desiredState: 'shutdown' });
  }
  if (standing === 'held' && draft.change.every(({ task }) => !slot.tasks.includes(task)))
    planStarts(slot, context, draft);
}

/** Gives a task to each node that is to have one and has none. `slots` are those that are looked after. */
export function planNodes(slots: readonly Slot[], context: ServiceContext, draft: PlanDraft): void {
  const { spec } = context.service;
  if (spec.stopped) return;
  const byNode = new Map(slots.map((slot) => [slot.nodeId, slot]));
  const planned = new Set(draft.create.map(({ nodeId }) => nodeId));
  for (const node of context.nodes()) {
    if (planned.has(node.id) || !takesTasks(node) || !fitsPlacement(node, spec.task.placement)) continue;
    const slot = byNode.get(node.id);
    if (slot !== undefined && (isActive(slot) || isFinished(slot, context))) continue;
    draft.create.push(firstTask({ slot: 0, nodeId: node.id }, slot, context));
  }
}
