// The firewall tables of the node-local network as netlink messages. Each table is replaced whole, in one
// transaction, when the network is opened; afterwards only elements of its map of published ports change.
//
// A published port is translated twice: in the host's table to the host-side address of the network, port unchanged,
// and in the network's own table to the container. Priorities are just before Docker's.

import type { NetlinkMessage } from '../linux/netlink.ts';
import {
  addChain,
  addPortMap,
  addPortMapElements,
  addRule,
  addTable,
  type BaseChain,
  deleteTable,
  destinationIsLocal,
  drop,
  interfaceIs,
  isDestinationTranslated,
  isEstablishedOrRelated,
  isInvalid,
  loopbackIs,
  masquerade,
  type PortMapElement,
  type Rule,
  translateByPortMap,
} from '../linux/nftables.ts';

export const PUBLISHED_PORTS_MAP = 'published';
export const NETWORK_TABLE = 'tsswarm';
/** The network's end of the link to the host. */
export const UPLINK_IN_NETWORK = 'up0';
const MAP_ID = 1;

interface Chain {
  readonly name: string;
  readonly base: BaseChain;
  readonly rules: readonly Rule[];
}

export function hostTableName(engineId: string): string {
  return `tsswarm_${engineId}`;
}

/** The host's table; `uplink` is the host's end of the link to the network. */
export function hostRuleset(
  table: string,
  uplink: string,
  published: readonly PortMapElement[],
): NetlinkMessage[] {
  const publish = [...destinationIsLocal(), ...translateByPortMap(PUBLISHED_PORTS_MAP)];
  const toUplink = interfaceIs('outputName', uplink);
  const fromUplink = interfaceIs('inputName', uplink);
  return replaceTable(table, published, [
    {
      // route_localnet, which lets 127.0.0.1 be translated, would also let a container reach the host's loopback.
      name: 'guard',
      base: { type: 'filter', hook: 'prerouting', priority: -300 },
      rules: [[...fromUplink, ...loopbackIs('destination'), ...drop()]],
    },
    {
      name: 'publish',
      base: { type: 'nat', hook: 'prerouting', priority: -105 },
      rules: [publish],
    },
    {
      name: 'publish_local',
      base: { type: 'nat', hook: 'output', priority: -105 },
      rules: [publish],
    },
    {
      // Nothing but published ports and answers enters a network, from wherever.
      name: 'isolate',
      base: { type: 'filter', hook: 'forward', priority: -5 },
      rules: [
        [...toUplink, ...isEstablishedOrRelated(false), ...isDestinationTranslated(false), ...drop()],
        // It would leave with an address that nobody outside can answer.
        [...fromUplink, ...isInvalid(), ...drop()],
      ],
    },
    {
      name: 'masquerade',
      base: { type: 'nat', hook: 'postrouting', priority: 95 },
      rules: [
        [...toUplink, ...loopbackIs('source'), ...masquerade()],
        // A container that uses a port published on its own node: the answer must come back through here.
        [...fromUplink, ...toUplink, ...masquerade()],
        [
          ...fromUplink,
          ...interfaceIs('outputName', uplink, false),
          ...isDestinationTranslated(false),
          ...masquerade(),
        ],
      ],
    },
  ]);
}

/** The table of the network's own namespace. */
export function networkRuleset(published: readonly PortMapElement[]): NetlinkMessage[] {
  const fromUplink = interfaceIs('inputName', UPLINK_IN_NETWORK);
  return replaceTable(NETWORK_TABLE, published, [
    {
      name: 'publish',
      base: { type: 'nat', hook: 'prerouting', priority: -100 },
      rules: [[...fromUplink, ...translateByPortMap(PUBLISHED_PORTS_MAP)]],
    },
    {
      name: 'isolate',
      base: { type: 'filter', hook: 'forward', priority: 0 },
      rules: [
        [...fromUplink, ...isEstablishedOrRelated(false), ...isDestinationTranslated(false), ...drop()],
      ],
    },
    {
      name: 'masquerade',
      base: { type: 'nat', hook: 'postrouting', priority: 100 },
      rules: [
        [...interfaceIs('outputName', UPLINK_IN_NETWORK), ...isDestinationTranslated(false), ...masquerade()],
      ],
    },
  ]);
}

function replaceTable(
  table: string,
  published: readonly PortMapElement[],
  chains: readonly Chain[],
): NetlinkMessage[] {
  return [
    // Deleting what is not there would fail the transaction.
    addTable(table),
    deleteTable(table),
    addTable(table),
    addPortMap(table, PUBLISHED_PORTS_MAP, MAP_ID),
    ...addPortMapElements(table, PUBLISHED_PORTS_MAP, published),
    ...chains.flatMap((chain) => [
      addChain(table, chain.name, chain.base),
      ...chain.rules.map((rule) => addRule(table, chain.name, rule)),
    ]),
  ];
}
