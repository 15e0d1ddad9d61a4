// The overlay of this node: its networks and the host's table for all of them. A network's pinned namespace is the
// record that it exists. The work is done in the calling thread, like that of the node-local network.

import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';
import { invalidField, SwarmError } from '../../../core/errors.ts';
import { formatPrefix } from '../../../core/ip-address.ts';
import type { Logger } from '../../../rpc/logger.ts';
import { SystemCallError } from '../../linux/libc.ts';
import {
  isPinnedNamespace,
  removeNamespace,
  startThreadPool,
  withinNamespace,
} from '../../linux/namespace.ts';
import { NetlinkSocket, netlinkProtocols } from '../../linux/netlink-socket.ts';
import { familyOf } from '../ip-bytes.ts';
import { hostNameServers, planOverlayResolvConf, readResolvConfSources } from '../resolv-conf.ts';
import { linksOf, removeLink, UPLINK_PREFIX } from '../wiring.ts';
import { Forwarder } from './dns-forwarder.ts';
import { DnsServer } from './dns-server.ts';
import type { Client } from './dns-zone.ts';
import { HostSide } from './host-side.ts';
import { KernelNetwork } from './kernel-network.ts';
import { type LocalEndpoint, parseAlias } from './local-endpoint.ts';
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
  VirtualService,
} from './overlay.ts';
import { familiesOf, isWidened, type OverlayLayout } from './overlay-layout.ts';
import { RESOLVER_ADDRESS, VXLAN_LINK } from './overlay-rulesets.ts';
import { ENDPOINT_LINK_PATTERN, vxlanOf } from './overlay-wiring.ts';

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
  /** In their place for a container, by its namespace; undefined when it has none of its own. */
  readonly nameServersOf?: (namespacePath: string) => readonly string[] | undefined;
  readonly logger: Logger;
}

const DEFAULT_DATA_PATH_PORT = 4789;
const PINS_FOLDER = 'overlay';
const ENDPOINT_ID_PATTERN = /^\S{1,128}$/;
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

/** Ids of the networks that the kernel has for a run directory, whoever made them. */
export function pinnedNetworks(runDir: string): string[] {
  const folder = join(runDir, PINS_FOLDER);
  return existsSync(folder)
    ? readdirSync(folder).filter((name) => isPinnedNamespace(join(folder, name)))
    : [];
}

class KernelOverlay implements Overlay {
  readonly #options: OverlayOptions;
  readonly #dataPathAddress: number;
  readonly #dataPathPort: number;
  readonly #host: HostSide;
  readonly #networks = new Map<string, KernelNetwork>();
  /** One on each gateway of IPv4, which every container has. */
  readonly #servers = new Map<string, DnsServer[]>();
  readonly #forwarder: Forwarder;
  /** Container's namespace → its networks; made when somebody asks for a name. */
  #clients = new Map<string, Client>();
  #plannedResolvConf: { readonly text: string; readonly until: number } | undefined;
  readonly #opening = new Map<string, Promise<void>>();

