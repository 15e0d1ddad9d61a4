// A replicated service as its planner sees it: numbered slots, each with the tasks that filled it, newest first.

import { matchesConstraint, parseConstraint } from '../../core/constraint.ts';
import type {
  EndpointSpec,
  Node,
  RestartPolicy,
  Service,
  Task,
  TaskSpec,
} from '../../core/generated/objects.ts';
import { isIngressPort } from '../../core/ingress-port.ts';
import { isTerminal, isWanted } from '../../core/task-state.ts';
import type { TablesView } from '../store/tables.ts';

export interface Slot {
  readonly number: number;
  /** Newest first. */
  readonly tasks: readonly Task[];
}

/** What the planner may look at besides its service. */
export interface ServiceContext {
  readonly service: Service;
  readonly tasks: readonly Task[];
  /** The task spec that a task was made from; undefined when its revision is gone. */
  readonly specOf: (task: Task) => TaskSpec | undefined;
  readonly endpointChanged: (task: Task) => boolean;
  readonly nodeOf: (task: Task) => Node | undefined;
  readonly nowMs: number;
}

export function serviceContext(view: TablesView, service: Service, nowMs: number): ServiceContext {
  const endpoint = feltEndpoint(service.spec.endpoint);
  return {
    service,
    tasks: view.tasksOfService(service.id),
    specOf: (task) => view.revisionOf(task)?.spec.task,
    endpointChanged: (task) => {
      const revision = view.revisionOf(task);
      return revision === undefined || feltEndpoint(revision.spec.endpoint) !== endpoint;
    },
    nodeOf: (task) => view.node.get(task.nodeId),
    nowMs,
  };
}

/** What of the endpoint a running task feels: the rest is told to the nodes, which need no new task for it. */
function feltEndpoint({ ports, drainMs }: EndpointSpec): string {
  const own = ports.filter((port) => !isIngressPort(port));
  return JSON.stringify({ own, drainMs, isInMesh: own.length < ports.length });
}

export function groupBySlot(tasks: readonly Task[]): Slot[] {
  const bySlot = new Map<number, Task[]>();
  for (const task of tasks) {
    const group = bySlot.get(task.slot);
    if (group === undefined) bySlot.set(task.slot, [task]);
    else group.push(task);
  }
  return [...bySlot]
    .map(([number, group]) => ({ number, tasks: group.sort(newestFirst) }))
    .sort((a, b) => a.number - b.number);
}

function newestFirst(a: Task, b: Task): number {
  return b.meta.createdAtMs - a.meta.createdAtMs || b.meta.version - a.meta.version || (a.id < b.id ? 1 : -1);
}

/** Managers want at least one task of the slot. */
export function isActive(slot: Slot): boolean {
  return slot.tasks.some(isWanted);
}

/** The node cannot run tasks any more: it is gone, down, or being drained. */
export function isNodeLost(task: Task, context: ServiceContext): boolean {
  if (task.nodeId === '') return false;
  const node = context.nodeOf(task);
  return node === undefined || node.status.state === 'down' || node.spec.availability === 'drain';
}

/** Nothing of the task runs, as far as anyone can know. */
export function isStopped(task: Task, context: ServiceContext): boolean {
  if (isTerminal(task.status.state) || task.nodeId === '') return true;
  const node = context.nodeOf(task);
  return node === undefined || node.status.state === 'down';
}

/**
 * Whether a task that ended is followed by another one, by the service's restart policy. Judged as of the moment when
 * the task ended, so that the answer never changes.
 */
export function isRestartDue(task: Task, slot: Slot, context: ServiceContext): boolean {
  const policy = context.service.spec.task.restart;
  if (isNodeLost(task, context) && !isTerminal(task.status.state)) return true;
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
  return isTerminal(newest.status.state) && !isDirty(newest, context) && !isRestartDue(newest, slot, context);
}

/** The task was made from another spec than the one wanted now, in a way that only a new task can make good. */
export function isDirty(task: Task, context: ServiceContext): boolean {
  if (task.specVersion === context.service.specVersion) return false;
  const spec = context.specOf(task);
  if (spec === undefined || context.endpointChanged(task)) return true;
  const wanted = context.service.spec.task;
  return comparable(spec) !== comparable(wanted) || !isPlacementKept(task, spec, context);
}

/** A task spec without what a running task does not feel, and without its placement. */
function comparable(spec: TaskSpec): string {
  const { restart: _restart, placement: _placement, ...rest } = spec;
  return JSON.stringify(rest);
}

/** A changed placement moves no task whose node still fits. */
function isPlacementKept(task: Task, spec: TaskSpec, context: ServiceContext): boolean {
  const { placement } = context.service.spec.task;
  if (JSON.stringify(spec.placement) === JSON.stringify(placement) || task.nodeId === '') return true;
  const node = context.nodeOf(task);
  return (
    node !== undefined &&
    placement.constraints.every((text) => matchesConstraint(parseConstraint(text), node))
  );
}
