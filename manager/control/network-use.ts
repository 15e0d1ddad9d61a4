// Who is part of which network, and how full each is. Pure.

import type { Network, Service, ServiceSpec, Subnet, Task } from '../../core/generated/objects.ts';
import {
  type Address,
  contains,
  lastAddress,
  parseAddress,
  parsePrefix,
  prefixSize,
} from '../../core/ip-address.ts';
import { isTerminal } from '../../core/task-state.ts';
import { isNodeNetwork } from '../../core/validate-endpoint.ts';
import type { NetworkUse } from '../../proto/generated/control.ts';
import type { TablesView } from '../store/tables.ts';

// Who is named when a network cannot go; the rest is counted.
const USERS_NAMED_MAX = 3;

/** The users of one network. */
export interface NetworkTally {
  readonly use: NetworkUse;
  /** "service web", "task web.1", "network lan": some of them. */
  readonly users: readonly string[];
  readonly userCount: number;
}

/** Of every network, by id, in one pass over services and tasks. */
export function tallyNetworks(view: TablesView): ReadonlyMap<string, NetworkTally> {
  const drafts = new Map([...view.network.values()].map((network) => [network.id, new Draft(network)]));
  const ingressId = ingressNetwork(view)?.id;
  for (const service of view.service.values()) {
    for (const id of networksOf(service.spec, ingressId)) drafts.get(id)?.addService(service);
    for (const { networkId, address } of service.virtualAddresses)
      if (isIpv4(address)) drafts.get(networkId)?.countServiceAddress();
  }
  for (const task of view.task.values())
    if (!isTerminal(task.status.state)) addTask(view, drafts, task, ingressId);
  for (const { spec } of view.network.values()) {
    const source = spec.configFrom === '' ? undefined : view.byName('network', spec.configFrom);
    if (source !== undefined) drafts.get(source.id)?.addNetwork(spec.name);
  }
  return new Map([...drafts].map(([id, draft]) => [id, draft.tally()]));
}

/** A network of the task that has no address left. */
export function fullNetworkOf(view: TablesView, task: Task): Network | undefined {
  const spec = view.revisionOf(task)?.spec;
  if (spec === undefined) return undefined;
  const tallies = tallyNetworks(view);
  const id = networksOf(spec, ingressNetwork(view)?.id).find((candidate) =>
    isFull(tallies.get(candidate)?.use),
  );
  return id === undefined ? undefined : view.network.get(id);
}

/** Nothing that it has is free; one without addresses of its own is never full. */
export function isFull(use: NetworkUse | undefined): boolean {
  return use !== undefined && use.capacity > 0 && use.taskAddresses + use.serviceAddresses >= use.capacity;
}

/** The network that ports published in ingress mode are reached by. */
export function ingressNetwork(view: TablesView): Network | undefined {
  for (const network of view.network.values()) if (network.spec.ingress) return network;
  return undefined;
}

/** Ids of the cluster's networks that a service of this spec is part of. */
export function networksOf({ task, endpoint }: ServiceSpec, ingressId: string | undefined): string[] {
  const ids = task.networks.map(({ networkId }) => networkId).filter((id) => !isNodeNetwork(id));
  const isPublished = endpoint.ports.some(({ publishMode }) => publishMode === 'ingress');
  return isPublished && ingressId !== undefined ? [...ids, ingressId] : ids;
}

function addTask(
  view: TablesView,
  drafts: ReadonlyMap<string, Draft>,
  task: Task,
  ingressId: string | undefined,
): void {
  for (const { networkId, addresses } of task.attachments) {
    const draft = drafts.get(networkId);
    draft?.addTask(view, task);
    for (const address of addresses) if (isIpv4(address)) draft?.countTaskAddress();
  }
  const spec = view.revisionOf(task)?.spec;
  if (spec === undefined) return;
  for (const id of networksOf(spec, ingressId))
    if (!task.attachments.some(({ networkId }) => networkId === id)) drafts.get(id)?.addTask(view, task);
}

class Draft {
  readonly #network: Network;
  readonly #serviceIds = new Set<string>();
  readonly #users: string[] = [];
  #userCount = 0;
  #taskAddresses = 0;
  #serviceAddresses = 0;

  constructor(network: Network) {
    this.#network = network;
  }

  addService({ id, spec }: Service): void {
    this.#serviceIds.add(id);
    this.#add(`service ${spec.name}`);
  }

  /** A task counts for its service as long as that refers to the network itself. */
  addTask(view: TablesView, { serviceId, slot }: Task): void {
    if (this.#serviceIds.has(serviceId)) return;
    this.#add(`task ${view.service.get(serviceId)?.spec.name ?? serviceId}.${slot}`);
  }

  addNetwork(name: string): void {
    this.#add(`network ${name}`);
  }

  countTaskAddress(): void {
    this.#taskAddresses++;
  }

  countServiceAddress(): void {
    this.#serviceAddresses++;
  }

  tally(): NetworkTally {
    return {
      use: {
        taskAddresses: this.#taskAddresses,
        serviceAddresses: this.#serviceAddresses,
        capacity: capacityOf(this.#network),
        inUse: this.#userCount > 0,
      },
      users: this.#users,
      userCount: this.#userCount,
    };
  }

  #add(user: string): void {
    this.#userCount++;
    if (this.#users.length < USERS_NAMED_MAX) this.#users.push(user);
  }
}

/** IPv4 addresses that tasks and services can have. */
export function capacityOf({ subnets, spec }: Network): number {
  const known = subnets.length > 0 ? subnets : spec.subnets;
  return known.reduce((sum, subnet) => sum + capacityOfSubnet(subnet), 0);
}

function capacityOfSubnet({ subnet, ipRange, gateway, auxiliaryAddresses }: Subnet): number {
  const prefix = parsePrefix(subnet);
  const range = ipRange === '' ? prefix : parsePrefix(ipRange);
  if (prefix === undefined || range === undefined || prefix.family === 6) return 0;
  const taken = [gateway, ...Object.values(auxiliaryAddresses)]
    .map(parseAddress)
    .filter((address) => address !== undefined);
  const edges: Address[] = [{ family: 4, value: prefix.base }, lastAddress(prefix)];
  const withheld = new Set(
    [...taken, ...edges].filter((address) => contains(range, address)).map(({ value }) => value),
  );
  return Number(prefixSize(range)) - withheld.size;
}

/** Of an address that the managers have given: reading a hundred thousand of them would stop everything else. */
function isIpv4(address: string): boolean {
  return !address.includes(':');
}
