// The self-audit: what a network should have in the kernel against what is there.

import { isDeepStrictEqual } from 'node:util';
import { formatPrefix } from '../../../core/ip-address.ts';
import { familyOfBytes, type IpFamily, ipFamilies } from '../../linux/ip-family.ts';
import { withinNamespace } from '../../linux/namespace.ts';
import type { NetlinkSocket } from '../../linux/netlink-socket.ts';
import {
  decodeAddress,
  decodeNeighbour,
  decodeRoute,
  type Link,
  listAddresses,
  listNeighbours,
  listRoutes,
  MAIN_TABLE,
  type Neighbour,
} from '../../linux/rtnetlink.ts';
import { readNetworkSetting } from '../../linux/sysctl.ts';
import { decodeForwardingEntry, listForwardingEntries } from '../../linux/vxlan.ts';
import { addressText, bytesOf } from '../ip-bytes.ts';
import { ipv4Bytes } from '../ipv4.ts';
import { ipv6Settings } from '../ipv6-link.ts';
import { UPLINK_IN_NETWORK } from '../rulesets.ts';
import { containerMac, LOOPBACK_INDEX } from '../wiring.ts';
import type { Balance } from './balancing.ts';
import { addressesOf, type LocalEndpoint, parseAlias } from './local-endpoint.ts';
import { nodeHop, nodeMac, nodeOfHop, RETURN_HOP, VXLAN_INDEX } from './node-entries.ts';
import type { Drift } from './overlay.ts';
import { familiesOf, type OverlayLayout } from './overlay-layout.ts';
import { OVERLAY_TABLE, VXLAN_LINK } from './overlay-rulesets.ts';
import { ENDPOINT_LINK_PATTERN, type OverlayWiring, vxlanOf } from './overlay-wiring.ts';
import { readTables } from './service-table.ts';

export interface Forwarding {
  /** Address of a container elsewhere → address of its node. */
  readonly remotes: ReadonlyMap<string, string>;
  /** Whether a node's neighbour and forwarding entry are as they should be. */
  readonly nodes: ReadonlyMap<string, boolean>;
  /** Address of a container here → index of the link that leads to it. */
  readonly locals: ReadonlyMap<string, number>;
  /** "INDEX ADDRESS MAC" */
  readonly neighbours: ReadonlySet<string>;
  /** Families that have a default route. */
  readonly leadOut: ReadonlySet<IpFamily>;
  /** "10.0.1.0/24" of subnets whose unknown addresses are refused. */
  readonly refused: ReadonlySet<string>;
}

export interface DesiredNetwork {
  readonly layout: OverlayLayout;
  readonly endpoints: readonly { readonly endpoint: LocalEndpoint; readonly index: number }[];
  readonly remotes: ReadonlyMap<string, string>;
  readonly nodes: ReadonlySet<string>;
  readonly services: ReadonlyMap<string, Balance>;
  readonly gone: ReadonlySet<string>;
}

/** Nobody should have switched these: see writeNetworkSettings. */
const settings: readonly (readonly [name: string, value: string])[] = [
  ['ipv4/ip_forward', '1'],
  ['ipv4/conf/all/rp_filter', '0'],
  [`ipv4/conf/${VXLAN_LINK}/rp_filter`, '0'],
];

function settingsOf(layout: OverlayLayout): readonly (readonly [name: string, value: string])[] {
  return familiesOf(layout).includes('ipv6') ? [...settings, ...ipv6Settings] : settings;
}

/** What the kernel forwards in a network's namespace. */
export function readForwarding(socket: NetlinkSocket, families: readonly IpFamily[]): Forwarding {
  const routes = families
    .flatMap((family) => socket.dump(listRoutes(family)))
    .map(({ body }) => decodeRoute(body))
    .filter(({ table }) => table === MAIN_TABLE);
  const neighbours = families
    .flatMap((family) => socket.dump(listNeighbours(family)))
    .map(({ body }) => decodeNeighbour(body))
    .filter(({ isPermanent }) => isPermanent);
  const hostRoutes = routes.filter(
    ({ destination, prefixLength }) =>
      prefixLength === ipFamilies[familyOfBytes(destination)].hostPrefixLength,
  );
  return {
    remotes: new Map(
      hostRoutes.flatMap(({ destination, gateway, linkIndex }) =>
        gateway === undefined || linkIndex !== VXLAN_INDEX
          ? []
          : [[addressText(destination), addressText(nodeOfHop(gateway))] as const],
      ),
    ),
    nodes: nodesIn(socket, neighbours, families),
    locals: new Map(
      hostRoutes.flatMap(({ destination, gateway, linkIndex }) =>
        gateway === undefined && linkIndex !== undefined
          ? [[addressText(destination), linkIndex] as const]
          : [],
      ),
    ),
    neighbours: new Set(
      neighbours.map(({ linkIndex, address, macAddress }) => neighbourKey(linkIndex, address, macAddress)),
    ),
    leadOut: new Set(
      routes
        .filter(({ prefixLength, isUnreachable }) => prefixLength === 0 && !isUnreachable)
        .map(({ destination }) => familyOfBytes(destination)),
    ),
    refused: new Set(
      routes
        .filter(({ isUnreachable }) => isUnreachable)
        .map(({ destination, prefixLength }) => `${addressText(destination)}/${prefixLength}`),
    ),
  };
}

