// Puts the node-local network and its endpoints into the kernel. Everything is synchronous: the calls of one endpoint
// are one block that no other code interrupts.
//
//   container: eth0 ── veth ── v… :network namespace: up0 ── veth ── tsu-… :host
//
// The network is routed, not bridged: one /32 route per container, and neighbours that are set rather than asked
// for, so there is no ARP to answer, to learn from or to spoof.

import { closeSync, openSync } from 'node:fs';
import { defined } from '../../core/assert.ts';
import { familyOfBytes, type IpFamily, ipFamilies } from '../linux/ip-family.ts';
import { SystemCallError } from '../linux/libc.ts';
import { createNamespace, isPinnedNamespace, removeNamespace, withinNamespace } from '../linux/namespace.ts';
import { NetlinkSocket, netlinkProtocols } from '../linux/netlink-socket.ts';
import { addRoutingRule, type RoutingRule } from '../linux/routing-rules.ts';
import {
  addAddress,
  addPermanentNeighbour,
  addRoute,
  createVeth,
  decodeLink,
  deleteLink,
  disableLinkLocalAddress,
  type Link,
  listLinks,
  MAIN_TABLE,
  setLinkUp,
} from '../linux/rtnetlink.ts';
import { writeNetworkSetting } from '../linux/sysctl.ts';
import { gatewayOf } from './address-pool.ts';
import { ipv4Bytes, type Prefix } from './ipv4.ts';
import { ipv6End, ipv6IsOn, ipv6LinkMessages, ipv6Settings } from './ipv6-link.ts';
import { UPLINK_IN_NETWORK } from './rulesets.ts';

export interface NetworkLayout {
  readonly namespacePath: string;
  /** The host's end of the link to the network. */
  readonly uplinkName: string;
  readonly subnet: Prefix;
  /** A /31: the host has the first address, the network the second. */
  readonly link: Prefix;
  readonly mtu: number;
  /** Whether the host of this socket's namespace has IPv6 at the moment. */
  readonly hasIpv6: (hostRoutes: NetlinkSocket) => boolean;
}

export interface EndpointLayout {
  readonly id: string;
  readonly namespacePath: string;
  readonly address: number;
  /** Where the network has IPv6. */
  readonly ipv6Address?: Buffer;
  /** Of a link in a namespace that somebody else has made and has links in. */
  readonly further?: FurtherLink;
  /** One that is there already, to be used instead of a new one. */
  readonly madeNamespace?: string | undefined;
}

export interface FurtherLink {
  readonly isDefaultRoute: boolean;
  /** Ports of UDP servers that are reached by the link. */
  readonly udpPorts: readonly number[];
}

/** A unique local one (RFC 4193): of an endpoint's IPv6 address, which ends with its IPv4 address. */
const IPV6_PREFIX = Buffer.from('fd7473737761726e00000000', 'hex');
export const LOOPBACK_INDEX = 1;
/** Of the host's ends of links to networks, of all engines. */
export const UPLINK_PREFIX = 'tsu-';
const CONTAINER_LINK_PATTERN = /^eth(\d+)$/;
/** A container's links follow lo: eth0 has index 2. */
export const FIRST_CONTAINER_INDEX = 2;
/** Of a container's routing tables for answers: one for each of its links. */
const ANSWER_TABLE_BASE = 1000;
/** Of a container's routing rules, in the order in which they are looked at. */
const answerPriorities = { ipv6Source: 800, networks: 900, udpPort: 910, udp: 920 } as const;
const UPLINK_IN_NETWORK_INDEX = 2;
/** Link numbers of endpoints follow from their addresses, so that nothing needs to be looked up. */
const ENDPOINT_INDEX_BASE = 1000;
/** The same on every node and link: a container's neighbour entry never changes. */
export const GATEWAY_MAC = Buffer.from([0x02, 0x54, 0, 0, 0, 0x01]);
export const NO_ADDRESS = Buffer.alloc(4);
/** Lower priority than any other route: only for addresses of the subnet that no container has. */
export const UNREACHABLE_METRIC = 0x7fffffff;
const EEXIST = 17;
const EBUSY = 16;
const ENODEV = 19;

