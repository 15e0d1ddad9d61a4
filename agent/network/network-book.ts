// What the managers have told this node of each network, and what follows from it for the kernel. Pure.

import type { Network, NetworkPolicy as SpecPolicy } from '../../core/generated/objects.ts';
import {
  type Assignments,
  emptyAssignments,
  emptyNetworkUpdate,
  type NetworkEndpoint,
  type NetworkService,
  type NetworkUpdate,
  type NodeLocation,
} from '../../proto/generated/dispatcher.ts';
import { parseIpv4 } from './ipv4.ts';
import type {
  NameRecord,
  NetworkPolicy,
  OverlayNetwork,
  OverlayState,
  PublishedPort,
  RemoteEndpoint,
  VirtualService,
} from './overlay/overlay.ts';

/** One network, as last heard. */
interface Known {
  network: Network;
  dataPathPort: number;
  readonly endpoints: Map<string, NetworkEndpoint>;
  readonly services: Map<string, NetworkService>;
}

export class NetworkBook {
  readonly #nodeId: string;
  readonly #networks = new Map<string, Known>();
  readonly #nodes = new Map<string, NodeLocation>();
  /** Tasks of this node that take no more connections, before the managers say so. */
  readonly #leaving = new Set<string>();

  constructor(nodeId: string) {
    this.#nodeId = nodeId;
  }

