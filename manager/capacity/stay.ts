// What a changed service means for a task that it has: what the task can take on where it is, and what needs a new one.

import { isDeepStrictEqual } from 'node:util';
import { fitsConstraints } from '../../core/eligible-node.ts';
import { feltSpec } from '../../core/felt-spec.ts';
import type { Node, Task, TaskSpec } from '../../core/generated/objects.ts';

export interface Surroundings {
  readonly nodeOf: (task: Task) => Node | undefined;
  /** For what is reserved now, on the task's node. */
  readonly hasRoom: (task: Task) => boolean;
}

/**
 * Whether a task that was made from `spec` can become one of `wanted`: nothing differs but limits, reservations and where tasks
 * may be, and its node does for those. A changed placement moves no task whose node still fits.
 */
export function canStay(
  task: Task,
  spec: TaskSpec,
  wanted: TaskSpec,
  { nodeOf, hasRoom }: Surroundings,
): boolean {
  if (feltSpec(spec) !== feltSpec(wanted)) return false;
  if (task.nodeId !== '' && !isDeepStrictEqual(spec.placement, wanted.placement)) {
    const node = nodeOf(task);
    if (node === undefined || !fitsConstraints(node, wanted.placement)) return false;
  }
  return isDeepStrictEqual(spec.resources.reservations, wanted.resources.reservations) || hasRoom(task);
}