export class Wiring implements Disposable {
  readonly hostRoutes: NetlinkSocket;
  readonly hostTables: NetlinkSocket;
  readonly networkRoutes: NetlinkSocket;
  readonly networkTables: NetlinkSocket;
  readonly #layout: NetworkLayout;
  #hasIpv6 = false;

  /** Makes the network's namespace when it is not there. */
  constructor(layout: NetworkLayout) {
    this.#layout = layout;
    if (!isPinnedNamespace(layout.namespacePath)) {
      removeNamespace(layout.namespacePath);
      createNamespace(layout.namespacePath, () => undefined);
    }
    this.hostRoutes = new NetlinkSocket(netlinkProtocols.route);
    this.hostTables = new NetlinkSocket(netlinkProtocols.netfilter);
    [this.networkRoutes, this.networkTables] = withinNamespace(layout.namespacePath, () => [
      new NetlinkSocket(netlinkProtocols.route),
      new NetlinkSocket(netlinkProtocols.netfilter),
    ]);
  }

  /** Settings, uplink and routes of the network; repeating it repairs what is missing. */
  configureNetwork(): void {
    const layout = this.#layout;
    this.#hasIpv6 = layout.hasIpv6(this.hostRoutes);
    withinNamespace(layout.namespacePath, () => {
      writeNetworkSettings();
      if (this.#hasIpv6) for (const [name, value] of ipv6Settings) writeNetworkSetting(name, value);
    });
    const uplink = this.#ensureUplink();
    writeNetworkSetting(`ipv4/conf/${layout.uplinkName}/route_localnet`, 1);
    this.hostRoutes.execute([
      disableLinkLocalAddress(uplink),
      addAddress({ linkIndex: uplink, address: ipv4Bytes(layout.link.base), prefixLength: 31 }),
      setLinkUp(uplink, true),
    ]);
    this.networkRoutes.execute([
      setLinkUp(LOOPBACK_INDEX, true),
      addAddress({
        linkIndex: LOOPBACK_INDEX,
        address: ipv4Bytes(gatewayOf(layout.subnet)),
        prefixLength: 32,
      }),
      // Without it, packets to addresses that no container has would leave through the default route.
      addRoute({
        type: 'unreachable',
        destination: ipv4Bytes(layout.subnet.base),
        prefixLength: layout.subnet.length,
        metric: UNREACHABLE_METRIC,
      }),
      addAddress({
        linkIndex: UPLINK_IN_NETWORK_INDEX,
        address: ipv4Bytes(layout.link.base + 1),
        prefixLength: 31,
      }),
      disableLinkLocalAddress(UPLINK_IN_NETWORK_INDEX),
      setLinkUp(UPLINK_IN_NETWORK_INDEX, true),
      addRoute({ destination: NO_ADDRESS, prefixLength: 0, gateway: ipv4Bytes(layout.link.base) }),
    ]);
    if (this.#hasIpv6) this.#configureIpv6(uplink);
    // Strict source checks would drop what comes from beyond the uplink.
    withinNamespace(layout.namespacePath, () =>
      writeNetworkSetting(`ipv4/conf/${UPLINK_IN_NETWORK}/rp_filter`, 0),
    );
  }

  /** IPv6 came to the host since this was configured. */
  get lacksIpv6(): boolean {
    return !this.#hasIpv6 && this.#layout.hasIpv6(this.hostRoutes);
  }

  /** The network's end of the link to the host; absent: the network does not have the family. */
  uplinkAddress(family: IpFamily): Buffer | undefined {
    const address = ipv4Bytes(this.#layout.link.base + 1);
    if (family === 'ipv4') return address;
    return this.#hasIpv6 ? ipv6End(address) : undefined;
  }

  /** Of the endpoint with this IPv4 address, where the network has IPv6. */
  ipv6AddressOf(address: number): Buffer | undefined {
    return this.#hasIpv6 ? ipv6Twin(address) : undefined;
  }

  #configureIpv6(uplink: number): void {
    const { uplinkName, subnet, link } = this.#layout;
    writeNetworkSetting(`ipv6/conf/${uplinkName}/disable_ipv6`, 0);
    const messages = ipv6LinkMessages(
      { host: uplink, network: UPLINK_IN_NETWORK_INDEX },
      { host: ipv4Bytes(link.base), network: ipv4Bytes(link.base + 1) },
    );
    this.hostRoutes.execute(messages.host);
    this.networkRoutes.execute([
      ...messages.network,
      addAddress({
        linkIndex: LOOPBACK_INDEX,
        address: ipv6Twin(gatewayOf(subnet)),
        prefixLength: ipFamilies.ipv6.hostPrefixLength,
      }),
      addRoute({
        type: 'unreachable',
        destination: ipv6Twin(subnet.base),
        prefixLength: IPV6_PREFIX.length * 8 + subnet.length,
        metric: UNREACHABLE_METRIC,
      }),
    ]);
  }

  /** To be called when the network's table is loaded: only then does the kernel surely track connections. */
  configureConnectionTracking(): void {
    withinNamespace(this.#layout.namespacePath, writeConnectionSettings);
  }

  /** The endpoints' links that exist, by name. */
  endpointLinks(): Set<string> {
    return new Set(linksOf(this.networkRoutes).map((link) => link.name));
  }

  /** False when the address is still in use by a link that the kernel has not freed yet. */
  wire(endpoint: EndpointLayout): boolean {
    try {
      if (endpoint.further !== undefined) this.#wireFurther(endpoint, endpoint.further);
      else {
        removeNamespace(endpoint.namespacePath);
        const configure = (namespaceFd: number) => this.#wireInside(endpoint, namespaceFd);
        createNamespace(endpoint.namespacePath, configure, endpoint.madeNamespace);
      }
      return true;
    } catch (error) {
      if (error instanceof SystemCallError && (error.errno === EEXIST || error.errno === EBUSY)) return false;
      throw error;
    }
  }

  /** Deleting the link itself would take 12–27 ms; freeing the namespace deletes links in bulk and in the background. */
  unwire(endpoint: EndpointLayout): void {
    ignoringErrno(ENODEV, () =>
      this.networkRoutes.execute([setLinkUp(linkIndexOf(endpoint, this.#layout), false)]),
    );
    if (endpoint.further === undefined) removeNamespace(endpoint.namespacePath);
  }

  /** A link that a crash has left. */
  removeEndpointLink(name: string): void {
    removeLink(this.networkRoutes, name);
  }

  [Symbol.dispose](): void {
    for (const socket of [this.hostRoutes, this.hostTables, this.networkRoutes, this.networkTables]) {
      socket[Symbol.dispose]();
    }
  }

  #wireFurther(endpoint: EndpointLayout, further: FurtherLink): void {
    const namespaceFd = openSync(endpoint.namespacePath, 'r');
    try {
      withinNamespace(endpoint.namespacePath, () => this.#wireInside(endpoint, namespaceFd, further));
    } finally {
      closeSync(namespaceFd);
    }
  }

  /** Called inside the container's namespace. */
  #wireInside(endpoint: EndpointLayout, namespaceFd: number, further?: FurtherLink): void {
    for (const [name, value] of containerSettings) writeNetworkSetting(name, value);
    using containerRoutes = new NetlinkSocket(netlinkProtocols.route);
    const number = further === undefined ? 0 : freeLinkNumber(linksOf(containerRoutes));
    const index = linkIndexOf(endpoint, this.#layout);
    const { ipv6Address } = endpoint;
    if (ipv6Address !== undefined) writeNetworkSetting(...ipv6IsOn);
    const macAddress = containerMac(ipv4Bytes(endpoint.address));
    const containerLink = { name: `eth${number}`, index: FIRST_CONTAINER_INDEX + number };
    this.networkRoutes.execute([
      createVeth({
        name: endpointLinkName(endpoint.address),
        index,
        macAddress: GATEWAY_MAC,
        mtu: this.#layout.mtu,
        alias: endpoint.id,
        peer: { ...containerLink, macAddress, namespaceFd },
      }),
    ]);
    try {
      for (const address of addressesOf(endpoint))
        this.#routeInside(containerRoutes, number, address, further);
      this.networkRoutes.execute([
        disableLinkLocalAddress(index),
        setLinkUp(index, true),
        ...addressesOf(endpoint).flatMap((address) => {
          const prefixLength = ipFamilies[familyOfBytes(address)].hostPrefixLength;
          return [
            addPermanentNeighbour({ linkIndex: index, address, macAddress }),
            addRoute({ destination: address, prefixLength, linkIndex: index }),
          ];
        }),
      ]);
    } catch (error) {
      // A namespace that is made here goes with its links.
      if (further !== undefined) removeLink(this.networkRoutes, endpointLinkName(endpoint.address));
      throw error;
    }
  }

  #routeInside(routes: NetlinkSocket, number: number, address: Buffer, further?: FurtherLink): void {
    const linkIndex = FIRST_CONTAINER_INDEX + number;
    const { subnet } = this.#layout;
    const isIpv4 = familyOfBytes(address) === 'ipv4';
    const bytesOf = isIpv4 ? ipv4Bytes : ipv6Twin;
    const prefixLength = subnet.length + (isIpv4 ? 0 : IPV6_PREFIX.length * 8);
    const gateway = bytesOf(gatewayOf(subnet));
    const over = { linkIndex, gateway, onlink: true };
    const leadsOut = further === undefined || further.isDefaultRoute;
    routes.execute([
      setLinkUp(LOOPBACK_INDEX, true),
      disableLinkLocalAddress(linkIndex),
      addAddress({ linkIndex, address, prefixLength, withoutPrefixRoute: true }),
      setLinkUp(linkIndex, true),
      addPermanentNeighbour({ linkIndex, address: gateway, macAddress: GATEWAY_MAC }),
      leadsOut
        ? addRoute({ destination: Buffer.alloc(address.length), prefixLength: 0, ...over })
        : addRoute({ destination: bytesOf(subnet.base), prefixLength, ...over }),
    ]);
    if (further === undefined) return;
    routeAnswers(routes, number, { address, gateway, inMainTable: false, udpPorts: further.udpPorts });
  }

  /** The index of the host's end. */
  #ensureUplink(): number {
    const name = this.#layout.uplinkName;
    const existing = linksOf(this.hostRoutes).find((link) => link.name === name);
    const hasPeer = linksOf(this.networkRoutes).some((link) => link.name === UPLINK_IN_NETWORK);
    if (existing !== undefined && hasPeer) return existing.index;
    // One end alone belongs to an earlier namespace of the network.
    if (existing !== undefined) removeLink(this.hostRoutes, name);
    if (hasPeer) removeLink(this.networkRoutes, UPLINK_IN_NETWORK);
    const namespaceFd = openSync(this.#layout.namespacePath, 'r');
    try {
      const peer = { name: UPLINK_IN_NETWORK, index: UPLINK_IN_NETWORK_INDEX, namespaceFd };
      this.hostRoutes.execute([createVeth({ name, mtu: this.#layout.mtu, peer })]);
    } finally {
      closeSync(namespaceFd);
    }
    const created = linksOf(this.hostRoutes).find((link) => link.name === name);
    return defined(created, `link ${name} was just created`).index;
  }
}

/** Nobody needs to ask for it, or tell it: it follows from the address. */
export function containerMac(address: Buffer): Buffer {
  return Buffer.concat([Buffer.from([0x02, 0x42]), address]);
}

/** The name of an endpoint's link in the network's namespace. */
export function endpointLinkName(address: number): string {
  return `v${ipv4Bytes(address).toString('hex')}`;
}

/** Removes the link of this name; none is fine. */
export function removeLink(socket: NetlinkSocket, name: string): void {
  ignoringErrno(ENODEV, () => socket.execute([deleteLink(name)]));
}

/** Of the next link of a container: n of ethN. */
export function freeLinkNumber(links: readonly Link[]): number {
  const used = links.map(({ name }) => Number(CONTAINER_LINK_PATTERN.exec(name)?.[1] ?? -1));
  return Math.max(-1, ...used) + 1;
}

export interface AnswerRouting {
  readonly address: Buffer;
  readonly gateway: Buffer;
  /** The default route is by this link: its answers need no table of their own. */
  readonly inMainTable: boolean;
  /** Ports of the container's UDP servers that are reached by this link, or all. */
  readonly udpPorts: readonly number[] | 'all';
}

/**
 * In a container: what is sent from an address leaves by the address's own link, whatever the default route is. A UDP
 * server that listens on all addresses leaves the choice of its answers' address to the routes, which cannot know by which
 * link the question came: then the port tells, except within the container's networks.
 */
export function routeAnswers(routes: NetlinkSocket, number: number, answers: AnswerRouting): void {
  const { address, gateway, inMainTable, udpPorts } = answers;
  const family = familyOfBytes(address);
  const table = ANSWER_TABLE_BASE + number;
  const linkIndex = FIRST_CONTAINER_INDEX + number;
  const rules: RoutingRule[] = [];
  // A rule of IPv6 cannot ask for packets without an address: so those with one are told where to go before.
  if (family === 'ipv6') {
    const ownTable = inMainTable ? MAIN_TABLE : table;
    rules.push({ family, source: address, table: ownTable, priority: answerPriorities.ipv6Source });
  } else if (!inMainTable) rules.push({ family, source: address, table, priority: table });
  if (!inMainTable) {
    const route = { destination: Buffer.alloc(address.length), prefixLength: 0, linkIndex, gateway };
    routes.execute([addRoute({ ...route, onlink: true, table })]);
    const source = family === 'ipv4' ? { source: NO_ADDRESS } : {};
    const udp = { family, ...source, isUdp: true, table } as const;
    if (udpPorts === 'all') rules.push({ ...udp, priority: answerPriorities.udp });
    else
      for (const sourcePort of udpPorts) {
        rules.push({ ...udp, sourcePort, priority: answerPriorities.udpPort });
      }
    if (udpPorts.length > 0) {
      const priority = answerPriorities.networks;
      rules.push({ family, table: MAIN_TABLE, withoutDefault: true, priority });
    }
  }
  // What is there already is another link's too, or that of an earlier link of this number.
  for (const rule of rules) ignoringErrno(EEXIST, () => routes.execute([addRoutingRule(rule)]));
}

export function linksOf(socket: NetlinkSocket): Link[] {
  return socket.dump(listLinks).map((reply) => decodeLink(reply.body));
}

function ipv6Twin(address: number): Buffer {
  return Buffer.concat([IPV6_PREFIX, ipv4Bytes(address)]);
}

function addressesOf({ address, ipv6Address }: EndpointLayout): Buffer[] {
  return [ipv4Bytes(address), ...(ipv6Address === undefined ? [] : [ipv6Address])];
}

function linkIndexOf(endpoint: EndpointLayout, layout: NetworkLayout): number {
  return ENDPOINT_INDEX_BASE + endpoint.address - layout.subnet.base;
}

/**
 * The kernel keeps the connections that have ended for 120, and there is one for each namespace that they pass: thousands of
 * short ones a second would fill its table, which makes every look at it slow. What comes late comes in less.
 */
const TIME_WAIT_SECONDS = 15;

/** What Docker sets for containers: ports below 1024 and ping need no privilege. */
export const containerSettings: readonly (readonly [string, string])[] = [
  ['ipv4/ip_forward', '0'],
  ['ipv4/ip_unprivileged_port_start', '0'],
  ['ipv4/ping_group_range', '0 2147483647'],
];

/** A new namespace inherits some settings of the host's: those that matter are set. */
export function writeNetworkSettings(): void {
  writeNetworkSetting('ipv4/ip_forward', 1);
  writeNetworkSetting('ipv4/conf/all/rp_filter', 0);
  // Links to containers are strict from their creation: a container cannot send with another source address.
  writeNetworkSetting('ipv4/conf/default/rp_filter', 1);
  writeNetworkSetting('ipv4/conf/all/send_redirects', 0);
  writeNetworkSetting('ipv4/conf/default/send_redirects', 0);
}

/** For a namespace whose connections the kernel tracks. */
export function writeConnectionSettings(): void {
  // A packet out of its window would not be translated and would leave with the container's own address.
  writeNetworkSetting('netfilter/nf_conntrack_tcp_be_liberal', 1);
  writeNetworkSetting('netfilter/nf_conntrack_tcp_timeout_time_wait', TIME_WAIT_SECONDS);
}

export function ignoringErrno(errno: number, action: () => void): void {
  try {
    action();
  } catch (error) {
    if (!(error instanceof SystemCallError) || error.errno !== errno) throw error;
  }
}
