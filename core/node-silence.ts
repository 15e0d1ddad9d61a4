// What becomes of a node that falls silent: suspect, down, given up as far as the brake allows, and at last orphaned.

import { defaultClusterSpec } from './defaults.ts';
import type { ClusterSpec, Node } from './generated/objects.ts';

/** Swarm's: silent for this many heartbeat periods is down; twice as many after a change of leader. */
export const DOWN_PERIODS = 3;
export const DOWN_PERIODS_AT_START = 6;
// One heartbeat is missed, and the next one is late.
const SUSPECT_PERIODS = 2;

export function suspectAfterMs({ nodeSuspectAfterMs, heartbeatPeriodMs }: ClusterSpec): number {
  return nodeSuspectAfterMs || SUSPECT_PERIODS * heartbeatPeriodMs;
}

export function orphanAfterMs(spec: ClusterSpec): number {
  return spec.orphanAfterMs || defaultClusterSpec.orphanAfterMs;
}

/** How many of so many nodes may be given up in a minute: a share, and always one. */
export function giveUpsMax({ rescheduleMaxPercent }: ClusterSpec, nodeCount: number): number {
  const percent = rescheduleMaxPercent || defaultClusterSpec.rescheduleMaxPercent;
  return Math.max(1, Math.floor((nodeCount * percent) / 100));
}

/** Its tasks are to be replaced: it is gone, or it is down and the brake does not hold it. */
export function isGivenUp(node: Node | undefined): boolean {
  return node === undefined || (node.status.state === 'down' && node.status.held !== true);
}

/** How long nodes have to be heard of by a new leader, in milliseconds. */
export function graceAtStartMs({ heartbeatPeriodMs }: Pick<ClusterSpec, 'heartbeatPeriodMs'>): number {
  return DOWN_PERIODS_AT_START * heartbeatPeriodMs;
}