/** Each node that there is anything of, and whether its forwarding entry and all its neighbours are as they should be. */
function nodesIn(
  socket: NetlinkSocket,
  neighbours: readonly Neighbour[],
  families: readonly IpFamily[],
): Map<string, boolean> {
  const entries = new Map(
    socket
      .dump(listForwardingEntries)
      .map(({ body }) => decodeForwardingEntry(body))
      .filter(({ linkIndex }) => linkIndex === VXLAN_INDEX)
      .map(({ macAddress, destination }) => [addressText(destination), macAddress]),
  );
  const hops = new Map(
    neighbours
      .filter(({ linkIndex, address }) => linkIndex === VXLAN_INDEX && !nodeOfHop(address).equals(RETURN_HOP))
      .map(({ address, macAddress }) => [addressText(address), macAddress]),
  );
  const names = new Set([
    ...entries.keys(),
    ...[...hops.keys()].map((hop) => addressText(nodeOfHop(bytesOf(hop)))),
  ]);
  return new Map(
    [...names].map((name) => {
      const node = bytesOf(name);
      const expected = nodeMac(node);
      const found = [
        entries.get(name),
        ...families.map((family) => hops.get(addressText(nodeHop(node, family)))),
      ];
      return [name, found.every((macAddress) => macAddress?.equals(expected) === true)];
    }),
  );
}

/** Everything that differs; nothing is changed. */
export function findDrift(desired: DesiredNetwork, wiring: OverlayWiring): Drift[] {
  const forwarding = readForwarding(wiring.routes, familiesOf(desired.layout));
  return [
    ...linkDrift(desired, wiring, forwarding),
    ...endpointDrift(desired, wiring.links(), forwarding),
    ...compareMaps('route', desired.remotes, forwarding.remotes),
    ...compareMaps('node', new Map([...desired.nodes].map((address) => [address, true])), forwarding.nodes),
    ...tableDrift(desired, wiring.tables),
  ];
}

export function compareMaps<T>(
  what: Drift['what'],
  desired: ReadonlyMap<string, T>,
  found: ReadonlyMap<string, T>,
): Drift[] {
  const drift: Drift[] = [];
  for (const [name, value] of desired) {
    const other = found.get(name);
    if (other === undefined) drift.push({ what, name, problem: 'missing' });
    else if (!isDeepStrictEqual(other, value)) drift.push({ what, name, problem: 'different' });
  }
  for (const name of found.keys()) {
    if (!desired.has(name)) drift.push({ what, name, problem: 'unexpected' });
  }
  return drift;
}

