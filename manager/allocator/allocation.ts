// Which addresses and ports are given out, kept up with the store, and what networks, services and tasks get of them.
// Decides only; the loop writes.

import { isDeepStrictEqual } from 'node:util';
import { hasCode, messageOf } from '../../core/errors.ts';
import type {
  Network,
  NetworkAttachment,
  Service,
  ServiceSpec,
  Task,
  TaskAttachment,
  VirtualAddress,
} from '../../core/generated/objects.ts';
import { isIngressPort } from '../../core/ingress-port.ts';
import { isPlaced, isTerminal, isWanted } from '../../core/task-state.ts';
import type { StoreEvent } from '../store/apply-entry.ts';
import type { TablesView } from '../store/tables.ts';
import { AddressSpace } from './address-space.ts';
import { NotYet } from './not-yet.ts';
import { planNetwork } from './plan-network.ts';
import { PortBook } from './port-book.ts';

/** Used of all, from which on a network counts as nearly full. */
const NEARLY_FULL = 0.8;

/** It has not ended, nor been given up before a node had it. */
export function needsAddresses(task: Task): boolean {
  const { state } = task.status;
  return !isTerminal(state) && (isWanted(task) || isPlaced(state));
}

export class Allocation {
  readonly #view: TablesView;
  readonly #spaces = new Map<string, AddressSpace[]>();
  readonly #ports = new PortBook();

  /** Reads everything once; from then on `note` has to hear of every event. */
  constructor(view: TablesView) {
    this.#view = view;
    for (const network of view.network.values()) this.#noteNetwork(network);
    for (const service of view.service.values()) this.#claimService(service);
    for (const task of view.task.values()) if (needsAddresses(task)) this.#claimTask(task);
  }

  /** True when something was given back or became possible: who waits should try again. */
  note({ kind, action, object, previous }: StoreEvent, nowMs: number): boolean {
    if (kind === 'network') {
      if (action === 'removed') this.#spaces.delete(object.id);
      else this.#noteNetwork(object as Network);
      return true;
    }
    if (kind === 'service') {
      const before = (previous ?? (action === 'removed' ? object : undefined)) as Service | undefined;
      const after = action === 'removed' ? undefined : (object as Service);
      return this.#moveService(before, after, nowMs);
    }
    if (kind !== 'task') return false;
    const task = object as Task;
    if (action !== 'removed' && needsAddresses(task)) return false;
    this.release(task.attachments, task.id, nowMs);
    return task.attachments.length > 0;
  }

