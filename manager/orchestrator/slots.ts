// A service as its planners see it: slots, numbered or one for each node, each with the tasks that filled it.

import { feltEndpoint } from '../../core/felt-spec.ts';
import type { Node, RestartPolicy, Service, Task, TaskSpec } from '../../core/generated/objects.ts';
import { isGivenUp } from '../../core/node-silence.ts';
import { isJob } from '../../core/service-mode.ts';
import { isPlaced, isTerminal, isWanted } from '../../core/task-state.ts';
import { roomOnNodes } from '../capacity/room.ts';
import { canStay } from '../capacity/stay.ts';
import type { TablesView } from '../store/tables.ts';

export interface Slot {
  /** 0: it is that of a node. */
  readonly number: number;
  /** Empty: it is a numbered one. */
  readonly nodeId: string;
  /** Newest first. */
  readonly tasks: readonly Task[];
  /** To be removed; they may not have ended yet. */
  readonly leaving: readonly Task[];
}

/** What the planner may look at besides its service. */
export interface ServiceContext {
  readonly service: Service;
  readonly tasks: readonly Task[];
  /** The task spec that a task was made from; undefined when its revision is gone. */
  readonly specOf: (task: Task) => TaskSpec | undefined;
  readonly endpointChanged: (task: Task) => boolean;
  readonly nodeOf: (task: Pick<Task, 'nodeId'>) => Node | undefined;
  readonly nodes: () => Iterable<Node>;
  /** The task's node can give the task what the service reserves now. */
  readonly hasRoom: (task: Task) => boolean;
  readonly nowMs: number;
  /** Since when somebody looks after the service (Unix ms): what did not happen before that is nobody's failure. */
  readonly ledSinceMs: number;
}

export function serviceContext(
  view: TablesView,
  service: Service,
  nowMs: number,
  ledSinceMs = 0,
): ServiceContext {
  const endpoint = feltEndpoint(service.spec.endpoint);
  const changed = new Map<number, boolean>();
  return {
    service,
    tasks: view.tasksOfService(service.id),
    specOf: (task) => view.revisionOf(task)?.spec.task,
    endpointChanged: (task) => {
      const known = changed.get(task.specVersion);
      if (known !== undefined) return known;
      const revision = view.revisionOf(task);
      const isChanged = revision === undefined || feltEndpoint(revision.spec.endpoint) !== endpoint;
      changed.set(task.specVersion, isChanged);
      return isChanged;
    },
    nodeOf: (task) => view.node.get(task.nodeId),
    nodes: () => view.node.values(),
    hasRoom: roomOnNodes(view, service),
    nowMs,
    ledSinceMs,
  };
}

/** What tells the slots of a service apart. */
export function slotKey({ slot, nodeId = '' }: { slot: number; nodeId?: string }): number | string {
  return slot > 0 ? slot : nodeId;
}

/** By number; those of nodes by node. */
export function groupBySlot(tasks: readonly Task[]): Slot[] {
  const slots = new Map<
    number | string,
    { number: number; nodeId: string; tasks: Task[]; leaving: Task[] }
  >();
  for (const task of tasks) {
    const key = slotKey(task);
    let slot = slots.get(key);
    if (slot === undefined) {
      slot = { number: task.slot, nodeId: task.slot > 0 ? '' : task.nodeId, tasks: [], leaving: [] };
      slots.set(key, slot);
    }
    (task.desiredState === 'remove' ? slot.leaving : slot.tasks).push(task);
  }
  for (const slot of slots.values()) if (slot.tasks.length > 1) slot.tasks.sort(newestFirst);
  return [...slots.values()].sort((a, b) => a.number - b.number || (a.nodeId < b.nodeId ? -1 : 1));
}

function newestFirst(a: Task, b: Task): number {
  return b.meta.createdAtMs - a.meta.createdAtMs || b.meta.version - a.meta.version || (a.id < b.id ? 1 : -1);
}

/** Managers want at least one task of the slot. */
export function isActive(slot: Slot): boolean {
  return slot.tasks.some(isWanted);
}

