// The self-audit: what a network should have in the kernel against what is there.

import { isDeepStrictEqual } from 'node:util';
import { withinNamespace } from '../../linux/namespace.ts';
import type { NetlinkSocket } from '../../linux/netlink-socket.ts';
import {
  decodeNeighbour,
  decodeRoute,
  type Link,
  listIpv4Neighbours,
  listIpv4Routes,
  MAIN_TABLE,
} from '../../linux/rtnetlink.ts';
import { readNetworkSetting } from '../../linux/sysctl.ts';
import { decodeForwardingEntry, listForwardingEntries } from '../../linux/vxlan.ts';
import { formatIpv4, ipv4Bytes } from '../ipv4.ts';
import { UPLINK_IN_NETWORK } from '../rulesets.ts';
import { containerMac } from '../wiring.ts';
import type { Balance } from './balancing.ts';
import type { Drift } from './overlay.ts';
import { OVERLAY_TABLE } from './overlay-rulesets.ts';
import {
  ENDPOINT_LINK_PATTERN,
  type LocalEndpoint,
  nodeMac,
  type OverlayLayout,
  type OverlayWiring,
  parseAlias,
  RETURN_HOP,
  VXLAN_INDEX,
  VXLAN_LINK,
  vxlanOf,
} from './overlay-wiring.ts';
import { readTable } from './service-table.ts';

export interface Forwarding {
  /** Address of a container elsewhere → address of its node. */
  readonly remotes: ReadonlyMap<string, string>;
  /** Whether a node's neighbour and forwarding entry are as they should be. */
  readonly nodes: ReadonlyMap<string, boolean>;
  /** Address of a container here → index of the link that leads to it. */
  readonly locals: ReadonlyMap<string, number>;
  /** "INDEX ADDRESS MAC" */
  readonly neighbours: ReadonlySet<string>;
  readonly hasDefaultRoute: boolean;
  readonly hasUnreachableRoute: boolean;
}

export interface DesiredNetwork {
  readonly layout: OverlayLayout;
  readonly endpoints: readonly { readonly endpoint: LocalEndpoint; readonly index: number }[];
  readonly remotes: ReadonlyMap<string, string>;
  readonly nodes: ReadonlySet<string>;
  readonly services: ReadonlyMap<string, Balance>;
  readonly gone: ReadonlySet<string>;
}

const HOST_PREFIX_LENGTH = 32;
/** Nobody should have switched these: see writeNetworkSettings. */
const settings: readonly (readonly [name: string, value: string])[] = [
  ['ipv4/ip_forward', '1'],
  ['ipv4/conf/all/rp_filter', '0'],
  [`ipv4/conf/${VXLAN_LINK}/rp_filter`, '0'],
];

/** What the kernel forwards in a network's namespace. */
export function readForwarding(socket: NetlinkSocket): Forwarding {
  const routes = socket
    .dump(listIpv4Routes)
    .map(({ body }) => decodeRoute(body))
    .filter(({ table }) => table === MAIN_TABLE);
  const neighbours = socket
    .dump(listIpv4Neighbours)
    .map(({ body }) => decodeNeighbour(body))
    .filter(({ isPermanent }) => isPermanent);
  const entries = new Map(
    socket
      .dump(listForwardingEntries)
      .map(({ body }) => decodeForwardingEntry(body))
      .filter(({ linkIndex }) => linkIndex === VXLAN_INDEX)
      .map(({ macAddress, destination }) => [destination.join('.'), macAddress]),
  );
  const nodes = new Map([...entries.keys()].map((address) => [address, false]));
  for (const { linkIndex, address, macAddress } of neighbours) {
    if (linkIndex !== VXLAN_INDEX || address.equals(RETURN_HOP)) continue;
    const expected = nodeMac(address);
    const isRight = macAddress.equals(expected) && entries.get(address.join('.'))?.equals(expected) === true;
    nodes.set(address.join('.'), isRight);
  }
  const hostRoutes = routes.filter(({ prefixLength }) => prefixLength === HOST_PREFIX_LENGTH);
  return {
    remotes: new Map(
      hostRoutes.flatMap(({ destination, gateway, linkIndex }) =>
        gateway === undefined || linkIndex !== VXLAN_INDEX
          ? []
          : [[destination.join('.'), gateway.join('.')] as const],
      ),
    ),
    nodes,
    locals: new Map(
      hostRoutes.flatMap(({ destination, gateway, linkIndex }) =>
        gateway === undefined && linkIndex !== undefined ? [[destination.join('.'), linkIndex] as const] : [],
      ),
    ),
    neighbours: new Set(
      neighbours.map(({ linkIndex, address, macAddress }) => neighbourKey(linkIndex, address, macAddress)),
    ),
    hasDefaultRoute: routes.some(({ prefixLength }) => prefixLength === 0),
    hasUnreachableRoute: routes.some(({ isUnreachable }) => isUnreachable),
  };
}

