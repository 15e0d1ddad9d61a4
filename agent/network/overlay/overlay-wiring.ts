// One overlay network in the kernel of this node: its namespace, its links and routes. Everything is synchronous.
//
//   container: eth0 ── veth ── v1000 :network namespace: vx0 ── UDP of the host ── other nodes
//                                                   up0 ── veth ── tsu-… :host, unless the network is internal
//
// Routed like the node-local network: a route for each address of a container, here over its link, elsewhere over the VXLAN
// to its node. Neighbours and forwarding entries are set for each node; nothing is asked for, learned or flooded.

import { closeSync, openSync } from 'node:fs';
import { assert } from '../../../core/assert.ts';
import { ConnectionForgetter } from '../../linux/connection-forgetter.ts';
import { ipFamilies } from '../../linux/ip-family.ts';
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
  listAddresses,
  listLinks,
  routeLoopbackAddresses,
  setLinkAlias,
  setLinkUp,
} from '../../linux/rtnetlink.ts';
import { writeNetworkSetting } from '../../linux/sysctl.ts';
import { createVxlan, decodeVxlan, deleteForwardingEntry, type Vxlan } from '../../linux/vxlan.ts';
import { bytesOf, familyNamed, familyOf, valueBytes } from '../ip-bytes.ts';
import { ipv4Bytes } from '../ipv4.ts';
import { ipv6IsOn, ipv6Settings } from '../ipv6-link.ts';
import {
  containerMac,
  containerSettings,
  FIRST_CONTAINER_INDEX,
  freeLinkNumber,
  GATEWAY_MAC,
  ignoringErrno,
  LOOPBACK_INDEX,
  linksOf,
  removeLink,
  routeAnswers,
  UNREACHABLE_METRIC,
  writeConnectionSettings,
  writeNetworkSettings,
} from '../wiring.ts';
import { FlowEnder } from './flow-ender.ts';
import { addressesOf, formatAlias, type LocalEndpoint } from './local-endpoint.ts';
import { forwardingEntryOf, nodeHop, nodeMac, nodeMessages, VXLAN_INDEX } from './node-entries.ts';
import {
  familiesOf,
  familyOfSubnet,
  type LayoutSubnet,
  type OverlayLayout,
  subnetWith,
} from './overlay-layout.ts';
import { resolverRuleset } from './overlay-rulesets.ts';
import { Uplink } from './uplink.ts';

export type EndpointLink = Pick<Link, 'index' | 'name'>;

export const VXLAN_LINK = 'vx0';
export const ENDPOINT_LINK_PATTERN = /^v\d+$/;
const FIRST_ENDPOINT_INDEX = 1000;
const ESRCH = 3;
const ENOENT = 2;
const ENODEV = 19;
const EEXIST = 17;
const EBUSY = 16;

export class OverlayWiring implements Disposable {
  readonly routes: NetlinkSocket;
  readonly tables: NetlinkSocket;
  readonly connections: ConnectionForgetter;
  readonly flows: FlowEnder;
  readonly #hostRoutes: NetlinkSocket;
  #layout: OverlayLayout;
  /** undefined for internal networks. */
  readonly uplink: Uplink | undefined;
  #nextIndex = FIRST_ENDPOINT_INDEX;

