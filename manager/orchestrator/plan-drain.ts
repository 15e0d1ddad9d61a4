// Which tasks of a node that is to be drained go next. Until the deadline so many at a time, and after their successors
// where their service starts first; then all that are left. Global services give the node up by themselves. Pure.

import type { Node, Task } from '../../core/generated/objects.ts';
import { isGlobal } from '../../core/service-mode.ts';
import { isTerminal, isWanted } from '../../core/task-state.ts';
import type { TablesView } from '../store/tables.ts';

export const DRAIN_REASON = 'its node is being drained';

export interface DrainPlan {
  readonly evict: readonly { readonly task: Task; readonly leavesLast: boolean }[];
  /** The deadline (Unix ms), while it is to come and tasks are left. */
  readonly wakeAtMs: number | undefined;
}

export function planDrain(view: TablesView, node: Node, nowMs: number): DrainPlan {
  if (node.spec.availability !== 'drain') return { evict: [], wakeAtMs: undefined };
  const tasks = drainable(view, node.id);
  const deadlineAtMs = drainDeadlineMs(node);
  // From a node that is down nothing moves in good order. One that is silent, or has not come to a new leader yet, may go on.
  const isDown = node.status.state === 'down' || node.status.state === 'disconnected';
  const isOrderly = nowMs < deadlineAtMs && !isDown;
  if (!isOrderly)
    return {
      evict: tasks
        .filter((task) => task.eviction === undefined || task.leavesLast === true)
        .map((task) => ({ task, leavesLast: false })),
      wakeAtMs: undefined,
    };
  const rate = node.spec.drainRate || Number.POSITIVE_INFINITY;
  const free = Math.max(0, rate - countMoving(view, node.id));
  const next = tasks
    .filter((task) => task.eviction === undefined)
    .sort((a, b) => compare(a.serviceId, b.serviceId) || a.slot - b.slot || compare(a.id, b.id))
    .slice(0, free);
  return {
    evict: next.map((task) => ({ task, leavesLast: leavesLast(view, task) })),
    wakeAtMs: tasks.length > 0 ? deadlineAtMs : undefined,
  };
}

/** A drain that was taken back has marked the task and not moved it yet: it may stay, and needs no successor. */
export function isSpared({ eviction, leavesLast, desiredState, status }: Task, { spec }: Node): boolean {
  const isMarked = eviction === DRAIN_REASON && leavesLast === true;
  return isMarked && spec.availability !== 'drain' && isWanted({ desiredState }) && !isTerminal(status.state);
}

/** When what is left goes at once (Unix ms). */
export function drainDeadlineMs({ drainStartedAtMs = 0, spec }: Node): number {
  return drainStartedAtMs + (spec.drainDeadlineMs ?? 0);
}

/** What the node has and is to move elsewhere. */
export function drainable(view: TablesView, nodeId: string): Task[] {
  return view.tasksOnNode(nodeId).filter((task) => {
    const service = view.service.get(task.serviceId);
    const isLive = isWanted(task) && !isTerminal(task.status.state);
    return isLive && service !== undefined && !isGlobal(service.spec.mode);
  });
}

/** Tasks that have been told to go and are not gone, or whose successors do not run yet. */
function countMoving(view: TablesView, nodeId: string): number {
  const coming = new Map<string, ReadonlySet<number>>();
  const isSuccessorComing = ({ serviceId, slot }: Task) => {
    const slots = coming.get(serviceId) ?? comingSlots(view, serviceId);
    coming.set(serviceId, slots);
    return slots.has(slot);
  };
  return view
    .tasksOnNode(nodeId)
    .filter(
      (task) => task.eviction === DRAIN_REASON && (!isTerminal(task.status.state) || isSuccessorComing(task)),
    ).length;
}

function comingSlots(view: TablesView, serviceId: string): ReadonlySet<number> {
  const coming = view.tasksOfService(serviceId).filter((task) => isWanted(task) && isComing(task));
  return new Set(coming.map(({ slot }) => slot));
}

function isComing({ status: { state } }: Task): boolean {
  return state !== 'running' && state !== 'complete';
}

function leavesLast(view: TablesView, task: Task): boolean {
  const service = view.service.get(task.serviceId);
  return service?.spec.update.order === 'start-first' && task.status.state === 'running';
}

function compare(a: string, b: string): number {
  return a < b ? -1 : Number(a > b);
}
