// When a node counts as one where a service keeps failing: it is the last to be chosen for it then.

import type { Task } from './generated/objects.ts';

// Swarm's values: a service that failed this often on a node within this time is placed elsewhere if it can be.
export const NODE_FAILURES_MAX = 5;
export const NODE_FAILURE_WINDOW_MS = 5 * 60_000;

/** The task failed on its node recently. */
export function isRecentFailure({ status }: Task, nowMs: number): boolean {
  const hasFailed = status.state === 'failed' || status.state === 'rejected';
  return hasFailed && nowMs - status.timestampMs <= NODE_FAILURE_WINDOW_MS;
}