  /** Makes the namespace when it is not there. `onNotForgotten` hears why connections could not be forgotten. */
  constructor(layout: OverlayLayout, onNotForgotten: (error: unknown) => void) {
    this.#layout = layout;
    if (!isPinnedNamespace(layout.namespacePath)) {
      removeNamespace(layout.namespacePath);
      createNamespace(layout.namespacePath, () => undefined);
    }
    this.#hostRoutes = new NetlinkSocket(netlinkProtocols.route);
    [this.routes, this.tables, this.connections, this.flows] = withinNamespace(layout.namespacePath, () => [
      new NetlinkSocket(netlinkProtocols.route),
      new NetlinkSocket(netlinkProtocols.netfilter),
      new ConnectionForgetter(onNotForgotten),
      new FlowEnder(),
    ]);
    const { uplinkName: name } = layout;
    const { routes } = this;
    if (name !== undefined) this.uplink = new Uplink({ name, layout, hostRoutes: this.#hostRoutes, routes });
    for (const { index } of this.endpointLinks()) this.#nextIndex = Math.max(this.#nextIndex, index + 1);
  }

  /**
   * Settings, VXLAN, way out and routes; repeating it repairs what is missing. False while the kernel has another VXLAN
   * of this number; a busy port is EADDRINUSE.
   */
  configure(): boolean {
    const { namespacePath } = this.#layout;
    const families = familiesOf(this.#layout);
    withinNamespace(namespacePath, () => {
      writeNetworkSettings();
      if (families.includes('ipv6'))
        for (const [name, value] of ipv6Settings) writeNetworkSetting(name, value);
    });
    if (!this.#ensureVxlan()) return false;
    withinNamespace(namespacePath, () => writeNetworkSetting(`ipv4/conf/${VXLAN_LINK}/rp_filter`, 0));
    this.routes.execute([
      setLinkUp(LOOPBACK_INDEX, true),
      ...this.#layout.subnets.flatMap(subnetMessages),
      disableLinkLocalAddress(VXLAN_INDEX),
      // EADDRINUSE when a process of the host has the port.
      setLinkUp(VXLAN_INDEX, true),
    ]);
    this.uplink?.configure();
    return true;
  }

  /** Takes over other subnets, which hold those that there are, for the containers with these endpoints as well. */
  widen(layout: OverlayLayout, endpoints: readonly LocalEndpoint[]): void {
    const replaced = this.#layout.subnets.filter(
      (subnet) => !layout.subnets.some((other) => isSamePrefix(subnet, other)),
    );
    this.#layout = layout;
    this.routes.execute(layout.subnets.flatMap(subnetMessages));
    // What a container is told of late goes nowhere meanwhile: its own network's end knows already.
    for (const endpoint of endpoints) this.routeSubnets(endpoint, replaced);
    for (const subnet of replaced) this.#unrouteSubnet(this.routes, subnet);
  }

  /** In the namespace of a container that is attached: routes to all subnets, and no more to those that were replaced. */
  routeSubnets(endpoint: LocalEndpoint, replaced: readonly LayoutSubnet[] = []): void {
    using routes = withinNamespace(endpoint.namespacePath, () => new NetlinkSocket(netlinkProtocols.route));
    const address = bytesOf(endpoint.address);
    const own = routes
      .dump(listAddresses('ipv4'))
      .map(({ body }) => decodeAddress(body))
      .find((each) => each.address.equals(address));
    // Its program may have taken it away.
    if (own === undefined) return;
    routes.execute(this.#subnetRoutes(endpoint, own.linkIndex));
    for (const subnet of replaced) this.#unrouteSubnet(routes, subnet);
  }

  /** To be called when the network's table is loaded: only then does the kernel surely track connections. */
  configureConnectionTracking(): void {
    withinNamespace(this.#layout.namespacePath, writeConnectionSettings);
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
      if (endpoint.ipv6Address !== undefined) writeNetworkSetting(...ipv6IsOn);
      return [new NetlinkSocket(netlinkProtocols.route), new NetlinkSocket(netlinkProtocols.netfilter)];
    });
    try {
      const number = freeLinkNumber(linksOf(containerRoutes));
      const index = this.#createEndpointLink(endpoint, number, namespaceFd);
      try {
        containerRoutes.execute(this.#containerMessages(endpoint, number));
        if (this.#layout.uplinkName !== undefined) this.#routeAnswers(containerRoutes, endpoint, number);
        this.#writeResolver(containerTables, endpoint, number === 0);
        withinNamespace(endpoint.namespacePath, writeConnectionSettings);
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
  unwire(link: EndpointLink, endpoint: LocalEndpoint): void {
    ignoringErrno(ENODEV, () =>
      this.routes.execute([setLinkAlias(link.index, ''), setLinkUp(link.index, false)]),
    );
    for (const address of addressesOf(endpoint)) this.unroute(address);
  }

  unroute(address: string): void {
    const { hostPrefixLength } = ipFamilies[familyOf(address)];
    ignoringErrno(ESRCH, () => this.routes.execute([deleteRoute(bytesOf(address), hostPrefixLength)]));
  }

  addRemotes(routes: readonly (readonly [address: string, nodeAddress: string])[]): void {
    this.routes.execute(
      routes.map(([address, nodeAddress]) => {
        const family = familyOf(address);
        return addRoute({
          destination: bytesOf(address),
          prefixLength: ipFamilies[family].hostPrefixLength,
          linkIndex: VXLAN_INDEX,
          gateway: nodeHop(bytesOf(nodeAddress), family),
          onlink: true,
        });
      }),
    );
  }

  addNodes(addresses: readonly string[]): void {
    const families = familiesOf(this.#layout);
    this.routes.execute(addresses.flatMap((address) => nodeMessages(address, families)));
  }

  removeNodes(addresses: readonly string[]): void {
    for (const address of addresses) {
      const entry = forwardingEntryOf(address);
      for (const family of familiesOf(this.#layout)) {
        const hop = nodeHop(entry.destination, family);
        ignoringErrno(ENOENT, () => this.routes.execute([deleteNeighbour(VXLAN_INDEX, hop)]));
      }
      ignoringErrno(ENOENT, () => this.routes.execute([deleteForwardingEntry(entry)]));
    }
  }

  [Symbol.dispose](): void {
    const sockets = [this.routes, this.tables, this.connections, this.flows, this.#hostRoutes];
    for (const each of sockets) each[Symbol.dispose]();
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

  /** The index of the network's end. Numbers go up: a link that is gone keeps its own until the kernel has freed it. */
  #createEndpointLink(endpoint: LocalEndpoint, number: number, namespaceFd: number): number {
    const macAddress = containerMac(bytesOf(endpoint.address));
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
  #writeResolver(containerTables: NetlinkSocket, endpoint: LocalEndpoint, isFirst: boolean): void {
    const gateway = this.#gatewayOf(endpoint.address);
    try {
      containerTables.executeBatch(resolverRuleset(gateway, 'create'));
    } catch (error) {
      if (!(error instanceof SystemCallError) || error.errno !== EEXIST) throw error;
      if (isFirst) containerTables.executeBatch(resolverRuleset(gateway, 'replace'));
    }
  }

  /** Of the container's subnet of that family. */
  #gatewayOf(address: string): Buffer {
    const subnet = subnetWith(this.#layout.subnets, address);
    assert(subnet !== undefined, `${address} is in no subnet of its network`);
    return bytesOf(subnet.gateway);
  }

  #containerMessages(endpoint: LocalEndpoint, number: number): NetlinkMessage[] {
    const linkIndex = FIRST_CONTAINER_INDEX + number;
    const { uplinkName } = this.#layout;
    const leadsOut = endpoint.isDefaultRoute && uplinkName !== undefined;
    return [
      setLinkUp(LOOPBACK_INDEX, true),
      disableLinkLocalAddress(linkIndex),
      ...addressesOf(endpoint).map((address) => {
        const prefixLength = subnetWith(this.#layout.subnets, address)?.prefix.length ?? 0;
        return addAddress({ linkIndex, address: bytesOf(address), prefixLength, withoutPrefixRoute: true });
      }),
      routeLoopbackAddresses(linkIndex),
      setLinkUp(linkIndex, true),
      ...addressesOf(endpoint).map((address) =>
        addPermanentNeighbour({ linkIndex, address: this.#gatewayOf(address), macAddress: GATEWAY_MAC }),
      ),
      ...this.#subnetRoutes(endpoint, linkIndex),
      ...(leadsOut ? addressesOf(endpoint) : []).map((address) => {
        const gateway = this.#gatewayOf(address);
        const destination = Buffer.alloc(gateway.length);
        return addRoute({ destination, prefixLength: 0, linkIndex, gateway, onlink: true });
      }),
    ];
  }

  /** In a container: all subnets of the families that it has, by its own gateway of each family. */
  #subnetRoutes(endpoint: LocalEndpoint, linkIndex: number): NetlinkMessage[] {
    return addressesOf(endpoint).flatMap((address) => {
      const over = { linkIndex, gateway: this.#gatewayOf(address), onlink: true };
      return this.#layout.subnets
        .filter((subnet) => familyOfSubnet(subnet) === familyOf(address))
        .map((subnet) => addRoute({ ...routeOf(subnet), ...over }));
    });
  }

  #unrouteSubnet(routes: NetlinkSocket, subnet: LayoutSubnet): void {
    const { destination, prefixLength } = routeOf(subnet);
    ignoringErrno(ESRCH, () => routes.execute([deleteRoute(destination, prefixLength)]));
  }

  /** In a container: who asked by this link is answered by it. */
  #routeAnswers(containerRoutes: NetlinkSocket, endpoint: LocalEndpoint, number: number): void {
    for (const address of addressesOf(endpoint)) {
      routeAnswers(containerRoutes, number, {
        address: bytesOf(address),
        gateway: this.#gatewayOf(address),
        inMainTable: endpoint.isDefaultRoute,
        udpPorts: this.#layout.isIngress ? 'all' : [],
      });
    }
  }

  /** The alias comes last: it says that the endpoint is complete. */
  #routeTo(endpoint: LocalEndpoint, index: number): void {
    this.routes.execute([...endpointMessages(index, endpoint), setLinkAlias(index, formatAlias(endpoint))]);
  }
}

/** What the network's side of an endpoint has to have; repeating it repairs. */
export function endpointMessages(index: number, endpoint: LocalEndpoint): NetlinkMessage[] {
  const macAddress = containerMac(bytesOf(endpoint.address));
  return [
    disableLinkLocalAddress(index),
    setLinkUp(index, true),
    ...addressesOf(endpoint).flatMap((text) => {
      const address = bytesOf(text);
      const { hostPrefixLength } = ipFamilies[familyOf(text)];
      return [
        addPermanentNeighbour({ linkIndex: index, address, macAddress }),
        addRoute({ destination: address, prefixLength: hostPrefixLength, linkIndex: index }),
      ];
    }),
  ];
}

/** The VXLAN link of the namespace of this socket. */
export function vxlanOf(routes: NetlinkSocket): Vxlan | undefined {
  const reply = routes.dump(listLinks).find(({ body }) => decodeLink(body).name === VXLAN_LINK);
  return reply === undefined ? undefined : decodeVxlan(reply.body);
}

/** In the network's namespace. */
function subnetMessages(subnet: LayoutSubnet): NetlinkMessage[] {
  const gateway = bytesOf(subnet.gateway);
  const { hostPrefixLength } = ipFamilies[familyOfSubnet(subnet)];
  return [
    addAddress({
      linkIndex: LOOPBACK_INDEX,
      address: gateway,
      prefixLength: hostPrefixLength,
      withoutPrefixRoute: true,
    }),
    // Without it, packets to addresses that no container has would leave through the default route.
    addRoute({ type: 'unreachable', ...routeOf(subnet), metric: UNREACHABLE_METRIC }),
  ];
}

function routeOf({ prefix }: LayoutSubnet): { destination: Buffer; prefixLength: number } {
  return { destination: valueBytes(prefix.base, familyNamed(prefix.family)), prefixLength: prefix.length };
}

function isSamePrefix(one: LayoutSubnet, other: LayoutSubnet): boolean {
  return (
    one.prefix.family === other.prefix.family &&
    one.prefix.base === other.prefix.base &&
    one.prefix.length === other.prefix.length
  );
}

function linkNameOf(index: number): string {
  return `v${index}`;
}
