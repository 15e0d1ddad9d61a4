// One overlay network in the kernel of this node: its namespace, its links and routes. Everything is synchronous.
//
//   container: eth0 ── veth ── v1000 :network namespace: vx0 ── UDP of the host ── other nodes
//                                                   up0 ── veth ── tsu-… :host, unless the network is internal
//
// Routed like the node-local network: a /32 route for each container, here over its link, elsewhere over the VXLAN to
// its node. Neighbours and forwarding entries are set for each node; nothing is asked for, learned or flooded.

import { closeSync, openSync } from 'node:fs';
import { SystemCallError } from '../../linux/libc.ts';
import {
  createNamespace,
  isPinnedNamespace,
  removeNamespace,
  withinNamespace,
} from '../../linux/namespace.ts';
import type { NetlinkMessage } from '../../linux/netlink.ts';
import { NetlinkSocket, netlinkProtocols } from '../../linux/netlink-socket.ts';
import {
  addAddress,
  addPermanentNeighbour,
  addRoute,
  createVeth,
  decodeAddress,
  decodeLink,
  deleteNeighbour,
  deleteRoute,
  disableLinkLocalAddress,
  type Link,
  listIpv4Addresses,
  listLinks,
  routeLoopbackAddresses,
  setLinkAlias,
  setLinkUp,
} from '../../linux/rtnetlink.ts';
import { writeNetworkSetting } from '../../linux/sysctl.ts';
import {
  addForwardingEntry,
  createVxlan,
  decodeVxlan,
  deleteForwardingEntry,
  type ForwardingEntry,
  type Vxlan,
} from '../../linux/vxlan.ts';
import { usedPrefixes } from '../host-survey.ts';
import { formatIpv4, ipv4Bytes, ipv4Number, type Prefix } from '../ipv4.ts';
import { UPLINK_IN_NETWORK } from '../rulesets.ts';
import { planLink } from '../subnet-choice.ts';
import {
  containerMac,
  containerSettings,
  FIRST_CONTAINER_INDEX,
  freeLinkNumber,
  GATEWAY_MAC,
  ignoringErrno,
  LOOPBACK_INDEX,
  linksOf,
  NO_ADDRESS,
  removeLink,
  routeAnswers,
  UNREACHABLE_METRIC,
  writeNetworkSettings,
} from '../wiring.ts';
import { resolverRuleset } from './overlay-rulesets.ts';

export interface OverlayLayout {
  readonly namespacePath: string;
  /** The host's end of the way out; undefined for internal networks. */
  readonly uplinkName: string | undefined;
  readonly isIngress: boolean;
  readonly vni: number;
  readonly subnet: Prefix;
  readonly gateway: number;
  readonly mtu: number;
  /** The node's address and port between nodes. */
  readonly dataPathAddress: number;
  readonly dataPathPort: number;
}

/** A container's end, as the kernel keeps it: in the alias of its link. */
export interface LocalEndpoint {
  readonly id: string;
  readonly address: number;
  readonly isDefaultRoute: boolean;
  readonly namespacePath: string;
}

export type EndpointLink = Pick<Link, 'index' | 'name'>;

export const VXLAN_LINK = 'vx0';
export const VXLAN_INDEX = 100;
export const ENDPOINT_LINK_PATTERN = /^v\d+$/;
const FIRST_ENDPOINT_INDEX = 1000;
/** Who answers of the routing mesh are routed to, before they get their node's MAC address: "IPv4 dummy address" (RFC 7600). */
export const RETURN_HOP = Buffer.from([192, 0, 0, 8]);
const UPLINK_PREFIX_LENGTH = 31;
const ESRCH = 3;
const ENOENT = 2;
const ENODEV = 19;
const EEXIST = 17;
const EBUSY = 16;
const ALIAS_BYTES_MAX = 255;

