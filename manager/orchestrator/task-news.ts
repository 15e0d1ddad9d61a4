// Most of what happens to tasks is news of agents that no planner asks for.

import type { Task } from '../../core/generated/objects.ts';
import { isTerminal } from '../../core/task-state.ts';

/** An agent has told something of a task that goes on as before. */
export function isSameToPlanners(task: Task, previous: Task | undefined): boolean {
  return (
    previous !== undefined &&
    !isTerminal(task.status.state) &&
    task.status.state === previous.status.state &&
    task.status.runningAtMs === previous.status.runningAtMs &&
    task.status.error === previous.status.error &&
    task.desiredState === previous.desiredState &&
    task.specVersion === previous.specVersion &&
    task.nodeId === previous.nodeId &&
    task.leavesLast === previous.leavesLast &&
    task.eviction === previous.eviction
  );
}
