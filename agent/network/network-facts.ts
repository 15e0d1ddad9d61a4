// What the managers have told of one network, and what follows from it for the kernel. What follows is kept for each service:
// with a thousand of them, a change of one costs as much as one.

import type { Network, NetworkPolicy as SpecPolicy } from '../../core/generated/objects.ts';
import { taskName } from '../../core/task-name.ts';
import {
  emptyNetworkUpdate,
  type NetworkEndpoint,
  type NetworkService,
  type NetworkUpdate,
  type NodeLocation,
} from '../../proto/generated/dispatcher.ts';
import { familyOf } from './ip-bytes.ts';
import type {
  NameGroup,
  NameRecord,
  NetworkPolicy,
  OverlayNetwork,
  OverlayState,
  PublishedPort,
  RemoteEndpoint,
  VirtualService,
} from './overlay/overlay.ts';

/** What this node knows beside what the managers say of the network. */
export interface Surroundings {
  readonly nodeId: string;
  /** undefined: nothing is known of the node. */
  readonly locationOf: (nodeId: string) => NodeLocation | undefined;
  /** The task takes no more connections, although the managers have not said so yet. */
  readonly isLeaving: (taskId: string) => boolean;
}

/** What a service, or tasks whose service is gone, adds to the state of a network. */
interface Part {
  readonly remotes: readonly RemoteEndpoint[];
  readonly services: readonly VirtualService[];
  readonly names: NameGroup;
  readonly published: readonly PublishedPort[];
}

export class NetworkFacts {
  readonly #surroundings: Surroundings;
  #network: Network;
  #dataPathPort: number;
  readonly #endpoints = new Map<string, NetworkEndpoint>();
  readonly #services = new Map<string, NetworkService>();
  /** Service → its tasks. */
  readonly #tasks = new Map<string, Set<string>>();
  readonly #parts = new Map<string, Part>();
  #remotes: readonly RemoteEndpoint[] | undefined;
  readonly #stopped = new Set<string>();

  constructor(surroundings: Surroundings, network: Network, dataPathPort: number) {
    this.#surroundings = surroundings;
    this.#network = network;
    this.#dataPathPort = dataPathPort;
  }

  get network(): Network {
    return this.#network;
  }

  get dataPathPort(): number {
    return this.#dataPathPort;
  }

  endpoint(taskId: string): NetworkEndpoint | undefined {
    return this.#endpoints.get(taskId);
  }

