// What this node's own network looks like: read, never changed.

import type { IpFamily } from '../linux/ip-family.ts';
import type { NetlinkSocket } from '../linux/netlink-socket.ts';
import {
  decodeAddress,
  decodeRoute,
  listAddresses,
  listRoutes,
  MAIN_TABLE,
  type Route,
} from '../linux/rtnetlink.ts';
import { ipv4Number, type Prefix, parseIpv4 } from './ipv4.ts';
import { isIpv6InKernel } from './ipv6-link.ts';
import { reachableNameServers, readResolvConfSources } from './resolv-conf.ts';
import { LOOPBACK_INDEX, linksOf, UPLINK_PREFIX } from './wiring.ts';

const ETHERNET_MTU = 1500;
const HOST_PREFIX_LENGTH = 32;

/** Everything that this node reaches by a route of its own, and its name servers. */
export function usedPrefixes(routes: NetlinkSocket): Prefix[] {
  const routed = mainRoutes(routes)
    .filter((route) => route.prefixLength > 0)
    .map((route) => ({ base: ipv4Number(route.destination), length: route.prefixLength }));
  const addresses = routes
    .dump(listAddresses('ipv4'))
    .map((reply) => ({ base: ipv4Number(decodeAddress(reply.body).address), length: HOST_PREFIX_LENGTH }));
  const nameServers = readResolvConfSources()
    .flatMap(reachableNameServers)
    .flatMap((server) => {
      const base = parseIpv4(server);
      return base === undefined ? [] : [{ base, length: HOST_PREFIX_LENGTH }];
    });
  return [...routed, ...addresses, ...nameServers];
}

/** The largest packet that leaves this node whole. */
export function outgoingMtu(routes: NetlinkSocket): number {
  const defaultRoute = mainRoutes(routes).find((route) => route.prefixLength === 0);
  const link = linksOf(routes).find(({ index }) => index === defaultRoute?.linkIndex);
  return link?.mtu ?? ETHERNET_MTU;
}

function mainRoutes(routes: NetlinkSocket): Route[] {
  return routes
    .dump(listRoutes('ipv4'))
    .map((reply) => decodeRoute(reply.body))
    .filter((route) => route.table === MAIN_TABLE);
}

/** Whether packets of IPv6 have anywhere to go from this host: not counting what networks of ours have. */
export function hasIpv6(hostRoutes: NetlinkSocket): boolean {
  // Without, the kernel would tell addresses of other families.
  if (!isIpv6InKernel()) return false;
  const addresses = hostRoutes
    .dump(listAddresses('ipv6'))
    .map(({ body }) => decodeAddress(body))
    .filter(({ isGlobal }) => isGlobal);
  if (addresses.length > 0) {
    const ours = linksOf(hostRoutes).flatMap(({ name, index }) =>
      index === LOOPBACK_INDEX || name.startsWith(UPLINK_PREFIX) ? [index] : [],
    );
    if (addresses.some(({ linkIndex }) => !ours.includes(linkIndex))) return true;
  }
  return hasDefaultRoute(hostRoutes, 'ipv6');
}

/** Whether the namespace of this socket has a route to everywhere. */
function hasDefaultRoute(routes: NetlinkSocket, family: IpFamily): boolean {
  return routes
    .dump(listRoutes(family))
    .map(({ body }) => decodeRoute(body))
    .some(
      ({ table, prefixLength, isUnreachable }) =>
        table === MAIN_TABLE && prefixLength === 0 && !isUnreachable,
    );
}
