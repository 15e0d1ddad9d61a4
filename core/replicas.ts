// How many tasks a service is to have.

import type { ServiceSpec } from './generated/objects.ts';

/**
 * Slots of a service: replicas, or completions of a job. None while it is stopped, whatever its spec says, and none of
 * the global modes, which have nodes in place of slots.
 */
export function wantedReplicas({ mode, stopped }: Pick<ServiceSpec, 'mode' | 'stopped'>): number {
  return stopped ? 0 : (mode.replicated?.replicas ?? mode.replicatedJob?.totalCompletions ?? 0);
}
