// One network of the overlay: what it should be, and what of that the kernel has. Synchronous, but for forgetting
// connections; the kernel is the only state that outlives the process.

import { messageOf, SwarmError } from '../../../core/errors.ts';
import type { Logger } from '../../../rpc/logger.ts';
import { deleteConnections } from '../../linux/conntrack.ts';
import type { IpFamily } from '../../linux/ip-family.ts';
import { SystemCallError } from '../../linux/libc.ts';
import { isPinnedNamespace } from '../../linux/namespace.ts';
import type { NetlinkMessage } from '../../linux/netlink.ts';
import { bytesOf, familyOf } from '../ip-bytes.ts';
import { formatIpv4 } from '../ipv4.ts';
import { removeLink } from '../wiring.ts';
import type { BalanceChange } from './balance-sets.ts';
import { type Backend, type Balance, isSameBalance, planBalance } from './balancing.ts';
import { Zone } from './dns-zone.ts';
import { findDrift, readForwarding } from './drift.ts';
import { IngressMesh, type InnerPorts } from './ingress-mesh.ts';
import { addressesOf, isAliasTooLong, type LocalEndpoint, parseAlias } from './local-endpoint.ts';
import type { Drift, OverlayState, RemoteEndpoint, VirtualService } from './overlay.ts';
import { familiesOf, type OverlayLayout } from './overlay-layout.ts';
import { type EndpointLink, endpointMessages, OverlayWiring } from './overlay-wiring.ts';
import { PolicyTable } from './policy-table.ts';
import {
  goneMessages,
  hairpinMessages,
  readTables,
  serviceMessages,
  tableMessages,
} from './service-table.ts';

interface EndpointState {
  readonly endpoint: LocalEndpoint;
  readonly link: EndpointLink;
}

export class KernelNetwork implements Disposable {
  #layout: OverlayLayout;
  readonly #families: readonly IpFamily[];
  readonly #wiring: OverlayWiring;
  readonly #logger: Logger;
  /** The network's names, for its server. */
  readonly zone: Zone;
  readonly #endpoints = new Map<string, EndpointState>();
  readonly #byAddress = new Map<string, LocalEndpoint>();
  /** Address of a container elsewhere → address of its node. */
  #remotes = new Map<string, string>();
  #nodes = new Set<string>();
  readonly #services = new Map<string, Balance>();
  readonly #gone = new Set<string>();
  /** Addresses whose flows have been ended: nothing of them is left to be forgotten when they go. */
  readonly #ended = new Set<string>();
  /** Of the ingress only: for each of its families. */
  readonly #meshes: readonly IngressMesh[];
  readonly #policies: readonly PolicyTable[];
  #applied: OverlayState | undefined;

