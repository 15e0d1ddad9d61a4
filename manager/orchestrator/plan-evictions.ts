// Which tasks their node may not keep, because the node has changed: it does not satisfy their constraints any more, or
// has less than they have reserved or were given. What a service asks for anew is the matter of its update. Pure.

import { matchesConstraint, parseConstraint } from '../../core/constraint.ts';
import { takesTasks } from '../../core/eligible-node.ts';
import type { Node, Resources, Task } from '../../core/generated/objects.ts';
import { isGlobal } from '../../core/service-mode.ts';
import { isWanted } from '../../core/task-state.ts';
import { holdersOn, isWithin, reservedBy, sum } from '../capacity/room.ts';
import type { TablesView } from '../store/tables.ts';

export interface Eviction {
  readonly task: Task;
  readonly reason: string;
}

/** Those of one node. A node that is paused keeps what it has, one that is drained or down is left anyway. */
export function planEvictions(view: TablesView, node: Node): Eviction[] {
  if (!takesTasks(node)) return [];
  // Who was told to leave last does not stay for as long as that may take.
  const tasks = holdersOn(view, node.id).filter(
    (task) => isWanted(task) && (task.eviction === undefined || task.leavesLast === true),
  );
  const misplaced = tasks
    .map((task) => ({ task, constraint: brokenConstraint(view, task, node) }))
    .filter(({ constraint }) => constraint !== undefined)
    .map(({ task, constraint }) => ({
      task,
      reason: `its node does not satisfy the constraint ${constraint} any more`,
    }));
  const going = new Set(misplaced.map(({ task }) => task));
  const deprived = deprivedOf(
    tasks.filter((task) => !going.has(task)),
    node,
  );
  for (const { task } of deprived) going.add(task);
  return [
    ...misplaced,
    ...deprived,
    ...overbooked(
      view,
      tasks.filter((task) => !going.has(task)),
      node,
    ),
  ];
}

/** Those that were given names that the node has no more, or more of a kind than it has: the newest go. */
function deprivedOf(tasks: readonly Task[], { description }: Node): Eviction[] {
  const free = new Map(description.genericResources.map(({ kind, count }) => [kind, count]));
  const names = new Map(description.genericResources.map((each) => [each.kind, each.names]));
  const evictions: Eviction[] = [];
  for (const task of tasks.toSorted(byAge)) {
    const lacking = task.genericResources.find(
      (given) =>
        given.count > (free.get(given.kind) ?? 0) ||
        given.names.some((name) => !names.get(given.kind)?.includes(name)),
    );
    if (lacking === undefined)
      for (const { kind, count } of task.genericResources) free.set(kind, (free.get(kind) ?? 0) - count);
    else evictions.push({ task, reason: `its node does not have the ${lacking.kind} any more` });
  }
  return evictions;
}

function byAge(a: Task, b: Task): number {
  return a.meta.createdAtMs - b.meta.createdAtMs || (a.id < b.id ? -1 : 1);
}

/** A service with one task on each node gives the node up by itself. */
function brokenConstraint(view: TablesView, task: Task, node: Node): string | undefined {
  const service = view.service.get(task.serviceId);
  const before = view.revisionOf(task)?.spec.task.placement.constraints;
  if (service === undefined || isGlobal(service.spec.mode)) return undefined;
  const { constraints } = service.spec.task.placement;
  if (JSON.stringify(before) !== JSON.stringify(constraints)) return undefined;
  return constraints.find((text) => !matchesConstraint(parseConstraint(text), node));
}

/** The newest go until the others have what they reserved; those that reserved nothing take nothing. */
function overbooked(view: TablesView, tasks: readonly Task[], node: Node): Eviction[] {
  const { resources } = node.description;
  const left = tasks.filter((task) => !isNothing(reservedBy(view, task))).sort(byAge);
  const evictions: Eviction[] = [];
  while (left.length > 0 && !isWithin(sum(left.map((task) => reservedBy(view, task))), resources))
    evictions.push({ task: left.pop() as Task, reason: 'its node has less than its tasks have reserved' });
  return evictions;
}

function isNothing({ cpuNanos, memoryBytes }: Resources): boolean {
  return cpuNanos === 0 && memoryBytes === 0;
}