  /** The network with what it lacked, or with the reason why it cannot have it; undefined: nothing changes. */
  network(network: Network): Network | undefined {
    const next = { ...network, ...this.#choice(network) };
    return isDeepStrictEqual(next, network) ? undefined : next;
  }

  /**
   * The service with addresses and ports as its spec asks for; undefined: nothing changes. Throws `NotYet`, and gives nothing
   * then.
   */
  service(service: Service, nowMs: number): Service | undefined {
    const found = this.#virtualAddresses(service, nowMs);
    const ports = this.#ports.choose(service);
    take(found, service.id);
    const virtualAddresses = found.map(({ networkId, address }) => ({ networkId, address }));
    const isSame =
      isDeepStrictEqual(virtualAddresses, service.virtualAddresses) &&
      isDeepStrictEqual(ports, service.ports);
    return isSame ? undefined : { ...service, virtualAddresses, ports };
  }

  /** What a task gets. Throws `NotYet`, and gives nothing then: not even to rest, since nobody has heard of it. */
  task(task: Task, spec: ServiceSpec, nowMs: number): TaskAttachment[] {
    const networks = spec.task.networks.flatMap((attachment) => this.#networkOf(attachment) ?? []);
    if (spec.endpoint.ports.some(isIngressPort)) networks.push(this.#meshNetwork());
    const found = networks.map((network) =>
      this.#familiesOf(network).map((spaces) => findIn(spaces, nowMs, network)),
    );
    take(found.flat(), task.id);
    return networks.map(({ id: networkId }, at) => ({
      networkId,
      addresses: (found[at] ?? []).map(({ address }) => address),
    }));
  }

  /** Takes back what a task was to get and did not. */
  release(attachments: readonly TaskAttachment[], owner: string, nowMs: number): void {
    for (const { networkId, addresses } of attachments)
      for (const space of this.#spaces.get(networkId) ?? [])
        for (const address of addresses) space.release(address, owner, nowMs);
  }

  /** Networks with hardly an address left: few enough to say so before there is none. */
  nearlyFull(): { readonly network: Network; readonly used: number; readonly capacity: number }[] {
    return [...this.#view.network.values()].flatMap((network) => {
      const spaces = this.#familiesOf(network)[0] ?? [];
      const [used, capacity] = [total(spaces, 'used'), total(spaces, 'capacity')];
      return used >= capacity * NEARLY_FULL && capacity > 0 ? [{ network, used, capacity }] : [];
    });
  }

  /** Takes back what a service was to get and did not. */
  takeBack(next: Service, stored: Service | undefined, nowMs: number): void {
    this.#moveService(next, stored, nowMs);
  }

  /** When the next address that rests may be given out again; undefined: none has to wait for that. */
  nextFreeAtMs(nowMs: number): number | undefined {
    const times = [...this.#spaces.values()].flat().flatMap((space) => space.nextFreeAtMs(nowMs) ?? []);
    return times.length === 0 ? undefined : Math.min(...times);
  }

  #choice(network: Network): Pick<Network, 'vni' | 'subnets' | 'mtu' | 'error'> {
    try {
      return { ...planNetwork(this.#view, network), error: '' };
    } catch (error) {
      if (!hasCode(error, 'resource-exhausted') && !hasCode(error, 'failed-precondition')) throw error;
      const { vni, subnets, mtu } = network;
      return { vni, subnets, mtu, error: messageOf(error) };
    }
  }

  #noteNetwork({ id, subnets }: Network): void {
    const known = this.#spaces.get(id) ?? [];
    const spaces = subnets.map((subnet) => {
      const space = new AddressSpace(subnet);
      return known.find((other) => other.isSame(space)) ?? space;
    });
    this.#spaces.set(id, spaces);
    if (known.length === 0 || spaces.every((space) => known.includes(space))) return;
    // A subnet that was widened is counted anew.
    for (const service of this.#view.service.values()) this.#claimService(service);
    for (const task of this.#view.task.values()) if (needsAddresses(task)) this.#claimTask(task);
  }

  #claimTask({ id, attachments }: Task): void {
    for (const { networkId, addresses } of attachments)
      for (const address of addresses) this.#claim(networkId, address, id);
  }

  #claimService(service: Service): void {
    for (const { networkId, address } of service.virtualAddresses)
      this.#claim(networkId, address, service.id);
    this.#ports.claim(service);
  }

  #claim(networkId: string, address: string, owner: string): boolean {
    return (this.#spaces.get(networkId) ?? []).some((space) => space.claim(address, owner));
  }

  #moveService(before: Service | undefined, after: Service | undefined, nowMs: number): boolean {
    const kept = new Set(after?.virtualAddresses.map(keyOf));
    const left = before?.virtualAddresses.filter((virtual) => !kept.has(keyOf(virtual))) ?? [];
    for (const { networkId, address } of left)
      this.release([{ networkId, addresses: [address] }], before?.id ?? '', nowMs);
    if (before !== undefined) this.#ports.release(before);
    if (after !== undefined) this.#claimService(after);
    return true;
  }

  #virtualAddresses(service: Service, nowMs: number): Found[] {
    const { spec } = service;
    if (spec.endpoint.mode === 'dnsrr') return [];
    return spec.task.networks.flatMap((attachment) => {
      const network = this.#networkOf(attachment);
      if (network === undefined || hasNoBalancing(network)) return [];
      return this.#virtualAddressesIn(network, attachment, service, nowMs);
    });
  }

  /** One of each family: what is asked for, what the service has, or a free one. */
  #virtualAddressesIn(
    network: Network,
    { virtualAddresses: wanted }: NetworkAttachment,
    service: Service,
    nowMs: number,
  ): Found[] {
    const owned = service.virtualAddresses.filter(({ networkId }) => networkId === network.id);
    return this.#familiesOf(network).map((spaces) => {
      const isHere = (address: string) => spaces.some((space) => space.contains(address));
      const asked = wanted.find(isHere);
      if (asked !== undefined) {
        const space = spaces.find((each) => each.isFreeFor(asked, service.id));
        if (space === undefined) throw new NotYet(`network ${network.spec.name}: address ${asked} is in use`);
        return { networkId: network.id, address: asked, space };
      }
      const current = owned.find(({ address }) => isHere(address));
      return current ?? findIn(spaces, nowMs, network);
    });
  }

  /** The subnets of each family that the network has. */
  #familiesOf({ id }: Network): AddressSpace[][] {
    const spaces = this.#spaces.get(id) ?? [];
    return [4, 6]
      .map((family) => spaces.filter((space) => space.family === family))
      .filter((group) => group.length > 0);
  }

  /** undefined for what each node has for itself. */
  #networkOf({ networkId }: NetworkAttachment): Network | undefined {
    if (NODE_NETWORKS.has(networkId)) return undefined;
    const network = this.#view.network.get(networkId);
    if (network === undefined) throw new NotYet(`network ${networkId} is gone`);
    return requireReady(network);
  }

  #meshNetwork(): Network {
    for (const network of this.#view.network.values()) if (network.spec.ingress) return requireReady(network);
    throw new NotYet(
      'there is no ingress network to publish ports in: tsswarm network create --ingress ingress',
    );
  }
}

/** What each node has for itself. */
const NODE_NETWORKS: ReadonlySet<string> = new Set(['host', 'none', 'bridge']);

/** Its containers are hosts among others: nobody stands between them and their clients. */
function hasNoBalancing({ spec }: Network): boolean {
  return spec.driver === 'macvlan' || spec.driver === 'ipvlan';
}

function requireReady(network: Network): Network {
  if (network.subnets.length > 0) return network;
  const reason = network.error === '' ? 'has no subnet yet' : `has no subnet: ${network.error}`;
  throw new NotYet(`network ${network.spec.name} ${reason}`);
}

/** An address that is to be given out; without a space it has been. */
interface Found extends VirtualAddress {
  readonly space?: AddressSpace;
}

function take(found: readonly Found[], owner: string): void {
  for (const { space, address } of found) space?.take(address, owner);
}

function findIn(spaces: readonly AddressSpace[], nowMs: number, { id: networkId, spec }: Network): Found {
  for (const space of spaces) {
    const address = space.find(nowMs);
    if (address !== undefined) return { networkId, address, space };
  }
  const [capacity, used] = [total(spaces, 'capacity'), total(spaces, 'used')];
  const rest =
    used < capacity ? `${capacity - used} were just given back and rest a few seconds` : 'all are in use';
  throw new NotYet(
    `network ${spec.name} has no free address: ${used} of ${capacity} in use, ${rest}; ` +
      `widen it: tsswarm network update --subnet-add SUBNET ${spec.name}`,
  );
}

function total(spaces: readonly AddressSpace[], what: 'capacity' | 'used'): number {
  return spaces.reduce((sum, space) => sum + space[what], 0);
}

function keyOf({ networkId, address }: VirtualAddress): string {
  return `${networkId} ${address}`;
}
