// The firewall tables of the node-local network as netlink messages, for each family. Each table is replaced whole, in one
// transaction, when the network is opened; afterwards only elements of its map of published ports change.
//
// A published port is translated twice: in the host's table to the host-side address of the network, port unchanged,
// and in the network's own table to the container. Priorities are just before Docker's.

import type { IpFamily } from '../linux/ip-family.ts';
import { SystemCallError } from '../linux/libc.ts';
import type { NetlinkMessage } from '../linux/netlink.ts';
import type { NetlinkSocket } from '../linux/netlink-socket.ts';
import {
  destinationIsLocal,
  drop,
  interfaceIs,
  isDestinationTranslated,
  listRules,
  loopbackIs,
  masquerade,
} from '../linux/nftables.ts';
import {
  addElements,
  addSet,
  decodeElements,
  destinationIsNot,
  listElements,
  type SetElement,
  translateByPort,
} from '../linux/nftables-maps.ts';
import {
  type Chain,
  chainMessages,
  hostIsolation,
  IPV6_LOOPBACK,
  networkIsolation,
  ownAddressesOnly,
  replaceTable,
  ruleCount,
} from './chains.ts';

export const PUBLISHED_PORTS_MAP = 'published';
export const NETWORK_TABLE = 'tsswarm';
/** The network's end of the link to the host. */
export const UPLINK_IN_NETWORK = 'up0';
const MAP_ID = 1;
const ENOENT = 2;

export function hostTableName(engineId: string): string {
  return `tsswarm_${engineId}`;
}

/** The host's table of a family; `uplink` is the host's end of the link to the network. */
export function hostRuleset(
  table: string,
  uplink: string,
  family: IpFamily,
  published: readonly SetElement[],
): NetlinkMessage[] {
  return portMapTable(table, family, published, hostChains(uplink, family));
}

/** It has its rules, and so many published ports. */
export function isHostTableRight(
  tables: NetlinkSocket,
  table: string,
  uplink: string,
  family: IpFamily,
  publishedCount: number,
): boolean {
  try {
    const published = tables.dump(listElements(table, PUBLISHED_PORTS_MAP, family)).flatMap(decodeElements);
    const rules = tables.dump(listRules(table, family));
    return rules.length === ruleCount(hostChains(uplink, family)) && published.length === publishedCount;
  } catch (error) {
    if (error instanceof SystemCallError && error.errno === ENOENT) return false;
    throw error;
  }
}

function hostChains(uplink: string, family: IpFamily): Chain[] {
  const publish = [...destinationIsLocal(), ...translateByPort(PUBLISHED_PORTS_MAP, family)];
  const toUplink = interfaceIs('outputName', uplink);
  const fromUplink = interfaceIs('inputName', uplink);
  // A container that uses a port published on its own node: the answer must come back through here.
  const hairpin = [...fromUplink, ...toUplink, ...masquerade()];
  const wayOut = [
    ...fromUplink,
    ...interfaceIs('outputName', uplink, false),
    ...isDestinationTranslated(false),
    ...masquerade(),
  ];
  const guard: Chain = {
    // route_localnet, which lets 127.0.0.1 be translated, would also let a container reach the host's loopback.
    name: 'guard',
    base: { type: 'filter', hook: 'prerouting', priority: -300 },
    rules: [[...fromUplink, ...loopbackIs('destination'), ...drop()]],
  };
  const localUsers = [...toUplink, ...loopbackIs('source'), ...masquerade()];
  const isIpv4 = family === 'ipv4';
  return [
    ...(isIpv4 ? [guard] : []),
    {
      name: 'publish',
      base: { type: 'nat', hook: 'prerouting', priority: -105 },
      rules: [publish],
    },
    {
      name: 'publish_local',
      base: { type: 'nat', hook: 'output', priority: -105 },
      rules: [isIpv4 ? publish : [...destinationIsNot(IPV6_LOOPBACK), ...publish]],
    },
    hostIsolation(toUplink, fromUplink),
    {
      name: 'masquerade',
      base: { type: 'nat', hook: 'postrouting', priority: 95 },
      rules: [...(isIpv4 ? [localUsers] : []), hairpin, wayOut],
    },
  ];
}

/** The table of the network's own namespace, of a family. */
export function networkRuleset(family: IpFamily, published: readonly SetElement[]): NetlinkMessage[] {
  const fromUplink = interfaceIs('inputName', UPLINK_IN_NETWORK);
  return portMapTable(NETWORK_TABLE, family, published, [
    ...(family === 'ipv6' ? [ownAddressesOnly(['lo', UPLINK_IN_NETWORK])] : []),
    {
      name: 'publish',
      base: { type: 'nat', hook: 'prerouting', priority: -100 },
      rules: [[...fromUplink, ...translateByPort(PUBLISHED_PORTS_MAP, family)]],
    },
    networkIsolation(fromUplink),
    {
      name: 'masquerade',
      base: { type: 'nat', hook: 'postrouting', priority: 100 },
      rules: [
        [...interfaceIs('outputName', UPLINK_IN_NETWORK), ...isDestinationTranslated(false), ...masquerade()],
      ],
    },
  ]);
}

function portMapTable(
  table: string,
  family: IpFamily,
  published: readonly SetElement[],
  chains: readonly Chain[],
): NetlinkMessage[] {
  return [
    ...replaceTable(table, family),
    addSet(table, { name: PUBLISHED_PORTS_MAP, key: 'protocolPort', value: 'addressPort' }, MAP_ID, family),
    ...addElements(table, PUBLISHED_PORTS_MAP, published, family),
    ...chainMessages(table, chains, family),
  ];
}
