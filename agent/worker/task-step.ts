// The staircase that a task climbs on its node. Pure: what is next, given what was reached and what is wanted. The
// table has a cell for every state and every order, so a new state does not compile until each is thought about.
//
//   ASSIGNED → accept → ACCEPTED → prepare → PREPARING → … → READY → start → STARTING → … → RUNNING → wait → an end
//   An order to stop leads from any step to SHUTDOWN; READY waits there for the order to run.

import type { TaskState } from '../../core/generated/objects.ts';

export type Action =
  /** Nothing to do until the order changes. */
  | 'rest'
  | 'accept'
  /** Image, network, container: can be repeated after a crash. */
  | 'prepare'
  | 'start'
  /** Until the container ends by itself. */
  | 'wait'
  | 'shut-down';

type Order = 'prepare-only' | 'run' | 'stop';

const TABLE: Record<TaskState, Record<Order, Action>> = {
  new: { 'prepare-only': 'accept', run: 'accept', stop: 'shut-down' },
  pending: { 'prepare-only': 'accept', run: 'accept', stop: 'shut-down' },
  assigned: { 'prepare-only': 'accept', run: 'accept', stop: 'shut-down' },
  accepted: { 'prepare-only': 'prepare', run: 'prepare', stop: 'shut-down' },
  preparing: { 'prepare-only': 'prepare', run: 'prepare', stop: 'shut-down' },
  ready: { 'prepare-only': 'rest', run: 'start', stop: 'shut-down' },
  starting: { 'prepare-only': 'start', run: 'start', stop: 'shut-down' },
  running: { 'prepare-only': 'wait', run: 'wait', stop: 'shut-down' },
  complete: { 'prepare-only': 'rest', run: 'rest', stop: 'rest' },
  shutdown: { 'prepare-only': 'rest', run: 'rest', stop: 'rest' },
  failed: { 'prepare-only': 'rest', run: 'rest', stop: 'rest' },
  rejected: { 'prepare-only': 'rest', run: 'rest', stop: 'rest' },
  remove: { 'prepare-only': 'rest', run: 'rest', stop: 'rest' },
  orphaned: { 'prepare-only': 'rest', run: 'rest', stop: 'rest' },
};

const ORDERS: Record<TaskState, Order> = {
  new: 'prepare-only',
  pending: 'prepare-only',
  assigned: 'prepare-only',
  accepted: 'prepare-only',
  preparing: 'prepare-only',
  ready: 'prepare-only',
  starting: 'run',
  running: 'run',
  // A job's desired state: run to the end.
  complete: 'run',
  shutdown: 'stop',
  failed: 'stop',
  rejected: 'stop',
  remove: 'stop',
  orphaned: 'stop',
};

/** What to do next for a task observed in one state and desired in another. */
export function nextAction(observed: TaskState, desired: TaskState): Action {
  return TABLE[observed][ORDERS[desired]];
}
