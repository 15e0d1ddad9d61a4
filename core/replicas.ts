// How many tasks a service is to have.

import type { ServiceSpec } from './generated/objects.ts';

/** None while it is stopped, whatever its spec says of replicas. */
export function wantedReplicas({ mode, stopped }: Pick<ServiceSpec, 'mode' | 'stopped'>): number {
  return stopped ? 0 : (mode.replicated?.replicas ?? 0);
}
