// Whether tasks of a service have to get something that the whole cluster agrees on before a node is chosen for them.

import type { ServiceSpec } from './generated/objects.ts';
import { isIngressPort } from './ingress-port.ts';

/** Addresses in a network, or a part in the routing mesh. Whose tasks need neither are PENDING from the beginning. */
export function needsAllocation({ task, endpoint }: ServiceSpec): boolean {
  return task.networks.length > 0 || endpoint.ports.some(isIngressPort);
}
