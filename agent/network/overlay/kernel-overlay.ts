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
import { deleteTable } from '../../linux/nftables.ts';
import { decodeAddress, listIpv4Addresses } from '../../linux/rtnetlink.ts';
import { readNetworkSetting, writeNetworkSetting } from '../../linux/sysctl.ts';
import {
  formatIpv4,
  ipv4Bytes,
  ipv4Number,
  type Prefix,
  parseIpv4,
  parsePrefix,
  prefixSize,
} from '../ipv4.ts';
import { hostNameServers, planOverlayResolvConf, readResolvConfSources } from '../resolv-conf.ts';
import { ignoringErrno, linksOf, removeLink } from '../wiring.ts';
import { Forwarder } from './dns-forwarder.ts';
import { DnsServer } from './dns-server.ts';
import type { Client } from './dns-zone.ts';
import { KernelNetwork } from './kernel-network.ts';
import type {
  Attached,
  Drift,
  NetworkInventory,
  Overlay,
  OverlayEndpoint,
  OverlayNetwork,
  OverlayState,
} from './overlay.ts';
import {
  isHostTableRight,
  overlayHostRuleset,
  overlayHostTable,
  RESOLVER_ADDRESS,
} from './overlay-rulesets.ts';
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
/** Outer Ethernet, IPv4, UDP and VXLAN headers, of which the underlay's MTU counts all but Ethernet's. */
const VXLAN_OVERHEAD = 50;
const VNI_MAX = 0xffffff;
const PINS_FOLDER = 'overlay';
const FORWARDING_NOTE = 'overlay-forwarding';
const NETWORK_ID_PATTERN = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$/;
const ENDPOINT_ID_PATTERN = /^\S{1,128}$/;
const UPLINK_PREFIX = 'tsu-';
/** An interface name has 15 characters. */
const UPLINK_HASH_LENGTH = 11;
/** The kernel frees a deleted namespace's VXLAN in up to 44 ms (measured); after this long somebody else has it. */
const VNI_WAIT_MS = 2000;
const VNI_FIRST_PAUSE_MS = 1;
const VNI_PAUSE_MAX_MS = 50;
const RESOLV_CONF_AGE_MAX_MS = 1000;
const ENOENT = 2;
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
  readonly #hostTable: string;
  readonly #hostTables = new NetlinkSocket(netlinkProtocols.netfilter);
  readonly #hostRoutes = new NetlinkSocket(netlinkProtocols.route);
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
    this.#hostTable = overlayHostTable(options.engineId);
    this.#forwarder = new Forwarder(() => options.nameServers ?? hostNameServers(readResolvConfSources()));
  }

  /** What a process left that was killed while it made or removed a network. */
  clean(): void {
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
    this.#network(networkId).apply(state);
  }

  async audit(networkId: string): Promise<Drift[]> {
    return [...this.#network(networkId).audit(), ...this.#hostDrift()];
  }

  async repair(networkId: string): Promise<Drift[]> {
    const hostDrift = this.#hostDrift();
    const drift = [...this.#network(networkId).repair(), ...hostDrift];
    if (hostDrift.length > 0) this.#writeHostTable();
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
    checkNetworkId(network.id);
    if (!Number.isInteger(network.vni) || network.vni < 1 || network.vni > VNI_MAX) {
      throw invalidField('vni', `${network.vni} is not 1 to ${VNI_MAX}`);
    }
    const subnet = parsePrefix(network.subnet);
    const gateway = checkedAddress('gateway', network.gateway);
    if (gateway < subnet.base || gateway >= subnet.base + prefixSize(subnet.length)) {
      throw invalidField('gateway', `${network.gateway} is not in ${network.subnet}`);
    }
    return {
      namespacePath: this.#pinOf(network.id),
      uplinkName: network.isInternal ? undefined : this.#uplinkOf(network.id),
      vni: network.vni,
      subnet,
      gateway,
      mtu: this.#mtuOf(network),
      dataPathAddress: this.#dataPathAddress,
      dataPathPort: this.#dataPathPort,
    };
  }

  #mtuOf(network: OverlayNetwork): number {
    const address = this.#hostRoutes
      .dump(listIpv4Addresses)
      .map(({ body }) => decodeAddress(body))
      .find((candidate) => ipv4Number(candidate.address) === this.#dataPathAddress);
    const link = linksOf(this.#hostRoutes).find(({ index }) => index === address?.linkIndex);
    if (link === undefined) {
      const text = `dataPathAddress: no interface of this node has ${this.#options.dataPathAddress}`;
      throw new SwarmError('failed-precondition', text, { hint: 'ip address shows those that there are.' });
    }
    const max = link.mtu - VXLAN_OVERHEAD;
    if (network.mtu !== undefined && network.mtu > max) {
      const text = `mtu: ${network.mtu} is more than interface ${link.name} carries for an overlay: ${max}`;
      throw new SwarmError('failed-precondition', text, {
        hint: `Give the network an MTU of at most ${max}, or ${link.name} one of ${network.mtu + VXLAN_OVERHEAD}.`,
      });
    }
    return network.mtu ?? max;
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
    this.#writeHostTable();
    this.#restoreForwarding();
  }

  #uplinks(): string[] {
    const names = new Set(this.#pins().map((networkId) => this.#uplinkOf(networkId)));
    return linksOf(this.#hostRoutes)
      .map(({ name }) => name)
      .filter((name) => names.has(name));
  }

  /** In one transaction; no networks, no table. */
  #writeHostTable(): void {
    if (this.#pins().length > 0) {
      this.#hostTables.executeBatch(overlayHostRuleset(this.#hostTable, this.#dataPathPort, this.#uplinks()));
    } else {
      ignoringErrno(ENOENT, () => this.#hostTables.executeBatch([deleteTable(this.#hostTable)]));
    }
  }

  #hostDrift(): Drift[] {
    let isRight = false;
    ignoringErrno(ENOENT, () => {
      isRight = isHostTableRight(this.#hostTables, this.#hostTable, this.#dataPathPort, this.#uplinks());
    });
    return isRight ? [] : [{ what: 'host-table', name: this.#hostTable, problem: 'different' }];
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

function checkNetworkId(id: string): void {
  if (!NETWORK_ID_PATTERN.test(id)) throw invalidField('id', `"${id}" cannot name a network`);
}

function checkedAddress(field: string, text: string): number {
  const address = parseIpv4(text);
  if (address === undefined) throw invalidField(field, `"${text}" is not an IPv4 address`);
  return address;
}

/** Neither the network's own addresses nor one outside. */
function isHostAddress(address: number, layout: { subnet: Prefix; gateway: number }): boolean {
  const last = layout.subnet.base + prefixSize(layout.subnet.length) - 1;
  return address > layout.subnet.base && address < last && address !== layout.gateway;
}
