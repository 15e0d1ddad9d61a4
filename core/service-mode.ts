// The four ways in which a service has tasks.

import type { ServiceMode } from './generated/objects.ts';

export type ModeName = 'replicated' | 'global' | 'replicated-job' | 'global-job';

export const MODE_NAMES = [
  'replicated',
  'global',
  'replicated-job',
  'global-job',
] as const satisfies readonly ModeName[];

export function modeName(mode: ServiceMode): ModeName {
  if (mode.global !== undefined) return 'global';
  if (mode.replicatedJob !== undefined) return 'replicated-job';
  return mode.globalJob !== undefined ? 'global-job' : 'replicated';
}

/** One task on each node: nodes take the place of slots. */
export function isGlobal(mode: ServiceMode): boolean {
  return mode.global !== undefined || mode.globalJob !== undefined;
}

/** Its tasks are to end, and are not wanted again when they have. */
export function isJob(mode: ServiceMode): boolean {
  return mode.replicatedJob !== undefined || mode.globalJob !== undefined;
}