function linkDrift({ layout }: DesiredNetwork, wiring: OverlayWiring, forwarding: Forwarding): Drift[] {
  const drift: Drift[] = [];
  const vxlan = vxlanOf(wiring.routes);
  const links = new Map(wiring.links().map((link) => [link.name, link]));
  if (vxlan === undefined) drift.push({ what: 'link', name: VXLAN_LINK, problem: 'missing' });
  else if (
    vxlan.id !== layout.vni ||
    vxlan.port !== layout.dataPathPort ||
    !vxlan.localAddress.equals(ipv4Bytes(layout.dataPathAddress)) ||
    links.get(VXLAN_LINK)?.isUp !== true
  ) {
    drift.push({ what: 'link', name: VXLAN_LINK, problem: 'different' });
  }
  if (layout.uplinkName !== undefined) {
    const uplink = links.get(UPLINK_IN_NETWORK);
    if (uplink === undefined) drift.push({ what: 'link', name: UPLINK_IN_NETWORK, problem: 'missing' });
    else if (!uplink.isUp || !leadsOut(wiring, forwarding)) {
      drift.push({ what: 'link', name: UPLINK_IN_NETWORK, problem: 'different' });
    }
  }
  const gateways = new Set(gatewaysIn(wiring.routes, familiesOf(layout)));
  for (const { prefix, gateway } of layout.subnets) {
    const name = formatPrefix(prefix);
    if (!forwarding.refused.has(name)) drift.push({ what: 'route', name, problem: 'missing' });
    if (!gateways.has(gateway)) drift.push({ what: 'gateway', name: gateway, problem: 'missing' });
  }
  const isSet =
    vxlan === undefined ||
    withinNamespace(layout.namespacePath, () =>
      settingsOf(layout).every(([name, value]) => readNetworkSetting(name) === value),
    );
  const routesLoopback =
    !layout.isIngress ||
    !links.has(UPLINK_IN_NETWORK) ||
    readNetworkSetting(`ipv4/conf/${layout.uplinkName}/route_localnet`) === '1';
  if (!isSet || !routesLoopback) drift.push({ what: 'link', name: 'settings', problem: 'different' });
  return drift;
}

/** By IPv4 always, by IPv6 as long as the host has it. */
function leadsOut({ uplink }: OverlayWiring, { leadOut }: Forwarding): boolean {
  if (uplink === undefined) return true;
  const ipv6IsRight = leadOut.has('ipv6') === (uplink.address('ipv6') !== undefined);
  return leadOut.has('ipv4') && ipv6IsRight && !uplink.isOutdated;
}

/** The network's own addresses in its namespace. */
function gatewaysIn(routes: NetlinkSocket, families: readonly IpFamily[]): string[] {
  return families
    .flatMap((family) => routes.dump(listAddresses(family)))
    .map(({ body }) => decodeAddress(body))
    .filter(({ linkIndex }) => linkIndex === LOOPBACK_INDEX)
    .map(({ address }) => addressText(address));
}

function endpointDrift(
  { endpoints }: DesiredNetwork,
  links: readonly Link[],
  forwarding: Forwarding,
): Drift[] {
  const byIndex = new Map(links.map((link) => [link.index, link]));
  const drift = endpoints.flatMap(({ endpoint, index }): Drift[] => {
    const link = byIndex.get(index);
    if (link === undefined || parseAlias(link.alias)?.id !== endpoint.id) {
      return [{ what: 'endpoint', name: endpoint.address, problem: 'missing' }];
    }
    const macAddress = containerMac(bytesOf(endpoint.address));
    return addressesOf(endpoint)
      .filter((address) => {
        const hasNeighbour = forwarding.neighbours.has(neighbourKey(index, bytesOf(address), macAddress));
        return !link.isUp || forwarding.locals.get(address) !== index || !hasNeighbour;
      })
      .map((name) => ({ what: 'endpoint', name, problem: 'different' }) as const);
  });
  const expected = new Set(endpoints.map(({ index }) => index));
  for (const { index, name, isUp } of links) {
    // One that is down is a detached container's, which the kernel has not freed yet.
    if (ENDPOINT_LINK_PATTERN.test(name) && isUp && !expected.has(index)) {
      drift.push({ what: 'link', name, problem: 'unexpected' });
    }
  }
  const addresses = new Set(endpoints.flatMap(({ endpoint }) => addressesOf(endpoint)));
  for (const name of forwarding.locals.keys()) {
    if (!addresses.has(name)) drift.push({ what: 'route', name, problem: 'unexpected' });
  }
  return drift;
}

function tableDrift(desired: DesiredNetwork, tables: NetlinkSocket): Drift[] {
  const table = readTables(tables, familiesOf(desired.layout));
  if (table === undefined) return [{ what: 'table', name: OVERLAY_TABLE, problem: 'different' }];
  const hairpin = desired.endpoints.flatMap(({ endpoint }) => addressesOf(endpoint));
  return [
    ...compareMaps('service', desired.services, table.services),
    ...compareMaps('hairpin', members(hairpin), members(table.hairpin)),
    ...compareMaps('gone', members(desired.gone), members(table.gone)),
  ];
}

function members(names: Iterable<string>): Map<string, boolean> {
  return new Map([...names].map((name) => [name, true]));
}

function neighbourKey(linkIndex: number, address: Buffer, macAddress: Buffer): string {
  return `${linkIndex} ${addressText(address)} ${macAddress.toString('hex')}`;
}
