// Whether nodes can give the tasks that they have more than those have reserved. Pure.

import type { Resources, Service, Task } from '../../core/generated/objects.ts';
import { holdsResources } from '../../core/task-state.ts';
import type { TablesView } from '../store/tables.ts';

/** The check for tasks of one service: each of them on the node is to get what its service reserves now. */
export function roomOnNodes(view: TablesView, service: Service): (task: Task) => boolean {
  const known = new Map<string, boolean>();
  const wanted = service.spec.task.resources.reservations;
  return ({ nodeId }) => {
    const node = view.node.get(nodeId);
    if (node === undefined) return false;
    const answer =
      known.get(nodeId) ??
      isWithin(
        sum(
          holdersOn(view, nodeId).map((task) =>
            task.serviceId === service.id ? larger(wanted, reservedBy(view, task)) : reservedBy(view, task),
          ),
        ),
        node.description.resources,
      );
    known.set(nodeId, answer);
    return answer;
  };
}

/** Tasks that take something of the node's resources. */
export function holdersOn(view: TablesView, nodeId: string): Task[] {
  return view.tasksOnNode(nodeId).filter(holdsResources);
}

/** By the spec that it was made from or has taken on. */
export function reservedBy(view: TablesView, task: Task): Resources {
  return view.revisionOf(task)?.spec.task.resources.reservations ?? { cpuNanos: 0, memoryBytes: 0 };
}

export function isWithin(used: Resources, available: Resources): boolean {
  return used.cpuNanos <= available.cpuNanos && used.memoryBytes <= available.memoryBytes;
}

export function sum(parts: readonly Resources[]): Resources {
  return parts.reduce(
    (total, part) => ({
      cpuNanos: total.cpuNanos + part.cpuNanos,
      memoryBytes: total.memoryBytes + part.memoryBytes,
    }),
    { cpuNanos: 0, memoryBytes: 0 },
  );
}

function larger(a: Resources, b: Resources): Resources {
  return {
    cpuNanos: Math.max(a.cpuNanos, b.cpuNanos),
    memoryBytes: Math.max(a.memoryBytes, b.memoryBytes),
  };
}
