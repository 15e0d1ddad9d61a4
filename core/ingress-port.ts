// Which ports are published by the routing mesh.

import type { PortConfig } from './generated/objects.ts';

/** Published on every node; the others are on the nodes that run the task. */
export function isIngressPort({ publishMode }: PortConfig): boolean {
  return publishMode === 'ingress';
}
