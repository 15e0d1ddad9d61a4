// The nf_tables of the routing mesh, in the namespace of the ingress network. A published port arrives from the host as a
// port of the uplink's address, the inner port; here it is translated to a container on whichever node:
//
//   ports    protocol and inner port → chain with as many slots as the port has
//   targets  protocol, inner port and slot → address and port of a container
//   open     address, protocol and port of containers here that other nodes may send new connections to
//
// Containers see the true address of a client, so an answer could leave the cluster by any node but must leave by the one
// that translated the request. The node of the container notes where a connection came from as the connection's mark: the
// last four bytes of the other node's MAC address. Answers are marked alike, take the route of marked packets out of the
// VXLAN, and get the node's MAC address there. That costs the same for a thousand nodes as for one.

import type { IpFamily } from '../../linux/ip-family.ts';
import type { NetlinkMessage } from '../../linux/netlink.ts';
import {
  accept,
  addEgressChain,
  addRule,
  drop,
  interfaceIs,
  isDestinationTranslated,
  isEstablishedOrRelated,
} from '../../linux/nftables.ts';
import {
  destinationPortIsIn,
  goByPort,
  type SetOptions,
  translatePortToSlot,
} from '../../linux/nftables-maps.ts';
import {
  connectionMarkHas,
  directionIs,
  markAsConnection,
  markConnectionBySourceMac,
  sendToMarkedMac,
  zoneBySourceMac,
} from '../../linux/nftables-marks.ts';
import { type Chain, replaceTable } from '../chains.ts';
import { UPLINK_IN_NETWORK } from '../rulesets.ts';
import { balanceChains } from './balancing.ts';
import { MACHINE_MARK, VXLAN_LINK } from './overlay-rulesets.ts';
import { planRuleset, type Ruleset } from './ruleset.ts';

export const INGRESS_TABLE = 'tsswarm_ingress';
const RETURN_CHAIN = 'send_back';
/** Behind connection tracking (-200), before translations (-100) and routing. */
const MARK_PRIORITY = -150;

export const ingressSets = {
  ports: { name: 'ports', key: 'protocolPort', value: 'verdict' },
  targets: { name: 'targets', key: 'protocolPortSlot', value: 'addressPort' },
  open: { name: 'open', key: 'addressProtocolPort' },
} as const satisfies Record<string, SetOptions>;

const fromUplink = interfaceIs('inputName', UPLINK_IN_NETWORK);
const toUplink = interfaceIs('outputName', UPLINK_IN_NETWORK);
const fromNodes = interfaceIs('inputName', VXLAN_LINK);
const markAnswer = [...directionIs('reply'), ...connectionMarkHas(MACHINE_MARK), ...markAsConnection()];

function chainsOf(family: IpFamily): Chain[] {
  return [
    ...balanceChains.map((chain) => ({
      name: chain.name,
      // As for virtual addresses: the port changed between two look-ups.
      rules: [translatePortToSlot(ingressSets.targets.name, chain, family), drop()],
    })),
    {
      // A port without backends is refused by the namespace itself: nothing listens on the uplink's address.
      name: 'publish',
      base: { type: 'nat', hook: 'prerouting', priority: -100 },
      rules: [[...fromUplink, ...goByPort(ingressSets.ports.name)]],
    },
    {
      // A client may have the same port for connections to two nodes, which send them to the same container.
      name: 'separate',
      base: { type: 'filter', hook: 'prerouting', priority: -300 },
      // Answers that come back to the node that clients entered by have no zone, and are found at once.
      rules: [[...fromNodes, ...destinationPortIsIn(ingressSets.open.name, family), ...zoneBySourceMac()]],
    },
    {
      name: 'remember',
      base: { type: 'filter', hook: 'prerouting', priority: MARK_PRIORITY },
      // With every packet, not only the first: a client may come by another node after one was lost.
      rules: [[...fromNodes, ...directionIs('original'), ...markConnectionBySourceMac()], markAnswer],
    },
    {
      // Resets and errors that this namespace answers with.
      name: 'answer',
      base: { type: 'route', hook: 'output', priority: MARK_PRIORITY },
      rules: [markAnswer],
    },
    {
      // Containers do not reach each other on this network.
      name: 'close',
      base: { type: 'filter', hook: 'forward', priority: 10 },
      rules: [
        [...isEstablishedOrRelated(true), ...accept()],
        [...fromUplink, ...isDestinationTranslated(true), ...accept()],
        [...interfaceIs('inputName', VXLAN_LINK, false), ...toUplink, ...accept()],
        // Dropped rather than refused: a node that hears of a new container late accepts when the client tries again.
        [...fromNodes, ...destinationPortIsIn(ingressSets.open.name, family), ...accept()],
        drop(),
      ],
    },
  ];
}

/** In the ingress network's namespace, for each of its families. */
export const ingressRules = {
  ipv4: planRuleset(INGRESS_TABLE, ingressSets, chainsOf('ipv4'), 'ipv4'),
  ipv6: planRuleset(INGRESS_TABLE, ingressSets, chainsOf('ipv6'), 'ipv6'),
} as const satisfies Record<IpFamily, Ruleset<keyof typeof ingressSets>>;

/** Replaces the rule that gives answers their node's MAC address. It goes with the VXLAN. */
export function returnRuleset(): NetlinkMessage[] {
  return [
    ...replaceTable(INGRESS_TABLE, 'netdev'),
    addEgressChain(INGRESS_TABLE, RETURN_CHAIN, VXLAN_LINK),
    addRule(INGRESS_TABLE, RETURN_CHAIN, sendToMarkedMac(), 'netdev'),
  ];
}
