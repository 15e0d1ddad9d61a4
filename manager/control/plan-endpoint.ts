// What a service's networks, published ports and files mean in this cluster: names become ids, and what others have is refused.
// Pure. What the spec alone can tell is refused before (`core/validate-endpoint.ts`).

import { invalidField, SwarmError } from '../../core/errors.ts';
import type {
  Network,
  NetworkAttachment,
  PortConfig,
  Service,
  ServiceSpec,
} from '../../core/generated/objects.ts';
import { type Address, contains, formatAddress, parseAddress, parsePrefix } from '../../core/ip-address.ts';
import { isTerminal } from '../../core/task-state.ts';
import { isNodeNetwork, isSamePort } from '../../core/validate-endpoint.ts';
import { isHostAddress } from '../../core/validate-network.ts';
import type { TablesView } from '../store/tables.ts';
import { findNetwork } from './find.ts';
import { hasFiles, resolvedFiles } from './payload-use.ts';

/** Other objects decide whether this spec is acceptable: nobody else may decide meanwhile. */
export function hasOthersToMind(spec: ServiceSpec): boolean {
  const { task, endpoint } = spec;
  const isPart = task.networks.some(({ networkId }) => !isNodeNetwork(networkId));
  return isPart || endpoint.ports.length > 0 || hasFiles(spec);
}

/** The spec with ids for its networks and files. Throws on a network that is not there or not for services, on taken ports and addresses. */
export function placedSpec(view: TablesView, serviceId: string, spec: ServiceSpec): ServiceSpec {
  requireFreePorts(view, serviceId, spec.endpoint.ports);
  const seen = new Set<string>();
  const networks = spec.task.networks.map((attachment) => {
    if (isNodeNetwork(attachment.networkId)) return attachment;
    const network = findNetwork(view, attachment.networkId);
    if (seen.has(network.id)) throw invalidField('network', `${network.spec.name} is used twice`);
    seen.add(network.id);
    requireForServices(network);
    return placedAttachment(view, serviceId, attachment, network);
  });
  const ports = spec.endpoint.ports.map(canonicalPort);
  const container = resolvedFiles(view, spec.task.container);
  return { ...spec, task: { ...spec.task, container, networks }, endpoint: { ...spec.endpoint, ports } };
}

/** With its address in the one way that it is written: whoever compares ports compares texts. */
function canonicalPort(port: PortConfig): PortConfig {
  const address = parseAddress(port.hostAddress);
  return address === undefined ? port : { ...port, hostAddress: formatAddress(address) };
}

function requireForServices({ spec }: Network): void {
  if (spec.ingress)
    throw invalidField('network', `${spec.name} is the ingress network: publish a port to be part of it`);
  if (spec.configOnly)
    throw invalidField(
      'network',
      `${spec.name} is config-only: use a network made with --config-from ${spec.name}`,
    );
}

function placedAttachment(
  view: TablesView,
  serviceId: string,
  attachment: NetworkAttachment,
  network: Network,
): NetworkAttachment {
  const virtualAddresses = attachment.virtualAddresses.map((text) => {
    const address = parseAddress(text);
    if (address === undefined) throw invalidField('network: vip', `"${text}" must be an IP address`);
    requireInNetwork(network, address);
    requireFreeAddress(view, serviceId, network, address);
    return formatAddress(address);
  });
  return { ...attachment, networkId: network.id, virtualAddresses };
}

function requireInNetwork({ spec, subnets }: Network, address: Address): void {
  const known = subnets.length > 0 ? subnets : spec.subnets;
  if (known.length === 0) return;
  const text = formatAddress(address);
  const subnet = known.find((candidate) => {
    const prefix = parsePrefix(candidate.subnet);
    return prefix !== undefined && contains(prefix, address) && isHostAddress(prefix, address);
  });
  if (subnet === undefined) {
    const all = known.map((candidate) => candidate.subnet).join(', ');
    throw invalidField('network: vip', `${text} must be an address of network ${spec.name}: ${all}`);
  }
  if ([subnet.gateway, ...Object.values(subnet.auxiliaryAddresses)].includes(text))
    throw invalidField('network: vip', `${text} is the gateway of network ${spec.name}, or withheld by it`);
}

function requireFreeAddress(view: TablesView, serviceId: string, network: Network, address: Address): void {
  const text = formatAddress(address);
  const holder = serviceWith(view, serviceId, network.id, text) ?? taskWith(view, network.id, text);
  if (holder !== undefined)
    throw new SwarmError(
      'failed-precondition',
      `network: vip: ${text} of network ${network.spec.name} is in use by ${holder}`,
    );
}

/** A service that has the address, or asks for it. */
function serviceWith(
  view: TablesView,
  exceptId: string,
  networkId: string,
  text: string,
): string | undefined {
  for (const { id, spec, virtualAddresses } of view.service.values()) {
    if (id === exceptId) continue;
    const has = virtualAddresses.some((given) => given.networkId === networkId && given.address === text);
    const asks = spec.task.networks.some(
      (asked) => asked.networkId === networkId && asked.virtualAddresses.includes(text),
    );
    if (has || asks) return `service ${spec.name}`;
  }
  return undefined;
}

function taskWith(view: TablesView, networkId: string, text: string): string | undefined {
  for (const { attachments, status, serviceId, slot } of view.task.values())
    if (
      !isTerminal(status.state) &&
      attachments.some((given) => given.networkId === networkId && given.addresses.includes(text))
    )
      return `task ${view.service.get(serviceId)?.spec.name ?? serviceId}.${slot}`;
  return undefined;
}

/** Ports in host mode of several services may be one: those tasks go to different nodes. */
function requireFreePorts(view: TablesView, serviceId: string, ports: readonly PortConfig[]): void {
  if (ports.length === 0) return;
  for (const other of view.service.values()) {
    if (other.id === serviceId) continue;
    for (const port of ports) {
      const taken = portsOf(other).find(
        (candidate) =>
          isSamePort(port, candidate) &&
          (port.publishMode === 'ingress' || candidate.publishMode === 'ingress'),
      );
      if (taken !== undefined) throw portInUse(port, other, taken);
    }
  }
}

/** As asked for, and as chosen by the managers. */
function portsOf({ spec, ports }: Service): readonly PortConfig[] {
  return [...spec.endpoint.ports, ...ports];
}

function portInUse(
  { publishedPort, protocol }: PortConfig,
  { id, spec }: Service,
  taken: PortConfig,
): SwarmError {
  const how = taken.publishMode === 'ingress' ? 'an ingress port' : 'a port of its nodes (mode=host)';
  return new SwarmError(
    'failed-precondition',
    `publish: port ${publishedPort}/${protocol} is already in use by service '${spec.name}' (${id}) as ${how}`,
    { hint: 'Publish another port, or leave the published port out: then one is chosen.' },
  );
}
