// Ports that a task takes of its node itself: published in host mode, with a number. A node can give each of them once.

import type { EndpointSpec } from './generated/objects.ts';
import { isIngressPort } from './ingress-port.ts';

const NO_PORTS: readonly string[] = [];

/** "8080/tcp" */
export function portsOfNode({ ports }: EndpointSpec): readonly string[] {
  if (ports.length === 0) return NO_PORTS;
  return ports
    .filter((port) => port.publishedPort > 0 && !isIngressPort(port))
    .map(({ publishedPort, protocol }) => `${publishedPort}/${protocol}`);
}