  constructor(layout: OverlayLayout, logger: Logger) {
    this.#layout = layout;
    this.#families = familiesOf(layout);
    this.#logger = logger;
    this.zone = new Zone(layout.subnets.map(({ prefix }) => prefix));
    this.#wiring = new OverlayWiring(layout, (error) =>
      logger.warn({ error: messageOf(error) }, 'connections of addresses that are gone are not forgotten'),
    );
    this.#policies = this.#families.map((family) => new PolicyTable(this.#wiring.tables, family));
    this.#meshes = (layout.isIngress ? this.#families : []).map(
      (family) =>
        new IngressMesh({
          family,
          routes: this.#wiring.routes,
          tables: this.#wiring.tables,
          uplinkAddress: () => this.uplinkAddress(family),
          isLocal: (address) => this.#hasLocal(address),
          changeTable: (messages, rewrite) => this.#changeTable(messages, rewrite),
        }),
    );
  }

  get layout(): OverlayLayout {
    return this.#layout;
  }

  /** Of a network with a way out: where the host sends published ports. Of IPv6 only while the host has it. */
  uplinkAddress(family: IpFamily): Buffer | undefined {
    return this.#wiring.uplink?.address(family);
  }

  /** The network has more subnets, or wider ones. */
  widen(layout: OverlayLayout): void {
    this.#layout = layout;
    this.zone.subnets = layout.subnets.map(({ prefix }) => prefix);
    const reachable = this.endpoints.filter(({ namespacePath }) => isPinnedNamespace(namespacePath));
    this.#wiring.widen(layout, reachable);
  }

  /** Makes what is missing and takes over what is there. False while the kernel has another VXLAN of this number. */
  open(): boolean {
    if (!this.#wiring.configure()) return false;
    const forwarding = readForwarding(this.#wiring.routes, this.#families);
    this.#remotes = new Map(forwarding.remotes);
    this.#nodes = new Set(forwarding.nodes.keys());
    this.#wiring.addNodes([...this.#nodes]);
    const table = readTables(this.#wiring.tables, this.#families);
    for (const [vip, slots] of table?.services ?? []) this.#services.set(vip, slots);
    for (const address of table?.gone ?? []) this.#gone.add(address);
    this.#adoptEndpoints();
    for (const address of forwarding.locals.keys()) {
      if (!this.#hasLocal(address)) this.#forgetAddress(address);
    }
    const isComplete =
      table !== undefined &&
      table.hairpin.size === this.#byAddress.size &&
      [...table.hairpin].every((address) => this.#hasLocal(address));
    if (!isComplete) this.#writeTable();
    for (const mesh of this.#meshes) mesh.open();
    this.#wiring.configureConnectionTracking();
    return true;
  }

  /** As applied last. */
  get services(): readonly VirtualService[] {
    return this.#applied?.services ?? [];
  }

  get endpoints(): LocalEndpoint[] {
    return [...this.#endpoints.values()].map(({ endpoint }) => endpoint);
  }

  endpointAt(address: string): LocalEndpoint | undefined {
    return this.#byAddress.get(address);
  }

  /** An endpoint that is there is left as it is. */
  attach(endpoint: LocalEndpoint): void {
    this.#refuse(endpoint);
    if (this.#endpoints.has(endpoint.id)) return;
    const link = this.#wiring.wire(endpoint);
    this.#endpoints.set(endpoint.id, { endpoint, link });
    const addresses = addressesOf(endpoint);
    for (const address of addresses) {
      this.#byAddress.set(address, endpoint);
      this.#remotes.delete(address);
    }
    this.#changeTable(hairpinMessages(addresses, 'add'));
    this.#takeBack(addresses);
    for (const mesh of this.#meshes) mesh.attach(addresses);
  }

  detach(id: string): void {
    const state = this.#endpoints.get(id);
    if (state === undefined) return;
    this.#wiring.unwire(state.link, state.endpoint);
    this.#endpoints.delete(id);
    const addresses = addressesOf(state.endpoint);
    for (const address of addresses) this.#byAddress.delete(address);
    this.#changeTable(hairpinMessages(addresses, 'delete'));
    for (const mesh of this.#meshes) mesh.detach(addresses);
    this.#cut(addresses);
  }

  /** `ports` are the published ones of the ingress, as the host sends them. */
  apply(state: OverlayState, ports: InnerPorts): void {
    const before = this.#applied;
    const isSame = before !== undefined && state.remotes === before.remotes && state.nodes === before.nodes;
    const left = isSame ? [] : this.#applyRemotes(state.remotes, state.nodes ?? []);
    const changes = this.#planServices(before?.services, state.services);
    if (changes.length > 0) {
      for (const { name, to } of changes) {
        if (to === undefined) this.#services.delete(name);
        else this.#services.set(name, to);
      }
      this.#changeTable(serviceMessages(changes));
    }
    this.#noteBackends(state);
    for (const mesh of this.#meshes) mesh.apply(ports, state.published ?? []);
    for (const policy of this.#policies) policy.apply(state.policy);
    this.zone.update(state.names);
    // Services first: a connection that is cut goes to another backend when its client tries again.
    this.#cut(left);
    this.#applied = state;
  }

  /** Of the ingress, where ports of the host are tried again. */
  publish(ports: InnerPorts): void {
    for (const mesh of this.#meshes) mesh.apply(ports, this.#applied?.published ?? []);
  }

  /** UDP flows that were translated to backends which take none any more. Resolves when they have ended. */
  endFlows(addresses: readonly string[]): Promise<void> {
    for (const address of addresses) this.#ended.add(address);
    return this.#wiring.flows.end(addresses);
  }

  audit(): Drift[] {
    const drift = findDrift(
      {
        layout: this.#layout,
        endpoints: [...this.#endpoints.values()].map(({ endpoint, link }) => ({
          endpoint,
          index: link.index,
        })),
        remotes: this.#remotes,
        nodes: this.#nodes,
        services: this.#services,
        gone: this.#gone,
      },
      this.#wiring,
    );
    const rest = [...this.#meshes, ...this.#policies].flatMap((part) => part.audit());
    return [...drift, ...rest];
  }

  /** Whole and in place: what is right already is only written again. */
  repair(): Drift[] {
    const drift = this.audit();
    if (drift.length === 0) return drift;
    if (!this.#wiring.configure()) {
      throw new SwarmError('failed-precondition', `VXLAN id ${this.#layout.vni} is in use on this node`);
    }
    for (const { what, name, problem } of drift) {
      if (problem !== 'unexpected') continue;
      if (what === 'route') this.#wiring.unroute(name);
      if (what === 'node') this.#wiring.removeNodes([name]);
      if (what === 'link') removeLink(this.#wiring.routes, name);
    }
    this.#wiring.addNodes([...this.#nodes]);
    this.#wiring.addRemotes([...this.#remotes]);
    this.#repairEndpoints();
    if (drift.some(({ what }) => ['table', 'service', 'hairpin', 'gone'].includes(what))) this.#writeTable();
    for (const part of [...this.#meshes, ...this.#policies]) part.repair();
    return drift;
  }

  [Symbol.dispose](): void {
    this.#wiring[Symbol.dispose]();
  }

  #adoptEndpoints(): void {
    for (const link of this.#wiring.endpointLinks()) {
      const endpoint = parseAlias(link.alias);
      if (endpoint !== undefined && isPinnedNamespace(endpoint.namespacePath)) {
        this.#endpoints.set(endpoint.id, { endpoint, link });
        for (const address of addressesOf(endpoint)) this.#byAddress.set(address, endpoint);
        // The network may have become wider while nobody saw to it.
        this.#wiring.routeSubnets(endpoint);
        continue;
      }
      // Half made or half gone. Its other end goes with it.
      removeLink(this.#wiring.routes, link.name);
    }
  }

  #hasLocal(address: string): boolean {
    return this.#byAddress.has(address);
  }

  #refuse(endpoint: LocalEndpoint): void {
    const same = this.#endpoints.get(endpoint.id)?.endpoint;
    for (const address of addressesOf(endpoint)) {
      const other = same ?? this.#byAddress.get(address);
      if (other === undefined) continue;
      if (other.id === endpoint.id && `${addressesOf(other)}` === `${addressesOf(endpoint)}`) continue;
      const taken = addressesOf(other).join(', ');
      throw new SwarmError('already-exists', `address ${address}: endpoint ${other.id} has ${taken} here`, {
        hint: 'Detach that endpoint first.',
      });
    }
    if (!isPinnedNamespace(endpoint.namespacePath)) {
      throw new SwarmError('not-found', `namespacePath: nothing is pinned at ${endpoint.namespacePath}`);
    }
    if (isAliasTooLong(endpoint)) {
      throw new SwarmError('invalid-argument', 'id, namespacePath: together they are longer than 200 bytes');
    }
  }

  /** Routes and nodes as they should be; the addresses that left. */
  #applyRemotes(remotes: readonly RemoteEndpoint[], otherNodes: readonly string[]): string[] {
    const wanted = new Map(
      remotes
        .filter(({ address }) => !this.#hasLocal(address) && this.#families.includes(familyOf(address)))
        .map(({ address, nodeAddress }) => [address, nodeAddress] as const),
    );
    const nodes = new Set([...wanted.values(), ...otherNodes]);
    nodes.delete(formatIpv4(this.#layout.dataPathAddress));
    this.#wiring.addNodes([...nodes].filter((address) => !this.#nodes.has(address)));
    const added = [...wanted].filter(([address, node]) => this.#remotes.get(address) !== node);
    this.#wiring.addRemotes(added);
    const left = [...this.#remotes.keys()].filter((address) => !wanted.has(address));
    for (const address of left) this.#wiring.unroute(address);
    // An address that is on another node now is another container.
    this.#forgetConnections(added.flatMap(([address]) => (this.#remotes.has(address) ? [address] : [])));
    this.#takeBack(added.map(([address]) => address));
    this.#wiring.removeNodes([...this.#nodes].filter((address) => !nodes.has(address)));
    this.#remotes = wanted;
    this.#nodes = nodes;
    return left;
  }

  #planServices(
    before: readonly VirtualService[] | undefined,
    after: readonly VirtualService[],
  ): BalanceChange[] {
    if (before === after) return [];
    const changed: VirtualService[] = [];
    const candidates = before === undefined ? [...this.#services.keys()] : [];
    for (let index = 0; index < Math.max(after.length, before?.length ?? 0); index++) {
      const [old, service] = [before?.[index], after[index]];
      if (old === service) continue;
      if (old !== undefined) candidates.push(old.vip);
      if (service !== undefined) changed.push(service);
    }
    const wanted = new Set(changed.map(({ vip }) => vip));
    const removed = candidates.filter((vip) => !wanted.has(vip));
    return [
      ...removed.map((name) => ({ name, from: this.#services.get(name), to: undefined })),
      ...changed.flatMap((service) => {
        const from = this.#services.get(service.vip);
        const to = planBalance(backendsOf(service), service.affinity ?? 'random', from);
        return isSameBalance(from, to) ? [] : [{ name: service.vip, from, to }];
      }),
    ];
  }

  /** What is still sent to these addresses is answered with a reset, or goes to another backend. */
  #cut(addresses: readonly string[]): void {
    const cut = addresses.filter((address) => !this.#remotes.has(address) && !this.#hasLocal(address));
    if (cut.length === 0) return;
    const added = cut.filter((address) => !this.#gone.has(address));
    for (const address of added) this.#gone.add(address);
    this.#changeTable(goneMessages(added, 'add'));
    this.#forgetConnections(cut.filter((address) => !this.#ended.delete(address)));
  }

  /** Who serves again has flows again. */
  #noteBackends({ services, published = [] }: OverlayState): void {
    if (this.#ended.size === 0) return;
    for (const { backends } of services) for (const address of backends) this.#ended.delete(address);
    for (const { backends } of published) for (const { address } of backends) this.#ended.delete(address);
  }

  /** The addresses are in use again. */
  #takeBack(addresses: readonly string[]): void {
    for (const address of addresses) this.#ended.delete(address);
    const back = addresses.filter((address) => this.#gone.delete(address));
    this.#changeTable(goneMessages(back, 'delete'));
  }

  #forgetAddress(address: string): void {
    this.#wiring.unroute(address);
    this.#gone.add(address);
    this.#forgetConnections([address]);
  }

  /** Without it a UDP client that keeps sending stays bound to a backend that is gone. */
  #forgetConnections(addresses: readonly string[]): void {
    this.#wiring.connections.forget(
      addresses.flatMap((address) => {
        const source = bytesOf(address);
        return [deleteConnections('reply', { source }), deleteConnections('original', { source })];
      }),
    );
  }

  /** When the table is not what it should be, it is written anew. */
  #changeTable(messages: readonly NetlinkMessage[], rewrite = () => this.#writeTable()): void {
    try {
      this.#wiring.tables.executeBatch(messages);
    } catch (error) {
      if (!(error instanceof SystemCallError)) throw error;
      this.#logger.warn({ error: error.message }, 'repairing the table of an overlay network');
      rewrite();
    }
  }

  /** In one transaction: traffic sees the old tables or the new ones. */
  #writeTable(): void {
    const hairpin = new Set(this.#byAddress.keys());
    const contents = { services: this.#services, hairpin, gone: this.#gone };
    this.#wiring.tables.executeBatch(tableMessages(contents, this.#families));
  }

  /** A link that is gone is made again while its container is there. */
  #repairEndpoints(): void {
    const links = new Map(this.#wiring.endpointLinks().map((link) => [link.index, link]));
    for (const [id, { endpoint, link }] of this.#endpoints) {
      const existing = links.get(link.index);
      if (existing !== undefined && existing.alias !== '') {
        this.#wiring.routes.execute(endpointMessages(link.index, endpoint));
      } else if (isPinnedNamespace(endpoint.namespacePath)) {
        this.#endpoints.set(id, { endpoint, link: this.#wiring.wire(endpoint) });
      }
    }
  }
}

function backendsOf({ backends, weights }: VirtualService): Backend[] {
  return backends.map((name, index) => ({ name, weight: weights?.[index] ?? 1 }));
}