  serviceFacts(serviceId: string): {
    readonly service: NetworkService | undefined;
    readonly endpoints: readonly NetworkEndpoint[];
  } {
    return { service: this.#services.get(serviceId), endpoints: this.#endpointsOf(serviceId) };
  }

  hear({ network, dataPathPort, ...update }: NetworkUpdate): void {
    if (network !== undefined) {
      [this.#network, this.#dataPathPort] = [network, dataPathPort];
      this.forgetAll();
    }
    for (const endpoint of update.endpoints) this.#putEndpoint(endpoint);
    for (const id of update.removedTaskIds) this.#removeEndpoint(id);
    for (const service of update.services) {
      this.#services.set(service.serviceId, service);
      this.#forget(service.serviceId);
    }
    for (const id of update.removedServiceIds) {
      this.#services.delete(id);
      this.#forget(id);
    }
  }

  /** Tasks that have stopped serving since the last call, and are there still. */
  takeStopped(): readonly NetworkEndpoint[] {
    const stopped = [...this.#stopped].flatMap((taskId) => this.#endpoints.get(taskId) ?? []);
    this.#stopped.clear();
    return stopped.filter(({ serving }) => !serving);
  }

  /** Of those that served by what was known before, when all is told anew: this node may have been away meanwhile. */
  noteStopped(before: NetworkFacts): void {
    for (const taskId of this.#endpoints.keys())
      if (before.endpoint(taskId)?.serving === true) this.#stopped.add(taskId);
  }

  /** Something of the surroundings is different for this task. */
  reconsider(taskId: string): void {
    const endpoint = this.#endpoints.get(taskId);
    if (endpoint !== undefined) this.#forget(endpoint.serviceId);
  }

  /** Nothing that followed from the surroundings counts any more. */
  forgetAll(): void {
    this.#parts.clear();
    this.#remotes = undefined;
  }

  /** undefined: the kernel needs nothing of ours for it. */
  overlayNetwork(): OverlayNetwork | undefined {
    const { id, vni, mtu, spec, subnets } = this.#network;
    if (subnets.length === 0 || isOfParent(this.#network)) return undefined;
    return {
      id,
      vni,
      subnets: subnets.map(({ subnet, gateway }) => ({ subnet, gateway })),
      isInternal: spec.internal,
      ...(spec.ingress && { isIngress: true }),
      mtu,
    };
  }

  overlayState(otherNodes: readonly NodeLocation[]): OverlayState {
    const { ingress, policy } = this.#network.spec;
    const parts = [...new Set([...this.#services.keys(), ...this.#tasks.keys()])].map((id) => this.#part(id));
    this.#remotes ??= parts.flatMap(({ remotes }) => remotes);
    return {
      remotes: this.#remotes,
      ...(ingress && {
        nodes: otherNodes.map((node) => this.#addressOf(node)).filter((address) => address !== ''),
        published: parts.flatMap(({ published }) => published),
      }),
      ...(policy && { policy: this.#policy(policy) }),
      services: parts.flatMap(({ services }) => services),
      names: parts.map(({ names }) => names),
    };
  }

  /** A message that says all of this again. */
  memory(): NetworkUpdate {
    return {
      ...emptyNetworkUpdate,
      networkId: this.#network.id,
      complete: true,
      network: this.#network,
      dataPathPort: this.#dataPathPort,
      endpoints: [...this.#endpoints.values()],
      services: [...this.#services.values()],
    };
  }

  #putEndpoint(endpoint: NetworkEndpoint): void {
    const { taskId, serviceId } = endpoint;
    const tasks = this.#tasks.get(serviceId) ?? new Set();
    this.#tasks.set(serviceId, tasks.add(taskId));
    const before = this.#endpoints.get(taskId);
    this.#endpoints.set(taskId, endpoint);
    if (before?.serving === true && !endpoint.serving) this.#stopped.add(taskId);
    // Most changes are of who serves, and leave the routes alone.
    const isSamePlace =
      before?.nodeId === endpoint.nodeId && `${before.addresses}` === `${endpoint.addresses}`;
    this.#forget(serviceId, isSamePlace);
  }

  #removeEndpoint(taskId: string): void {
    const endpoint = this.#endpoints.get(taskId);
    if (endpoint === undefined) return;
    this.#endpoints.delete(taskId);
    const tasks = this.#tasks.get(endpoint.serviceId);
    tasks?.delete(taskId);
    if (tasks?.size === 0) this.#tasks.delete(endpoint.serviceId);
    this.#forget(endpoint.serviceId);
  }

  #forget(serviceId: string, keepsRemotes = false): void {
    this.#parts.delete(serviceId);
    if (!keepsRemotes) this.#remotes = undefined;
  }

  #part(serviceId: string): Part {
    let part = this.#parts.get(serviceId);
    if (part === undefined) {
      part = this.#makePart(this.#services.get(serviceId), this.#endpointsOf(serviceId));
      this.#parts.set(serviceId, part);
    }
    return part;
  }

  /** Of a bridge, which ends at its node, those here. */
  #endpointsOf(serviceId: string): NetworkEndpoint[] {
    const all = [...(this.#tasks.get(serviceId) ?? [])].flatMap((id) => this.#endpoints.get(id) ?? []);
    return this.#network.spec.driver === 'bridge' ? all.filter((endpoint) => this.#isHere(endpoint)) : all;
  }

  #makePart(service: NetworkService | undefined, endpoints: readonly NetworkEndpoint[]): Part {
    const serving = endpoints.filter(
      ({ serving, taskId }) => serving && !this.#surroundings.isLeaving(taskId),
    );
    const remotes = endpoints.flatMap((endpoint) => this.#remotesOf(endpoint));
    if (service === undefined) return { remotes, services: [], names: [], published: [] };
    const backends = serving.flatMap(({ addresses }) => addresses);
    return {
      remotes,
      services: service.virtualAddresses.map((vip) => virtualService(service, vip, serving)),
      names: [
        ...serviceNames(service, backends),
        ...endpoints.map((endpoint) => nameRecord(service, endpoint)),
      ],
      published: this.#network.spec.ingress ? this.#publishedPorts(service, serving, endpoints) : [],
    };
  }

  #isHere({ nodeId }: NetworkEndpoint): boolean {
    return nodeId === this.#surroundings.nodeId;
  }

  /** Where a node's containers of this network are reached; empty: nowhere yet. */
  #addressOf(location: NodeLocation | undefined): string {
    if (location === undefined) return '';
    return this.#network.spec.encrypted ? location.tunnelAddress : location.dataPathAddress;
  }

  #remotesOf(endpoint: NetworkEndpoint): RemoteEndpoint[] {
    if (this.#isHere(endpoint)) return [];
    const nodeAddress = this.#addressOf(this.#surroundings.locationOf(endpoint.nodeId));
    if (nodeAddress === '') return [];
    return endpoint.addresses.map((address) => ({ address, nodeAddress }));
  }

  /** Tasks here are open to other nodes before they serve: others may hear first that they do. */
  #publishedPorts(
    service: NetworkService,
    serving: readonly NetworkEndpoint[],
    endpoints: readonly NetworkEndpoint[],
  ): PublishedPort[] {
    const here = serving.filter((endpoint) => this.#isHere(endpoint));
    const starting = endpoints.filter((endpoint) => this.#isHere(endpoint) && !serving.includes(endpoint));
    const backendsAt = (tasks: readonly NetworkEndpoint[], port: number) =>
      tasks.flatMap((endpoint) =>
        endpoint.addresses.map((address) => ({
          address,
          port,
          ...(endpoint.weight > 1 && { weight: endpoint.weight }),
        })),
      );
    return service.ports.map(
      ({ protocol, publishedPort, targetPort, hostAddress, hostInterface, locality }) => {
        const chosen = locality === 'only' || (locality === 'prefer' && here.length > 0) ? here : serving;
        return {
          protocol,
          port: publishedPort,
          ...(hostAddress !== '' && { hostAddress }),
          ...(hostInterface !== '' && { hostInterface }),
          ...affinityOf(service),
          backends: backendsAt(chosen, targetPort),
          ...(starting.length > 0 && { here: backendsAt(starting, targetPort) }),
        };
      },
    );
  }

  /** "*" is every service that is part of the network. */
  #policy({ allow }: SpecPolicy): NetworkPolicy {
    const groups = [...this.#services.values()].map(({ name, serviceId }) => ({
      name,
      addresses: this.#endpointsOf(serviceId).flatMap((endpoint) => endpoint.addresses),
    }));
    const named = (name: string) => (name === '*' ? groups.map((group) => group.name) : [name]);
    return {
      groups,
      allow: allow.flatMap(({ from, to, port, protocol }) =>
        named(from).flatMap((source) =>
          named(to).map((target) => ({
            from: source,
            to: target,
            ...(port > 0 && { port: { protocol, number: port } }),
          })),
        ),
      ),
    };
  }
}

/** Its backends are the addresses of its own family. */
function virtualService(
  service: NetworkService,
  vip: string,
  serving: readonly NetworkEndpoint[],
): VirtualService {
  const backends = serving.flatMap(({ addresses, weight }) =>
    addresses
      .filter((address) => familyOf(address) === familyOf(vip))
      .map((address) => ({ address, weight })),
  );
  return {
    vip,
    backends: backends.map(({ address }) => address),
    ...affinityOf(service),
    ...(hasWeights(serving) && { weights: backends.map(({ weight }) => weight) }),
  };
}

/** Its containers are hosts of the node's own network. */
export function isOfParent({ spec }: Network): boolean {
  return spec.driver === 'macvlan' || spec.driver === 'ipvlan';
}

function serviceNames(service: NetworkService, backends: readonly string[]): NameRecord[] {
  const { virtualAddresses } = service;
  const addresses = virtualAddresses.length > 0 ? virtualAddresses : backends;
  return [
    ...[service.name, ...service.aliases].map((name) => ({ name, addresses })),
    { name: `tasks.${service.name}`, addresses: backends },
  ];
}

/** "web.1.<task id>", as Swarm calls the container. */
function nameRecord({ name }: NetworkService, endpoint: NetworkEndpoint): NameRecord {
  return { name: `${taskName(name, endpoint)}.${endpoint.taskId}`, addresses: endpoint.addresses };
}

function affinityOf({ affinity }: NetworkService): { readonly affinity?: 'client-address' } {
  return affinity === 'client-address' ? { affinity } : {};
}

function hasWeights(endpoints: readonly NetworkEndpoint[]): boolean {
  return endpoints.some(({ weight }) => weight > 1);
}