  constructor(options: OverlayOptions) {
    this.#options = options;
    this.#dataPathAddress = checkedAddress('dataPathAddress', options.dataPathAddress);
    this.#dataPathPort = options.dataPathPort ?? DEFAULT_DATA_PATH_PORT;
    this.#host = new HostSide({
      ...options,
      dataPathPort: this.#dataPathPort,
      uplinkNames: () => this.#pins().map((networkId) => this.#uplinkOf(networkId)),
    });
    this.#forwarder = new Forwarder(() => options.nameServers ?? hostNameServers(readResolvConfSources()));
  }

  /** What a process left that was killed while it made or removed a network. */
  clean(): void {
    this.#host.adopt();
    for (const name of readdirSync(join(this.#options.runDir, PINS_FOLDER))) {
      if (!isPinnedNamespace(this.#pinOf(name))) this.#takeDown(name);
    }
    this.#host.tidyUp();
  }

  async ensure(network: OverlayNetwork): Promise<void> {
    const opening = this.#opening.get(network.id);
    if (opening !== undefined) return opening;
    const layout = this.#layoutOf(network);
    const existing = this.#networks.get(network.id);
    if (existing === undefined && layout.isIngress) this.#refuseSecondIngress();
    const change =
      existing === undefined ? this.#open(network.id, layout) : this.#widen(existing, network.id, layout);
    const promise = change.finally(() => this.#opening.delete(network.id));
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
    const { id, address, ipv6Address, isDefaultRoute, namespacePath } = endpoint;
    for (const [field, family, text] of [
      ['address', 'ipv4', address],
      ['ipv6Address', 'ipv6', ipv6Address],
    ] as const) {
      if (text === undefined) continue;
      if (familyOf(text) !== family || !isHostAddress(text, network.layout.subnets)) {
        throw invalidField(field, `${text} is not for containers of network ${endpoint.networkId}`);
      }
    }
    const ipv6 = ipv6Address === undefined ? {} : { ipv6Address };
    network.attach({ id, address, ...ipv6, isDefaultRoute, namespacePath });
    this.#clients.clear();
    return { resolvConf: this.#resolvConf() };
  }

  async detach(endpointId: string): Promise<void> {
    for (const network of this.#networks.values()) network.detach(endpointId);
    this.#clients.clear();
  }

  async apply(networkId: string, state: OverlayState): Promise<void> {
    const network = this.#network(networkId);
    const before = network.services;
    for (const [index, service] of state.services.entries())
      if (service !== before[index]) checkService(service);
    const published = state.published ?? [];
    if (!network.layout.isIngress) {
      if (published.length > 0) throw invalidField('published', `network ${networkId} is not the ingress`);
      network.apply(state, new Map());
      return;
    }
    network.apply(state, this.#host.planPorts(network, published));
    // The network first: the host never sends to a port that is not known there.
    this.#host.publish(network);
  }

  async portProblems(): Promise<PortProblem[]> {
    return [...this.#host.problems];
  }

  async endFlows(networkId: string, addresses: readonly string[]): Promise<void> {
    await this.#networks.get(networkId)?.endFlows(addresses);
  }

  async audit(networkId: string): Promise<Drift[]> {
    return [...this.#network(networkId).audit(), ...this.#host.drift()];
  }

  async repair(networkId: string): Promise<Drift[]> {
    const network = this.#network(networkId);
    const hostDrift = this.#host.drift();
    const drift = [...network.repair(), ...hostDrift];
    if (drift.length > 0) this.#host.writeTables();
    const ports = network.layout.isIngress ? this.#host.replanPorts(network) : undefined;
    if (ports !== undefined) {
      network.publish(ports);
      this.#host.publish(network);
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
        endpoints: endpoints.map((endpoint) => ({ ...endpoint, networkId })),
      };
    });
  }

  /** Lets go of the networks, which go on working without this process; names are not answered meanwhile. */
  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.allSettled(this.#opening.values());
    for (const networkId of this.#networks.keys()) this.#close(networkId);
    this.#host[Symbol.dispose]();
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
    return pinnedNetworks(this.#options.runDir);
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
    for (const server of this.#servers.get(networkId) ?? []) server[Symbol.dispose]();
    this.#servers.delete(networkId);
    this.#networks.get(networkId)?.[Symbol.dispose]();
    this.#networks.delete(networkId);
    this.#clients.clear();
  }

  /** Gateways that are served already stay as they are. */
  async #serveNames(networkId: string, network: KernelNetwork): Promise<void> {
    const servers = this.#servers.get(networkId) ?? [];
    this.#servers.set(networkId, servers);
    for (const { gateway } of network.layout.subnets) {
      if (familyOf(gateway) !== 'ipv4' || servers.some(({ address }) => address === gateway)) continue;
      const server = new DnsServer({
        namespacePath: network.layout.namespacePath,
        address: gateway,
        clientAt: (address) => this.#clientAt(network, address),
        forwarder: this.#forwarder,
        logger: this.#options.logger,
      });
      servers.push(server);
      await server.listen();
    }
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
      nameServers: this.#options.nameServersOf?.(asking.namespacePath),
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
      routes: this.#host.routes,
    });
  }

  async #widen(network: KernelNetwork, networkId: string, wanted: OverlayLayout): Promise<void> {
    refuseChange(networkId, network.layout, wanted);
    if (isDeepStrictEqual(network.layout.subnets, wanted.subnets)) return;
    const subnets = wanted.subnets.map((subnet) => formatPrefix(subnet.prefix));
    this.#options.logger.info({ network: networkId, subnets }, 'a network has more addresses');
    network.widen({ ...network.layout, subnets: wanted.subnets });
    await this.#serveNames(networkId, network);
  }

  async #open(networkId: string, layout: OverlayLayout): Promise<void> {
    const isNew = !isPinnedNamespace(layout.namespacePath);
    const network = new KernelNetwork(layout, this.#options.logger);
    try {
      await this.#openWhenFree(network);
      this.#networks.set(networkId, network);
      this.#host.writeTables();
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
    removeLink(this.#host.routes, this.#uplinkOf(networkId));
    removeNamespace(pin);
    this.#host.tidyUp();
  }
}

function checkService({ vip, backends, weights = [] }: VirtualService): void {
  for (const weight of weights) checkWeight('services.weights', weight);
  const other = backends.find((backend) => familyOf(backend) !== familyOf(vip));
  if (other !== undefined) throw invalidField('services.backends', `${other} cannot answer for ${vip}`);
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

/** All but its subnets stays as it was; those can only become more or wider. */
function refuseChange(networkId: string, existing: OverlayLayout, wanted: OverlayLayout): void {
  // The underlay's MTU may have changed meanwhile; the network keeps the one that it was made with.
  const isSame = isDeepStrictEqual({ ...existing, mtu: 0, subnets: [] }, { ...wanted, mtu: 0, subnets: [] });
  const keepsFamilies = `${familiesOf(existing)}` === `${familiesOf(wanted)}`;
  if (isSame && keepsFamilies && isWidened(existing.subnets, wanted.subnets)) return;
  throw new SwarmError('failed-precondition', `network ${networkId} is on this node with other properties`, {
    hint: 'Remove it first.',
  });
}