/** The node cannot run tasks any more: it is gone or given up. */
function isNodeLost(task: Task, context: ServiceContext): boolean {
  return task.nodeId !== '' && isGivenUp(context.nodeOf(task));
}

/** It goes when another task of its slot runs. */
export function isLeavingLast(task: Task, context: ServiceContext): boolean {
  return (
    task.eviction !== undefined &&
    task.leavesLast === true &&
    task.status.state === 'running' &&
    !isNodeLost(task, context)
  );
}

/** The task has to be replaced although it has not ended. */
export function mustMove(task: Task, context: ServiceContext): boolean {
  return task.eviction !== undefined || isNodeLost(task, context);
}

/** Nothing of the task runs, as far as anyone can know. */
export function isStopped(task: Task, context: ServiceContext): boolean {
  const { state } = task.status;
  if (isTerminal(state) || !isPlaced(state)) return true;
  return isGivenUp(context.nodeOf(task));
}

/**
 * Whether a task that ended is followed by another one, by the service's restart policy. Judged as of the moment when
 * the task ended, so that the answer never changes.
 */
export function isRestartDue(task: Task, slot: Slot, context: ServiceContext): boolean {
  const policy = context.service.spec.task.restart;
  if (mustMove(task, context) && !isTerminal(task.status.state)) return true;
  if (isJob(context.service.spec.mode) && task.status.state === 'complete') return false;
  if (policy.condition === 'none') return false;
  if (policy.condition === 'on-failure' && task.status.state === 'complete') return false;
  return policy.maxAttempts === 0 || countAttempts(task, slot, policy) < policy.maxAttempts;
}

/** Restarts of this slot, under the same spec, that the policy's window still remembers. */
function countAttempts(task: Task, slot: Slot, policy: RestartPolicy): number {
  const endedAtMs = task.status.timestampMs;
  const ofSpec = slot.tasks.filter((other) => other.specVersion === task.specVersion);
  // The first task of a spec is a start, each later one was a restart.
  const restarts = ofSpec.filter(
    (other) =>
      other.meta.createdAtMs <= task.meta.createdAtMs &&
      ofSpec.some((older) => older.meta.createdAtMs < other.meta.createdAtMs),
  );
  if (policy.windowMs === 0) return restarts.length;
  return restarts.filter((other) => endedAtMs - other.meta.createdAtMs <= policy.windowMs).length;
}

/** The slot has come to its end by the restart policy and stays as it is until the spec changes. */
export function isFinished(slot: Slot, context: ServiceContext): boolean {
  const newest = slot.tasks[0];
  if (newest === undefined || isActive(slot) || newest.desiredState === 'remove') return false;
  // A task that was told to stop has not come to an end of its own.
  if (!isTerminal(newest.status.state) || newest.status.state === 'shutdown') return false;
  return !isDirty(newest, context) && !isRestartDue(newest, slot, context);
}

/** The task was made from another spec than the one wanted now, in a way that only a new task can make good. */
export function isDirty(task: Task, context: ServiceContext): boolean {
  if (task.specVersion === context.service.specVersion) return false;
  const spec = context.specOf(task);
  if (spec === undefined || context.endpointChanged(task)) return true;
  return !canStay(task, spec, context.service.spec.task, context);
}

/** The task can stay and has to be told of other limits or reservations, or of where it may go while it waits for a place. */
export function isToAdopt(task: Task, context: ServiceContext): boolean {
  const { state } = task.status;
  if (task.specVersion === context.service.specVersion || !isWanted(task) || isTerminal(state)) return false;
  const spec = context.specOf(task);
  const wanted = context.service.spec.task;
  const isOther =
    !isSame(spec?.resources, wanted.resources) ||
    (!isPlaced(state) && !isSame(spec?.placement, wanted.placement));
  return isOther && !isDirty(task, context);
}

function isSame(a: unknown, b: unknown): boolean {
  return JSON.stringify(a) === JSON.stringify(b);
}