/** Everything that differs; nothing is changed. */
export function findDrift(desired: DesiredNetwork, wiring: OverlayWiring): Drift[] {
  const forwarding = readForwarding(wiring.routes);
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
    else if (!uplink.isUp || !forwarding.hasDefaultRoute) {
      drift.push({ what: 'link', name: UPLINK_IN_NETWORK, problem: 'different' });
    }
  }
  if (!forwarding.hasUnreachableRoute) drift.push({ what: 'route', name: 'unreachable', problem: 'missing' });
  const isSet =
    vxlan === undefined ||
    withinNamespace(layout.namespacePath, () =>
      settings.every(([name, value]) => readNetworkSetting(name) === value),
    );
  const routesLoopback =
    !layout.isIngress ||
    !links.has(UPLINK_IN_NETWORK) ||
    readNetworkSetting(`ipv4/conf/${layout.uplinkName}/route_localnet`) === '1';
  if (!isSet || !routesLoopback) drift.push({ what: 'link', name: 'settings', problem: 'different' });
  return drift;
}

function endpointDrift(
  { endpoints }: DesiredNetwork,
  links: readonly Link[],
  forwarding: Forwarding,
): Drift[] {
  const byIndex = new Map(links.map((link) => [link.index, link]));
  const drift = endpoints.flatMap(({ endpoint, index }): Drift[] => {
    const address = ipv4Bytes(endpoint.address);
    const name = formatIpv4(endpoint.address);
    const link = byIndex.get(index);
    if (link === undefined || parseAlias(link.alias)?.id !== endpoint.id) {
      return [{ what: 'endpoint', name, problem: 'missing' }];
    }
    const isRight =
      link.isUp &&
      forwarding.locals.get(name) === index &&
      forwarding.neighbours.has(neighbourKey(index, address, containerMac(address)));
    return isRight ? [] : [{ what: 'endpoint', name, problem: 'different' }];
  });
  const expected = new Set(endpoints.map(({ index }) => index));
  for (const { index, name, isUp } of links) {
    // One that is down is a detached container's, which the kernel has not freed yet.
    if (ENDPOINT_LINK_PATTERN.test(name) && isUp && !expected.has(index)) {
      drift.push({ what: 'link', name, problem: 'unexpected' });
    }
  }
  const addresses = new Set(endpoints.map(({ endpoint }) => formatIpv4(endpoint.address)));
  for (const name of forwarding.locals.keys()) {
    if (!addresses.has(name)) drift.push({ what: 'route', name, problem: 'unexpected' });
  }
  return drift;
}

function tableDrift(desired: DesiredNetwork, tables: NetlinkSocket): Drift[] {
  const table = readTable(tables);
  if (table === undefined) return [{ what: 'table', name: OVERLAY_TABLE, problem: 'different' }];
  const hairpin = desired.endpoints.map(({ endpoint }) => formatIpv4(endpoint.address));
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
  return `${linkIndex} ${address.join('.')} ${macAddress.toString('hex')}`;
}
