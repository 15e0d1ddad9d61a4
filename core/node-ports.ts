// Ports that a task takes of its node itself: published in host mode, with a number. A node can give each of them once.

import type { EndpointSpec } from './generated/objects.ts';
import { isIngressPort } from './ingress-port.ts';

/** "8080/tcp" */
export function portsOfNode({ ports }: EndpointSpec): string[] {
  if (ports.length === 0) return [];
  return ports
    .filter((port) => port.publishedPort > 0 && !isIngressPort(port))
    .map(({ publishedPort, protocol }) => `${publishedPort}/${protocol}`);
}
