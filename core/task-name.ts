// How a task is called: by its slot, or by its node when there is one on each node.

import type { Task } from './generated/objects.ts';

/** "web.1"; "web.<node id>" of a service with one task on each node. */
export function taskName(serviceName: string, { slot, nodeId }: Pick<Task, 'slot' | 'nodeId'>): string {
  return `${serviceName}.${slot > 0 ? slot : nodeId}`;
}
