// Published ports as lists show them. Pure.

import type { PortConfig, Service } from '../../core/generated/objects.ts';

/** A service's ports with the numbers that were chosen for those of the routing mesh. */
export function portsOfService({ spec, ports }: Service): readonly PortConfig[] {
  const isIngress = ({ publishMode }: PortConfig) => publishMode === 'ingress';
  const chosen = ports.filter(isIngress);
  const asked = spec.endpoint.ports;
  return [
    ...(chosen.length > 0 ? chosen : asked.filter(isIngress)),
    ...asked.filter((port) => !isIngress(port)),
  ];
}

/** "*:8080->80/tcp"; neighbours are one range: "*:8000-8002->80-82/tcp". */
export function formatPorts(ports: readonly PortConfig[]): string[] {
  const ranges: PortRange[] = [];
  for (const port of ports.toSorted(byPlace)) {
    const last = ranges.at(-1);
    if (last !== undefined && continues(last, port)) last.length++;
    else ranges.push({ first: port, length: 1 });
  }
  return ranges.map(formatRange);
}

interface PortRange {
  readonly first: PortConfig;
  length: number;
}

/** "*", or the address or interface that it is published on. */
function placeOf({ hostAddress, hostInterface }: PortConfig): string {
  if (hostAddress.includes(':')) return `[${hostAddress}]`;
  return hostAddress || hostInterface || '*';
}

function byPlace(a: PortConfig, b: PortConfig): number {
  const key = (port: PortConfig) => `${placeOf(port)} ${port.protocol}`;
  if (key(a) !== key(b)) return key(a) < key(b) ? -1 : 1;
  return a.publishedPort - b.publishedPort || a.targetPort - b.targetPort;
}

function continues({ first, length }: PortRange, port: PortConfig): boolean {
  return (
    placeOf(first) === placeOf(port) &&
    first.protocol === port.protocol &&
    port.publishedPort > 0 &&
    port.publishedPort === first.publishedPort + length &&
    port.targetPort === first.targetPort + length
  );
}

function formatRange({ first, length }: PortRange): string {
  const range = (port: number) => (length === 1 ? `${port}` : `${port}-${port + length - 1}`);
  return `${placeOf(first)}:${range(first.publishedPort)}->${range(first.targetPort)}/${first.protocol}`;
}
