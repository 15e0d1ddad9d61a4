// The overlay of this node: its networks and the host's table for all of them. A network's pinned namespace is the
// record that it exists. The work is done in the calling thread, like that of the node-local network.

import { createHash } from 'node:crypto';
import { mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { invalidField, SwarmError } from '../../../core/errors.ts';
import type { Logger } from '../../../rpc/logger.ts';
import { SystemCallError } from '../../linux/libc.ts';
import {
  isPinnedNamespace,
  removeNamespace,
  startThreadPool,
  withinNamespace,
} from '../../linux/namespace.ts';
import { NetlinkSocket, netlinkProtocols } from '../../linux/netlink-socket.ts';
import { decodeAddress, listIpv4Addresses } from '../../linux/rtnetlink.ts';
import { readNetworkSetting, writeNetworkSetting } from '../../linux/sysctl.ts';
import { formatIpv4, ipv4Bytes, ipv4Number } from '../ipv4.ts';
import { hostNameServers, planOverlayResolvConf, readResolvConfSources } from '../resolv-conf.ts';
import { linksOf, removeLink } from '../wiring.ts';
import { Forwarder } from './dns-forwarder.ts';
import { DnsServer } from './dns-server.ts';
import type { Client } from './dns-zone.ts';
import { checkPublished, HostPorts } from './host-ports.ts';
import { HostTable } from './host-table.ts';
import { KernelNetwork } from './kernel-network.ts';
import { checkedAddress, checkNetworkId, checkWeight, isHostAddress, planLayout } from './network-layout.ts';
import type {
  Attached,
  Drift,
  NetworkInventory,
  Overlay,
  OverlayEndpoint,
  OverlayNetwork,
  OverlayState,
  PortProblem,
  PublishedPort,
} from './overlay.ts';
import { RESOLVER_ADDRESS } from './overlay-rulesets.ts';
import {
  ENDPOINT_LINK_PATTERN,
  type LocalEndpoint,
  type OverlayLayout,
  parseAlias,
  VXLAN_LINK,
  vxlanOf,
} from './overlay-wiring.ts';

export interface OverlayOptions {
  /** Networks' namespaces are pinned below it; it ends with the machine's uptime. */
  readonly runDir: string;
  /** Tells this engine's interfaces and tables from those of others on the machine. */
  readonly engineId: string;
  /** The address of this node that other nodes send to. */
  readonly dataPathAddress: string;
  /** UDP; the same on every node. 4789 (RFC 7348) when absent. */
  readonly dataPathPort?: number;
  /** Whom to ask for names of the world outside, in the host's namespace; the host's own servers when absent. */
  readonly nameServers?: readonly string[];
  readonly logger: Logger;
}

const DEFAULT_DATA_PATH_PORT = 4789;
const PINS_FOLDER = 'overlay';
const FORWARDING_NOTE = 'overlay-forwarding';
const ENDPOINT_ID_PATTERN = /^\S{1,128}$/;
const UPLINK_PREFIX = 'tsu-';
/** An interface name has 15 characters. */
const UPLINK_HASH_LENGTH = 11;
/** The kernel frees a deleted namespace's VXLAN in up to 44 ms (measured); after this long somebody else has it. */
const VNI_WAIT_MS = 2000;
const VNI_FIRST_PAUSE_MS = 1;
const VNI_PAUSE_MAX_MS = 50;
const RESOLV_CONF_AGE_MAX_MS = 1000;
const EADDRINUSE = 98;

/** Opens the overlay of this engine. Networks of an earlier process work on; `ensure` takes them over. */
export async function openOverlay(options: OverlayOptions): Promise<Overlay> {
  await startThreadPool();
  mkdirSync(join(options.runDir, PINS_FOLDER), { recursive: true });
  const overlay = new KernelOverlay(options);
  overlay.clean();
  return overlay;
}

class KernelOverlay implements Overlay {
  readonly #options: OverlayOptions;
  readonly #dataPathAddress: number;
  readonly #dataPathPort: number;
  readonly #hostTable: HostTable;
  readonly #hostTables = new NetlinkSocket(netlinkProtocols.netfilter);
  readonly #hostRoutes = new NetlinkSocket(netlinkProtocols.route);
  readonly #ports = new HostPorts(this.#hostRoutes);
  /** As applied last. */
  #published: readonly PublishedPort[] | undefined;
  readonly #networks = new Map<string, KernelNetwork>();
  readonly #servers = new Map<string, DnsServer>();
  readonly #forwarder: Forwarder;
  /** Container's namespace → its networks; made when somebody asks for a name. */
  #clients = new Map<string, Client>();
  #plannedResolvConf: { readonly text: string; readonly until: number } | undefined;
  readonly #opening = new Map<string, Promise<void>>();

  constructor(options: OverlayOptions) {
    this.#options = options;
    this.#dataPathAddress = checkedAddress('dataPathAddress', options.dataPathAddress);
    this.#dataPathPort = options.dataPathPort ?? DEFAULT_DATA_PATH_PORT;
    this.#hostTable = new HostTable(this.#hostTables, { ...options, dataPathPort: this.#dataPathPort });
    this.#forwarder = new Forwarder(() => options.nameServers ?? hostNameServers(readResolvConfSources()));
  }

  /** What a process left that was killed while it made or removed a network. */
  clean(): void {
    this.#hostTable.adopt();
    this.#ports.adopt(this.#hostTable.targets.inner);
    for (const name of readdirSync(join(this.#options.runDir, PINS_FOLDER))) {
      if (!isPinnedNamespace(this.#pinOf(name))) this.#takeDown(name);
    }
    this.#writeHostTable();
    this.#restoreForwarding();
  }

  async ensure(network: OverlayNetwork): Promise<void> {
    const opening = this.#opening.get(network.id);
    if (opening !== undefined) return opening;
    const layout = this.#layoutOf(network);
    const existing = this.#networks.get(network.id);
    if (existing !== undefined) return refuseChange(network.id, existing.layout, layout);
    if (layout.isIngress) this.#refuseSecondIngress();
    const promise = this.#open(network.id, layout).finally(() => this.#opening.delete(network.id));
    this.#opening.set(network.id, promise);
    return promise;
  }

  async remove(networkId: string): Promise<void> {
    // Whether it succeeds or fails is told to who asked for it.
    await this.#opening.get(networkId)?.catch(() => undefined);
    checkNetworkId(networkId);
    this.#close(networkId);
    this.#takeDown(networkId);
  }

  async attach(endpoint: OverlayEndpoint): Promise<Attached> {
    if (!ENDPOINT_ID_PATTERN.test(endpoint.id)) {
      throw invalidField('id', `"${endpoint.id}" is not 1 to 128 characters without blanks`);
    }
    const network = this.#network(endpoint.networkId);
    const address = checkedAddress('address', endpoint.address);
    if (!isHostAddress(address, network.layout)) {
      throw invalidField(
        'address',
        `${endpoint.address} is not for containers of network ${endpoint.networkId}`,
      );
    }
    const { id, isDefaultRoute, namespacePath } = endpoint;
    network.attach({ id, address, isDefaultRoute, namespacePath });
    this.#clients.clear();
    return { resolvConf: this.#resolvConf() };
  }

  async detach(endpointId: string): Promise<void> {
    for (const network of this.#networks.values()) network.detach(endpointId);
    this.#clients.clear();
  }

  async apply(networkId: string, state: OverlayState): Promise<void> {
    const network = this.#network(networkId);
    for (const { weights = [] } of state.services) {
      for (const weight of weights) checkWeight('services.weights', weight);
    }
    const published = state.published ?? [];
    if (!network.layout.isIngress) {
      if (published.length > 0) throw invalidField('published', `network ${networkId} is not the ingress`);
      network.apply(state, new Map());
      return;
    }
    const checked = new Set(this.#published);
    for (const entry of published) if (!checked.has(entry)) checkPublished(entry);
    this.#published = published;
    network.apply(state, this.#ports.plan(published));
    // The network first: the host never sends to a port that is not known there.
    this.#hostTable.publish({ address: network.uplinkAddress, inner: this.#ports.inner });
  }

  async portProblems(): Promise<PortProblem[]> {
    return [...this.#ports.problems];
  }

  async endFlows(networkId: string, addresses: readonly string[]): Promise<void> {
    this.#networks.get(networkId)?.endFlows(addresses);
  }

  async audit(networkId: string): Promise<Drift[]> {
    return [...this.#network(networkId).audit(), ...this.#hostDrift()];
  }

  async repair(networkId: string): Promise<Drift[]> {
    const network = this.#network(networkId);
    const hostDrift = this.#hostDrift();
    const drift = [...network.repair(), ...hostDrift];
    if (drift.length > 0) this.#writeHostTable();
    if (network.layout.isIngress && this.#published !== undefined) {
      network.publish(this.#ports.plan(this.#published));
      this.#hostTable.publish({ address: network.uplinkAddress, inner: this.#ports.inner });
    }
    if (drift.length > 0)
      this.#options.logger.warn({ network: networkId, drift }, 'repaired an overlay network');
    return drift;
  }

  async list(): Promise<NetworkInventory[]> {
    return this.#pins().map((networkId) => {
      const network = this.#networks.get(networkId);
      const endpoints = network?.endpoints ?? endpointsIn(this.#pinOf(networkId));
      return {
        networkId,
        endpoints: endpoints.map((endpoint) => ({
          ...endpoint,
          networkId,
          address: formatIpv4(endpoint.address),
        })),
      };
    });
  }

  /** Lets go of the networks, which go on working without this process; names are not answered meanwhile. */
  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.allSettled(this.#opening.values());
    for (const networkId of this.#networks.keys()) this.#close(networkId);
    this.#ports[Symbol.dispose]();
    this.#hostTables[Symbol.dispose]();
    this.#hostRoutes[Symbol.dispose]();
  }

  /** Many containers start at once: the host's files are read once for them. */
  #resolvConf(): string {
    const now = performance.now();
    if (this.#plannedResolvConf === undefined || now > this.#plannedResolvConf.until) {
      const text = planOverlayResolvConf(RESOLVER_ADDRESS.join('.'), readResolvConfSources());
      this.#plannedResolvConf = { text, until: now + RESOLV_CONF_AGE_MAX_MS };
    }
    return this.#plannedResolvConf.text;
  }

  #pinOf(networkId: string): string {
    return join(this.#options.runDir, PINS_FOLDER, networkId);
  }

  /** Networks that exist on the node. */
  #pins(): string[] {
    return readdirSync(join(this.#options.runDir, PINS_FOLDER)).filter((name) =>
      isPinnedNamespace(this.#pinOf(name)),
    );
  }

  #network(networkId: string): KernelNetwork {
    const network = this.#networks.get(networkId);
    if (network !== undefined) return network;
    throw new SwarmError('not-found', `networkId: network ${networkId} is not on this node`, {
      hint: 'Ensure it first.',
    });
  }

  #refuseSecondIngress(): void {
    for (const [networkId, { layout }] of this.#networks) {
      if (!layout.isIngress) continue;
      const text = `isIngress: network ${networkId} is the ingress of this node`;
      throw new SwarmError('failed-precondition', text, { hint: 'Remove that network first.' });
    }
  }

  #close(networkId: string): void {
    this.#servers.get(networkId)?.[Symbol.dispose]();
    this.#servers.delete(networkId);
    this.#networks.get(networkId)?.[Symbol.dispose]();
    this.#networks.delete(networkId);
    this.#clients.clear();
  }

  async #serveNames(networkId: string, network: KernelNetwork): Promise<void> {
    const server = new DnsServer({
      namespacePath: network.layout.namespacePath,
      address: ipv4Bytes(network.layout.gateway),
      clientAt: (address) => this.#clientAt(network, address),
      forwarder: this.#forwarder,
      logger: this.#options.logger,
    });
    this.#servers.set(networkId, server);
    await server.listen();
  }

  /** Who has this address in that network: it is answered from all its networks. */
  #clientAt(network: KernelNetwork, address: string): Client | undefined {
    const asking = network.endpointAt(address);
    if (asking === undefined) return undefined;
    const known = this.#clients.get(asking.namespacePath);
    if (known !== undefined) return known;
    const networks = [...this.#networks.values()].filter(({ endpoints }) =>
      endpoints.some(({ namespacePath }) => namespacePath === asking.namespacePath),
    );
    const client = {
      zones: [network, ...networks.filter((other) => other !== network)].map(({ zone }) => zone),
      mayForward: networks.some(({ layout }) => layout.uplinkName !== undefined),
    };
    this.#clients.set(asking.namespacePath, client);
    return client;
  }

  #uplinkOf(networkId: string): string {
    const name = `${this.#options.engineId} ${networkId}`;
    return UPLINK_PREFIX + createHash('sha256').update(name).digest('hex').slice(0, UPLINK_HASH_LENGTH);
  }

  #layoutOf(network: OverlayNetwork): OverlayLayout {
    return planLayout(network, {
      pinOf: (networkId) => this.#pinOf(networkId),
      uplinkOf: (networkId) => this.#uplinkOf(networkId),
      dataPathAddress: this.#dataPathAddress,
      dataPathPort: this.#dataPathPort,
      routes: this.#hostRoutes,
    });
  }

  async #open(networkId: string, layout: OverlayLayout): Promise<void> {
    const isNew = !isPinnedNamespace(layout.namespacePath);
    const network = new KernelNetwork(layout, this.#options.logger);
    try {
      await this.#openWhenFree(network);
      this.#networks.set(networkId, network);
      this.#writeHostTable();
      if (layout.uplinkName !== undefined) this.#enableForwarding();
      await this.#serveNames(networkId, network);
    } catch (error) {
      this.#networks.set(networkId, network);
      this.#close(networkId);
      if (isNew) this.#takeDown(networkId);
      if (!(error instanceof SystemCallError) || error.errno !== EADDRINUSE) throw error;
      throw new SwarmError(
        'failed-precondition',
        `UDP port ${this.#dataPathPort}, the data path of overlay networks, is in use on this node`,
        { hint: `ss -lunp sport = :${this.#dataPathPort} shows the process.`, cause: error },
      );
    }
  }

  /** A deleted VXLAN keeps its number for a moment; one of a network that nobody wants any more keeps it for good. */
  async #openWhenFree(network: KernelNetwork): Promise<void> {
    const deadline = performance.now() + VNI_WAIT_MS;
    let pause = VNI_FIRST_PAUSE_MS;
    while (!network.open()) {
      this.#removeStale(network.layout.vni);
      if (performance.now() > deadline) {
        const text = `vni: VXLAN id ${network.layout.vni} is in use on this node`;
        throw new SwarmError('failed-precondition', text, {
          hint: 'ip -d link show type vxlan, in each network namespace, shows by what.',
        });
      }
      await delay(pause);
      pause = Math.min(pause * 2, VNI_PAUSE_MAX_MS);
    }
  }

  /** Networks of an earlier process that have this VXLAN number and were not ensured by this one. */
  #removeStale(vni: number): void {
    for (const networkId of this.#pins()) {
      if (this.#networks.has(networkId) || this.#opening.has(networkId)) continue;
      if (readVni(this.#pinOf(networkId)) !== vni) continue;
      this.#options.logger.warn(
        { network: networkId, vni },
        'removing a network that is in the way of another',
      );
      this.#takeDown(networkId);
    }
  }

  /** Whoever made it; what is not there is fine. */
  #takeDown(networkId: string): void {
    const pin = this.#pinOf(networkId);
    if (isPinnedNamespace(pin)) {
      // Its number is free at once, where that of a namespace on its way out is not.
      withinNamespace(pin, () => {
        using routes = new NetlinkSocket(netlinkProtocols.route);
        removeLink(routes, VXLAN_LINK);
      });
    }
    removeLink(this.#hostRoutes, this.#uplinkOf(networkId));
    removeNamespace(pin);
    this.#unpublishWithoutUplink();
    this.#writeHostTable();
    this.#restoreForwarding();
  }

  /** Published ports end with the ingress, whoever made it. */
  #unpublishWithoutUplink(): void {
    const target = this.#hostTable.targets.address;
    if (target === undefined) return;
    const hostEnd = ipv4Number(target) - 1;
    const addresses = this.#hostRoutes.dump(listIpv4Addresses).map(({ body }) => decodeAddress(body).address);
    if (addresses.some((address) => ipv4Number(address) === hostEnd)) return;
    this.#ports.clear();
    this.#published = undefined;
    this.#hostTable.publish({ address: undefined, inner: new Map() });
  }

  #uplinks(): string[] {
    const names = new Set(this.#pins().map((networkId) => this.#uplinkOf(networkId)));
    return linksOf(this.#hostRoutes)
      .map(({ name }) => name)
      .filter((name) => names.has(name));
  }

  /** In one transaction; no networks, no table. */
  #writeHostTable(): void {
    if (this.#pins().length > 0) this.#hostTable.write(this.#uplinks());
    else this.#hostTable.remove();
  }

  #hostDrift(): Drift[] {
    return this.#hostTable.drift(this.#uplinks());
  }

  /** First the note, then the deed: after a crash in between, only what is off is switched off. */
  #enableForwarding(): void {
    if (readNetworkSetting('ipv4/ip_forward') !== '0') return;
    writeFileSync(join(this.#options.runDir, FORWARDING_NOTE), '');
    writeNetworkSetting('ipv4/ip_forward', 1);
    this.#options.logger.info({}, 'enabled IPv4 forwarding on this node');
  }

  /** When the last network goes, of this engine or another. */
  #restoreForwarding(): void {
    const isLast = !linksOf(this.#hostRoutes).some(({ name }) => name.startsWith(UPLINK_PREFIX));
    const note = join(this.#options.runDir, FORWARDING_NOTE);
    if (!isLast || !isNoted(this.#options.runDir)) return;
    writeNetworkSetting('ipv4/ip_forward', 0);
    rmSync(note, { force: true });
  }
}

function isNoted(runDir: string): boolean {
  return readdirSync(runDir).includes(FORWARDING_NOTE);
}

function readVni(pin: string): number | undefined {
  return withinNamespace(pin, () => {
    using routes = new NetlinkSocket(netlinkProtocols.route);
    return vxlanOf(routes)?.id;
  });
}

function endpointsIn(pin: string): LocalEndpoint[] {
  return withinNamespace(pin, () => {
    using routes = new NetlinkSocket(netlinkProtocols.route);
    return linksOf(routes).flatMap(({ name, alias }) => {
      const endpoint = ENDPOINT_LINK_PATTERN.test(name) ? parseAlias(alias) : undefined;
      return endpoint === undefined ? [] : [endpoint];
    });
  });
}

function refuseChange(networkId: string, existing: OverlayLayout, wanted: OverlayLayout): void {
  // The underlay's MTU may have changed meanwhile; the network keeps the one that it was made with.
  if (JSON.stringify({ ...existing, mtu: 0 }) === JSON.stringify({ ...wanted, mtu: 0 })) return;
  throw new SwarmError('failed-precondition', `network ${networkId} is on this node with other properties`, {
    hint: 'Remove it first.',
  });
}
