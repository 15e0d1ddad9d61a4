// The life of a task: Swarm's states, in Swarm's order. A task's state only grows; the numbers are its clock.
//
//   NEW → PENDING → ASSIGNED → ACCEPTED → PREPARING → READY → STARTING → RUNNING
//         (allocator) (scheduler)  └────────────── agent ──────────────┘    │
//                                       COMPLETE · SHUTDOWN · FAILED ◄──────┤
//                                       REJECTED (before STARTING) · ORPHANED (node lost for good)
//
// Desired states used by managers: READY (prepare, do not start), RUNNING, COMPLETE (jobs), SHUTDOWN, REMOVE.

import { type Task, type TaskState, taskStateNumbers } from './generated/objects.ts';

export const TASK_STATES = Object.keys(taskStateNumbers) as readonly TaskState[];

/** Negative, zero or positive, as `a` is before, at or after `b` in a task's life. */
export function compareTaskStates(a: TaskState, b: TaskState): number {
  return taskStateNumbers[a] - taskStateNumbers[b];
}

/** The task has ended, one way or another: nothing of it runs any more. */
export function isTerminal(state: TaskState): boolean {
  return compareTaskStates(state, 'running') > 0;
}

/** A manager still wants this task to be there: READY, RUNNING, or COMPLETE, which a task of a job keeps when it has ended. */
export function isWanted({ desiredState }: Pick<Task, 'desiredState'>): boolean {
  return compareTaskStates(desiredState, 'complete') <= 0;
}

/** A node has been chosen for it, be it on its way there, there, or ended. */
export function isPlaced(state: TaskState): boolean {
  return compareTaskStates(state, 'assigned') >= 0;
}

/** It has been placed and not ended: it holds what it reserves of its node, also while it stops. */
export function holdsResources({ status: { state } }: Task): boolean {
  return isPlaced(state) && !isTerminal(state);
}

/** It ended without having been told to, and not well. */
export function hasFailed(state: TaskState): boolean {
  return state === 'failed' || state === 'rejected' || state === 'orphaned';
}

/** How the message of a running task begins that could not be given other limits; why comes after it. */
export const FORMER_LIMITS = 'started, with its former limits: ';