  get ids(): string[] {
    return [...this.#networks.keys()];
  }

  /** Takes in a message; returns the networks that look different now. */
  hear({ complete, networks, removedNetworkIds, nodes, removedNodeIds }: Assignments): Set<string> {
    const changed = new Set<string>();
    const said = new Set(networks.map(({ networkId }) => networkId));
    const gone = complete ? this.ids.filter((id) => !said.has(id)) : removedNetworkIds;
    for (const id of gone) if (this.#networks.delete(id)) changed.add(id);
    for (const update of networks) if (this.#update(update)) changed.add(update.networkId);
    if (complete && nodes.length > 0) this.#nodes.clear();
    for (const node of nodes) this.#nodes.set(node.nodeId, node);
    for (const id of removedNodeIds) this.#nodes.delete(id);
    if (nodes.length + removedNodeIds.length > 0) for (const id of this.#networks.keys()) changed.add(id);
    return changed;
  }

  /** The task takes no new connections any more. Returns its networks. */
  leave(taskId: string): string[] {
    const networkIds = this.#networksOf(taskId);
    if (networkIds.length > 0) this.#leaving.add(taskId);
    return networkIds;
  }

  /** undefined: the managers have not told of it. */
  get(networkId: string): Network | undefined {
    return this.#networks.get(networkId)?.network;
  }

  /** 0: no network is known. */
  get dataPathPort(): number {
    for (const { dataPathPort } of this.#networks.values()) return dataPathPort;
    return 0;
  }

  /** Some service sends it connections. */
  isServing(taskId: string): boolean {
    return [...this.#networks.values()].some(({ endpoints }) => endpoints.get(taskId)?.serving === true);
  }

  /** undefined: it is not there, or the kernel needs nothing of ours for it. */
  overlayNetwork(networkId: string): OverlayNetwork | undefined {
    const network = this.get(networkId);
    if (network !== undefined && isOfParent(network)) return undefined;
    const subnet = network?.subnets.find(({ gateway }) => parseIpv4(gateway) !== undefined);
    if (network === undefined || subnet === undefined) return undefined;
    return {
      id: networkId,
      vni: network.vni,
      subnet: subnet.subnet,
      gateway: subnet.gateway,
      isInternal: network.spec.internal,
      ...(network.spec.ingress && { isIngress: true }),
      mtu: network.mtu,
    };
  }

  /** What the kernel is to know of a network; nothing for one that is not there. */
  overlayState(networkId: string): OverlayState {
    const known = this.#networks.get(networkId);
    if (known === undefined) return { remotes: [], services: [], names: [] };
    const isHere = ({ nodeId }: NetworkEndpoint) => nodeId === this.#nodeId;
    const all = [...known.endpoints.values()];
    // A bridge ends at its node.
    const endpoints = known.network.spec.driver === 'bridge' ? all.filter(isHere) : all;
    const serving = Map.groupBy(
      endpoints.filter(({ serving, taskId }) => serving && !this.#leaving.has(taskId)),
      ({ serviceId }) => serviceId,
    );
    const services = [...known.services.values()];
    const servingOf = ({ serviceId }: NetworkService) => serving.get(serviceId) ?? [];
    const backendsOf = (service: NetworkService) => servingOf(service).flatMap(addressesOf);
    return {
      remotes: endpoints.flatMap((endpoint) => this.#remotesOf(endpoint)),
      ...(known.network.spec.ingress && {
        nodes: this.#otherNodes(),
        published: services.flatMap((service) => this.#publishedPorts(service, servingOf(service))),
      }),
      ...(known.network.spec.policy && {
        policy: networkPolicy(known.network.spec.policy, services, endpoints),
      }),
      services: services.flatMap((service) => virtualServices(service, backendsOf(service))),
      names: [
        ...services.flatMap((service) => serviceNames(service, backendsOf(service))),
        ...endpoints.map((endpoint) => taskName(endpoint, known.services.get(endpoint.serviceId))),
      ].filter(({ name }) => name !== ''),
    };
  }

  /** A message that says all of this again, for the next process. */
  memory(): Assignments {
    const networks = [...this.#networks].map(([networkId, { endpoints, services, ...rest }]) => ({
      ...emptyNetworkUpdate,
      ...rest,
      networkId,
      complete: true,
      endpoints: [...endpoints.values()],
      services: [...services.values()],
    }));
    return { ...emptyAssignments, complete: true, networks, nodes: [...this.#nodes.values()] };
  }

  #update(update: NetworkUpdate): boolean {
    const { networkId, complete, network, dataPathPort } = update;
    let known = complete ? undefined : this.#networks.get(networkId);
    if (known === undefined) {
      // Differences to a network that this node was never told of are nobody's.
      if (!complete || network === undefined) return false;
      known = { network, dataPathPort, endpoints: new Map(), services: new Map() };
      this.#networks.set(networkId, known);
    }
    if (network !== undefined) Object.assign(known, { network, dataPathPort });
    for (const endpoint of update.endpoints) known.endpoints.set(endpoint.taskId, endpoint);
    for (const id of update.removedTaskIds) {
      known.endpoints.delete(id);
      this.#leaving.delete(id);
    }
    for (const service of update.services) known.services.set(service.serviceId, service);
    for (const id of update.removedServiceIds) known.services.delete(id);
    return true;
  }

  #networksOf(taskId: string): string[] {
    return [...this.#networks].filter(([, { endpoints }]) => endpoints.has(taskId)).map(([id]) => id);
  }

  #otherNodes(): string[] {
    const others = [...this.#nodes.values()].filter(({ nodeId }) => nodeId !== this.#nodeId);
    return others.map(({ dataPathAddress }) => dataPathAddress);
  }

  #publishedPorts({ ports }: NetworkService, serving: readonly NetworkEndpoint[]): PublishedPort[] {
    const here = serving.filter(({ nodeId }) => nodeId === this.#nodeId);
    return ports.map(({ protocol, publishedPort, targetPort, hostAddress, hostInterface, locality }) => {
      const chosen = locality === 'only' || (locality === 'prefer' && here.length > 0) ? here : serving;
      return {
        protocol,
        port: publishedPort,
        ...(hostAddress !== '' && { hostAddress }),
        ...(hostInterface !== '' && { hostInterface }),
        backends: chosen.flatMap(addressesOf).map((address) => ({ address, port: targetPort })),
      };
    });
  }

  #remotesOf(endpoint: NetworkEndpoint): RemoteEndpoint[] {
    const nodeAddress = this.#nodes.get(endpoint.nodeId)?.dataPathAddress;
    if (endpoint.nodeId === this.#nodeId || nodeAddress === undefined) return [];
    return addressesOf(endpoint).map((address) => ({ address, nodeAddress }));
  }
}

/** Its containers are hosts of the node's own network. */
export function isOfParent({ spec }: Network): boolean {
  return spec.driver === 'macvlan' || spec.driver === 'ipvlan';
}

function virtualServices(
  { virtualAddresses }: NetworkService,
  backends: readonly string[],
): VirtualService[] {
  return virtualAddresses.filter(isIpv4).map((vip) => ({ vip, backends }));
}

function serviceNames(service: NetworkService, backends: readonly string[]): NameRecord[] {
  const virtual = service.virtualAddresses.filter(isIpv4);
  const addresses = virtual.length > 0 ? virtual : backends;
  return [
    ...[service.name, ...service.aliases].map((name) => ({ name, addresses })),
    { name: `tasks.${service.name}`, addresses: backends },
  ];
}

/** "*" is every service that is part of the network. */
function networkPolicy(
  { allow }: SpecPolicy,
  services: readonly NetworkService[],
  endpoints: readonly NetworkEndpoint[],
): NetworkPolicy {
  const byService = Map.groupBy(endpoints, ({ serviceId }) => serviceId);
  const groups = services.map(({ name, serviceId }) => ({
    name,
    addresses: (byService.get(serviceId) ?? []).flatMap(addressesOf),
  }));
  const named = (name: string) => (name === '*' ? groups.map((group) => group.name) : [name]);
  return {
    groups,
    allow: allow.flatMap((rule) =>
      named(rule.from).flatMap((from) =>
        named(rule.to).map((to) => ({
          from,
          to,
          ...(rule.port > 0 && { port: { protocol: rule.protocol, number: rule.port } }),
        })),
      ),
    ),
  };
}

/** "web.1.<task id>", as Swarm calls the container. */
function taskName(endpoint: NetworkEndpoint, service: NetworkService | undefined): NameRecord {
  const name = service === undefined ? '' : `${service.name}.${endpoint.slot}.${endpoint.taskId}`;
  return { name, addresses: addressesOf(endpoint) };
}

function addressesOf({ addresses }: NetworkEndpoint): string[] {
  return addresses.filter(isIpv4);
}

function isIpv4(address: string): boolean {
  return parseIpv4(address) !== undefined;
}
