// Machines with an ingress network, and containers that published ports lead to (overlay-lab.ts).

import type {
  OverlayEndpoint,
  OverlayState,
  PortBackend,
  PortProblem,
  PublishedPort,
} from '../../agent/network/overlay/overlay.ts';
import { Container, ingress, net, type OverlayHost, type OverlayLab } from './overlay-lab.ts';

/** The port that containers serve. */
const TARGET_PORT = 80;

/** Every machine takes part in the ingress and in a network of the services' own. */
export async function ensureNetworks(lab: OverlayLab): Promise<void> {
  for (const host of lab.hosts) for (const network of [net, ingress]) await host.ensure(network);
}

/** A container of both networks, which gets out by its own network; its address is that of the ingress. */
export async function publishedContainer(
  lab: OverlayLab,
  host: OverlayHost,
  number: number,
  changes: Partial<OverlayEndpoint> = {},
): Promise<Container> {
  const own = host.endpoint(net.id, `10.0.1.${number}`);
  const { namespacePath } = own;
  await host.overlay.call('attach', own);
  const address = `10.0.0.${number}`;
  const endpoint = host.endpoint(ingress.id, address, { namespacePath, isDefaultRoute: false, ...changes });
  await host.overlay.call('attach', endpoint);
  return new Container(host, endpoint, await lab.peer(namespacePath, address));
}

export function backendsOf(...containers: readonly Container[]): PortBackend[] {
  return containers.map(({ address }) => ({ address, port: TARGET_PORT }));
}

export function aPort(
  port: number,
  backends: readonly Container[],
  changes: Partial<PublishedPort> = {},
): PublishedPort {
  return { protocol: 'tcp', port, backends: backendsOf(...backends), ...changes };
}

/** TCP and UDP. */
export function bothPorts(port: number, backends: readonly Container[]): PublishedPort[] {
  return (['tcp', 'udp'] as const).map((protocol) => aPort(port, backends, { protocol }));
}

/** What a machine is told of the ingress. */
export function ingressState(
  lab: OverlayLab,
  host: OverlayHost,
  containers: readonly Container[],
  published: readonly PublishedPort[],
): Partial<OverlayState> {
  const remotes = containers
    .filter((container) => container.host !== host)
    .map((container) => ({ address: container.address, nodeAddress: container.host.address }));
  return { remotes, nodes: lab.hosts.map(({ address }) => address), published };
}

/** Every machine accepts these ports; these containers exist. */
export async function publish(
  lab: OverlayLab,
  containers: readonly Container[],
  published: readonly PublishedPort[],
): Promise<void> {
  for (const host of lab.hosts) {
    await host.apply(ingress.id, ingressState(lab, host, containers, published));
  }
}

export function portProblems(host: OverlayHost): Promise<PortProblem[]> {
  return host.overlay.call('portProblems');
}

/** The host's end of the link to the ingress network: published ports are sent there. */
export function uplinkOf(host: OverlayHost): string {
  const [, index] = host.inNetwork(ingress.id, 'ip -o link show dev up0').match(/up0@if(\d+)/) ?? [];
  const [, name = ''] = host.run('ip -o link').match(new RegExp(`^${index}: ([^@]+)@`, 'm')) ?? [];
  return name;
}