export class OverlayWiring implements Disposable {
  readonly routes: NetlinkSocket;
  readonly tables: NetlinkSocket;
  readonly #hostRoutes: NetlinkSocket;
  readonly #layout: OverlayLayout;
  #uplinkAddress: Buffer | undefined;
  #nextIndex = FIRST_ENDPOINT_INDEX;

  /** Makes the namespace when it is not there. */
  constructor(layout: OverlayLayout) {
    this.#layout = layout;
    if (!isPinnedNamespace(layout.namespacePath)) {
      removeNamespace(layout.namespacePath);
      createNamespace(layout.namespacePath, () => undefined);
    }
    this.#hostRoutes = new NetlinkSocket(netlinkProtocols.route);
    [this.routes, this.tables] = withinNamespace(layout.namespacePath, () => [
      new NetlinkSocket(netlinkProtocols.route),
      new NetlinkSocket(netlinkProtocols.netfilter),
    ]);
    for (const { index } of this.endpointLinks()) this.#nextIndex = Math.max(this.#nextIndex, index + 1);
  }

  /**
   * Settings, VXLAN, way out and routes; repeating it repairs what is missing. False while the kernel has another VXLAN
   * of this number; a busy port is EADDRINUSE.
   */
  configure(): boolean {
    const { namespacePath, gateway, subnet, uplinkName } = this.#layout;
    withinNamespace(namespacePath, writeNetworkSettings);
    if (!this.#ensureVxlan()) return false;
    withinNamespace(namespacePath, () => writeNetworkSetting(`ipv4/conf/${VXLAN_LINK}/rp_filter`, 0));
    this.routes.execute([
      setLinkUp(LOOPBACK_INDEX, true),
      addAddress({ linkIndex: LOOPBACK_INDEX, address: ipv4Bytes(gateway), prefixLength: 32 }),
      // Without it, packets to addresses that no container has would leave through the default route.
      addRoute({
        type: 'unreachable',
        destination: ipv4Bytes(subnet.base),
        prefixLength: subnet.length,
        metric: UNREACHABLE_METRIC,
      }),
      disableLinkLocalAddress(VXLAN_INDEX),
      // EADDRINUSE when a process of the host has the port.
      setLinkUp(VXLAN_INDEX, true),
    ]);
    if (uplinkName !== undefined) this.#configureUplink(uplinkName);
    return true;
  }

  /** To be called when the network's table is loaded: only then does the kernel surely track connections. */
  configureConnectionTracking(): void {
    // A packet out of its window would not be translated and would leave with the backend's own address.
    withinNamespace(this.#layout.namespacePath, () =>
      writeNetworkSetting('netfilter/nf_conntrack_tcp_be_liberal', 1),
    );
  }

  /** The network's end of the way out, when there is one and it is configured. */
  get uplinkAddress(): Buffer | undefined {
    return this.#uplinkAddress;
  }

  links(): Link[] {
    return linksOf(this.routes);
  }

  /** Also those that are half made or half gone: without an alias. */
  endpointLinks(): Link[] {
    return this.links().filter(({ name }) => ENDPOINT_LINK_PATTERN.test(name));
  }

  /** The network's end of the link. */
  wire(endpoint: LocalEndpoint): EndpointLink {
    const namespaceFd = openSync(endpoint.namespacePath, 'r');
    const [containerRoutes, containerTables] = withinNamespace(endpoint.namespacePath, () => {
      for (const [name, value] of containerSettings) writeNetworkSetting(name, value);
      return [new NetlinkSocket(netlinkProtocols.route), new NetlinkSocket(netlinkProtocols.netfilter)];
    });
    try {
      const number = freeLinkNumber(linksOf(containerRoutes));
      const index = this.#createEndpointLink(endpoint, number, namespaceFd);
      try {
        containerRoutes.execute(this.#containerMessages(endpoint, number));
        if (this.#layout.uplinkName !== undefined && !endpoint.isDefaultRoute) {
          routeAnswers(containerRoutes, number, {
            address: ipv4Bytes(endpoint.address),
            gateway: ipv4Bytes(this.#layout.gateway),
            udpPorts: this.#layout.isIngress ? 'all' : [],
          });
        }
        this.#writeResolver(containerTables, number === 0);
        this.#routeTo(endpoint, index);
      } catch (error) {
        removeLink(this.routes, linkNameOf(index));
        throw error;
      }
      return { index, name: linkNameOf(index) };
    } finally {
      containerRoutes[Symbol.dispose]();
      containerTables[Symbol.dispose]();
      closeSync(namespaceFd);
    }
  }

  /** The link itself goes with the container's namespace, in bulk: deleting it here would take 12–27 ms. */
  unwire(link: EndpointLink, address: number): void {
    ignoringErrno(ENODEV, () =>
      this.routes.execute([setLinkAlias(link.index, ''), setLinkUp(link.index, false)]),
    );
    this.unroute(formatIpv4(address));
  }

  unroute(address: string): void {
    ignoringErrno(ESRCH, () => this.routes.execute([deleteRoute(bytesOf(address), 32)]));
  }

  addRemotes(routes: readonly (readonly [address: string, nodeAddress: string])[]): void {
    this.routes.execute(
      routes.map(([address, nodeAddress]) =>
        addRoute({
          destination: bytesOf(address),
          prefixLength: 32,
          linkIndex: VXLAN_INDEX,
          gateway: bytesOf(nodeAddress),
          onlink: true,
        }),
      ),
    );
  }

  addNodes(addresses: readonly string[]): void {
    this.routes.execute(addresses.flatMap(nodeMessages));
  }

  removeNodes(addresses: readonly string[]): void {
    for (const address of addresses) {
      const entry = forwardingEntryOf(address);
      ignoringErrno(ENOENT, () => this.routes.execute([deleteNeighbour(VXLAN_INDEX, entry.destination)]));
      ignoringErrno(ENOENT, () => this.routes.execute([deleteForwardingEntry(entry)]));
    }
  }

  [Symbol.dispose](): void {
    for (const socket of [this.routes, this.tables, this.#hostRoutes]) socket[Symbol.dispose]();
  }

  #ensureVxlan(): boolean {
    const { vni, dataPathAddress, dataPathPort, mtu, namespacePath } = this.#layout;
    const localAddress = ipv4Bytes(dataPathAddress);
    const existing = vxlanOf(this.routes);
    const isRight =
      existing !== undefined &&
      existing.id === vni &&
      existing.port === dataPathPort &&
      existing.localAddress.equals(localAddress);
    if (isRight) return true;
    if (existing !== undefined) removeLink(this.routes, VXLAN_LINK);
    const namespaceFd = openSync(namespacePath, 'r');
    try {
      const options = {
        name: VXLAN_LINK,
        index: VXLAN_INDEX,
        id: vni,
        localAddress,
        port: dataPathPort,
        mtu,
      };
      const macAddress = nodeMac(localAddress);
      // Made in the host's namespace: there it has its socket.
      this.#hostRoutes.execute([createVxlan({ ...options, macAddress, namespaceFd })]);
      return true;
    } catch (error) {
      if (error instanceof SystemCallError && error.errno === EEXIST) return false;
      throw error;
    } finally {
      closeSync(namespaceFd);
    }
  }

  #configureUplink(name: string): void {
    const [uplink, inNetwork] = this.#ensureUplink(name);
    const link = this.#uplinkAddresses(name, uplink);
    this.#uplinkAddress = ipv4Bytes(link.base + 1);
    this.#hostRoutes.execute([
      disableLinkLocalAddress(uplink),
      // Published ports have 127.0.0.1 as well.
      ...(this.#layout.isIngress ? [routeLoopbackAddresses(uplink)] : []),
      addAddress({
        linkIndex: uplink,
        address: ipv4Bytes(link.base),
        prefixLength: UPLINK_PREFIX_LENGTH,
      }),
      setLinkUp(uplink, true),
    ]);
    this.routes.execute([
      addAddress({
        linkIndex: inNetwork,
        address: this.#uplinkAddress,
        prefixLength: UPLINK_PREFIX_LENGTH,
      }),
      disableLinkLocalAddress(inNetwork),
      setLinkUp(inNetwork, true),
      addRoute({ destination: NO_ADDRESS, prefixLength: 0, gateway: ipv4Bytes(link.base) }),
    ]);
    // Strict source checks would drop what comes from beyond the uplink.
    withinNamespace(this.#layout.namespacePath, () =>
      writeNetworkSetting(`ipv4/conf/${UPLINK_IN_NETWORK}/rp_filter`, 0),
    );
  }

  /** The indexes of the host's end and the network's. One end alone belongs to an earlier namespace of the network. */
  #ensureUplink(name: string): [host: number, network: number] {
    const atHost = linksOf(this.#hostRoutes).find((link) => link.name === name);
    const inNetwork = this.links().find((link) => link.name === UPLINK_IN_NETWORK);
    if (atHost !== undefined && inNetwork !== undefined) return [atHost.index, inNetwork.index];
    if (atHost !== undefined) removeLink(this.#hostRoutes, name);
    if (inNetwork !== undefined) removeLink(this.routes, UPLINK_IN_NETWORK);
    const namespaceFd = openSync(this.#layout.namespacePath, 'r');
    try {
      const peer = { name: UPLINK_IN_NETWORK, namespaceFd };
      this.#hostRoutes.execute([createVeth({ name, mtu: this.#layout.mtu, peer })]);
    } finally {
      closeSync(namespaceFd);
    }
    return this.#ensureUplink(name);
  }

  /** What the link has, or a free /31. */
  #uplinkAddresses(name: string, index: number): Prefix {
    const existing = this.#hostRoutes
      .dump(listIpv4Addresses)
      .map((reply) => decodeAddress(reply.body))
      .find((address) => address.linkIndex === index && address.prefixLength === UPLINK_PREFIX_LENGTH);
    if (existing !== undefined) return { base: ipv4Number(existing.address), length: UPLINK_PREFIX_LENGTH };
    return planLink(name, usedPrefixes(this.#hostRoutes));
  }

  /** The index of the network's end. Numbers go up: a link that is gone keeps its own until the kernel has freed it. */
  #createEndpointLink(endpoint: LocalEndpoint, number: number, namespaceFd: number): number {
    const macAddress = containerMac(ipv4Bytes(endpoint.address));
    for (;;) {
      const index = this.#nextIndex++;
      const peer = { name: `eth${number}`, index: FIRST_CONTAINER_INDEX + number, macAddress, namespaceFd };
      const link = { name: linkNameOf(index), index, macAddress: GATEWAY_MAC, mtu: this.#layout.mtu, peer };
      try {
        this.routes.execute([createVeth(link)]);
        return index;
      } catch (error) {
        const isTaken = error instanceof SystemCallError && (error.errno === EEXIST || error.errno === EBUSY);
        if (!isTaken || !this.links().some((other) => other.index === index)) throw error;
      }
    }
  }

  /** A container asks the network of its first link; what is there before that one is left of an earlier attempt. */
  #writeResolver(containerTables: NetlinkSocket, isFirst: boolean): void {
    const gateway = ipv4Bytes(this.#layout.gateway);
    try {
      containerTables.executeBatch(resolverRuleset(gateway, 'create'));
    } catch (error) {
      if (!(error instanceof SystemCallError) || error.errno !== EEXIST) throw error;
      if (isFirst) containerTables.executeBatch(resolverRuleset(gateway, 'replace'));
    }
  }

  #containerMessages(endpoint: LocalEndpoint, number: number): NetlinkMessage[] {
    const linkIndex = FIRST_CONTAINER_INDEX + number;
    const gateway = ipv4Bytes(this.#layout.gateway);
    const { subnet, uplinkName } = this.#layout;
    const over = { linkIndex, gateway, onlink: true };
    const messages = [
      setLinkUp(LOOPBACK_INDEX, true),
      disableLinkLocalAddress(linkIndex),
      addAddress({
        linkIndex,
        address: ipv4Bytes(endpoint.address),
        prefixLength: subnet.length,
        withoutPrefixRoute: true,
      }),
      routeLoopbackAddresses(linkIndex),
      setLinkUp(linkIndex, true),
      addPermanentNeighbour({ linkIndex, address: gateway, macAddress: GATEWAY_MAC }),
      addRoute({ destination: ipv4Bytes(subnet.base), prefixLength: subnet.length, ...over }),
    ];
    if (endpoint.isDefaultRoute && uplinkName !== undefined) {
      messages.push(addRoute({ destination: NO_ADDRESS, prefixLength: 0, ...over }));
    }
    return messages;
  }

  /** The alias comes last: it says that the endpoint is complete. */
  #routeTo(endpoint: LocalEndpoint, index: number): void {
    const address = ipv4Bytes(endpoint.address);
    this.routes.execute([...endpointMessages(index, address), setLinkAlias(index, formatAlias(endpoint))]);
  }
}

/** What the network's side of an endpoint has to have; repeating it repairs. */
export function endpointMessages(index: number, address: Buffer): NetlinkMessage[] {
  return [
    disableLinkLocalAddress(index),
    setLinkUp(index, true),
    addPermanentNeighbour({ linkIndex: index, address, macAddress: containerMac(address) }),
    addRoute({ destination: address, prefixLength: 32, linkIndex: index }),
  ];
}

/** The VXLAN link of the namespace of this socket. */
export function vxlanOf(routes: NetlinkSocket): Vxlan | undefined {
  const reply = routes.dump(listLinks).find(({ body }) => decodeLink(body).name === VXLAN_LINK);
  return reply === undefined ? undefined : decodeVxlan(reply.body);
}

/** The MAC address of a node's VXLAN links. Nobody needs to tell it: it follows from the address. */
export function nodeMac(address: Buffer): Buffer {
  return Buffer.concat([Buffer.from([0x02, 0x54]), address]);
}

export function isAliasTooLong(endpoint: LocalEndpoint): boolean {
  return Buffer.byteLength(formatAlias(endpoint)) > ALIAS_BYTES_MAX;
}

const DEFAULT_ROUTE = 'default';
const NO_DEFAULT_ROUTE = 'subnet';

function formatAlias(endpoint: LocalEndpoint): string {
  const way = endpoint.isDefaultRoute ? DEFAULT_ROUTE : NO_DEFAULT_ROUTE;
  return `${endpoint.id} ${formatIpv4(endpoint.address)} ${way} ${endpoint.namespacePath}`;
}

/** undefined for a link that is half made or half gone. */
export function parseAlias(alias: string): LocalEndpoint | undefined {
  const [, id = '', address = '', way, namespacePath = ''] = /^(\S+) (\S+) (\S+) (.+)$/.exec(alias) ?? [];
  if (id === '') return undefined;
  const addressNumber = ipv4Number(bytesOf(address));
  return { id, address: addressNumber, isDefaultRoute: way === DEFAULT_ROUTE, namespacePath };
}

function linkNameOf(index: number): string {
  return `v${index}`;
}

function nodeMessages(address: string): NetlinkMessage[] {
  const entry = forwardingEntryOf(address);
  const { linkIndex, macAddress, destination } = entry;
  return [addPermanentNeighbour({ linkIndex, address: destination, macAddress }), addForwardingEntry(entry)];
}

function forwardingEntryOf(nodeAddress: string): ForwardingEntry {
  const destination = bytesOf(nodeAddress);
  return { linkIndex: VXLAN_INDEX, macAddress: nodeMac(destination), destination };
}

/** Of an address that has been checked. */
export function bytesOf(address: string): Buffer {
  return Buffer.from(address.split('.').map(Number));
}
