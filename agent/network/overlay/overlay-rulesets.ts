// The nf_tables of overlay networks. A network's table never changes but in the elements of its sets and maps:
//
//   svc        VIP → chain with as many slots as the service has
//   lb         VIP and slot → backend
//   svc_empty  VIP without backends → refuse
//   hairpin    (address, address) of containers here: one that reaches itself by its VIP must see another's address
//   gone       addresses whose container has left: what is still sent to them is answered with a reset

import type { IpFamily } from '../../linux/ip-family.ts';
import type { NetlinkMessage } from '../../linux/netlink.ts';
import {
  createTable,
  destinationIsLocal,
  destinationIsUnknown,
  drop,
  interfaceIs,
  isDestinationTranslated,
  isEstablishedOrRelated,
  loopbackIs,
  masquerade,
  type Rule,
} from '../../linux/nftables.ts';
import {
  addressesAreIn,
  destinationIs,
  destinationIsIn,
  destinationIsNot,
  destinationPortIs,
  goByDestination,
  interfaceIsIn,
  protocolIs,
  reject,
  type SetOptions,
  sourceIsLinkLocal,
  translateByAddressAndPort,
  translateByPort,
  translateTo,
  translateToSlot,
  withoutTracking,
} from '../../linux/nftables-maps.ts';
import { connectionMarkIs, directionIs, markConnection } from '../../linux/nftables-marks.ts';
import {
  type Chain,
  chainMessages,
  hostIsolation,
  IPV6_LOOPBACK,
  networkIsolation,
  ownAddressesOnly,
  replaceTable,
} from '../chains.ts';
import { protocolNumbers } from '../port-holder.ts';
import { UPLINK_IN_NETWORK } from '../rulesets.ts';
import { balanceChains, REFUSE_CHAIN } from './balancing.ts';
import { planRuleset, type Ruleset } from './ruleset.ts';

export const OVERLAY_TABLE = 'tsswarm';
/** In a network's namespace. */
export const VXLAN_LINK = 'vx0';
const RESOLVER_TABLE = 'tsswarm_dns';
/** Where containers ask for names, as in Docker. */
export const RESOLVER_ADDRESS = Buffer.from([127, 0, 0, 11]);
export const DNS_PORT = 53;

/** Whether an answer is on its way: a UDP flow that is forgotten then would lose it. */
export const UNANSWERED = 1;
/** The flow's backend is about to go (flow-ender.ts). */
export const ENDING = 2;
/** Bits that no UDP flow has which this network has translated: one with any was translated by another machine. */
export const MACHINE_MARK = ~(UNANSWERED | ENDING) >>> 0;
export const flowMarks = {
  translated: { value: 0, mask: MACHINE_MARK },
  ending: { value: ENDING, mask: ENDING },
  endingAnswered: { value: ENDING, mask: 0xffffffff },
} as const;

export const overlaySets = {
  svc: { name: 'svc', key: 'address', value: 'verdict' },
  lb: { name: 'lb', key: 'addressSlot', value: 'address' },
  svcEmpty: { name: 'svc_empty', key: 'address', value: 'verdict' },
  hairpin: { name: 'hairpin', key: 'addressPair' },
  gone: { name: 'gone', key: 'address' },
} as const satisfies Record<string, SetOptions>;

function networkChains(family: IpFamily): Chain[] {
  return [
    ...balanceChains.map((chain) => ({
      name: chain.name,
      // A service that changed between two look-ups for the same packet: its client tries again.
      rules: [translateToSlot(overlaySets.lb.name, chain, family), drop()],
    })),
    {
      // Where names without backends go.
      name: REFUSE_CHAIN,
      rules: [
        [...protocolIs(protocolNumbers.tcp), ...reject('reset', family)],
        reject('unreachable', family),
      ],
    },
    ...(family === 'ipv6' ? [ownAddressesOnly(['lo', VXLAN_LINK, UPLINK_IN_NETWORK]), refuseUnknown] : []),
    answered,
    {
      name: 'refuse_without_backends',
      base: { type: 'filter', hook: 'prerouting', priority: -150 },
      // Connections that were made while there were backends go on.
      rules: [[...isEstablishedOrRelated(false), ...goByDestination(overlaySets.svcEmpty.name, family)]],
    },
    {
      name: 'balance',
      base: { type: 'nat', hook: 'prerouting', priority: -100 },
      rules: [goByDestination(overlaySets.svc.name, family)],
    },
    {
      // Behind the translation: clients of a VIP and those that use the address itself alike.
      name: 'cut',
      base: { type: 'filter', hook: 'prerouting', priority: -90 },
      rules: [
        [
          ...destinationIsIn(overlaySets.gone.name, family),
          ...protocolIs(protocolNumbers.tcp),
          ...reject('reset', family),
        ],
      ],
    },
    asked,
    networkIsolation(interfaceIs('inputName', UPLINK_IN_NETWORK)),
    {
      name: 'masquerade',
      base: { type: 'nat', hook: 'postrouting', priority: 100 },
      rules: [
        [
          ...isDestinationTranslated(true),
          ...addressesAreIn(overlaySets.hairpin.name, family),
          ...masquerade(),
        ],
        [...interfaceIs('outputName', UPLINK_IN_NETWORK), ...masquerade()],
      ],
    },
  ];
}

/** Behind the translation, so that the first packet of a flow counts as well. */
const asked: Chain = {
  name: 'asked',
  base: { type: 'filter', hook: 'prerouting', priority: -80 },
  rules: [0, ENDING].map((mark) => [
    ...protocolIs(protocolNumbers.udp),
    ...directionIs('original'),
    ...isDestinationTranslated(true),
    ...connectionMarkIs(mark),
    ...markConnection(mark | UNANSWERED),
  ]),
};

const answered: Chain = {
  name: 'answered',
  base: { type: 'filter', hook: 'prerouting', priority: -155 },
  rules: [0, ENDING].map((mark) => [
    ...protocolIs(protocolNumbers.udp),
    ...directionIs('reply'),
    ...connectionMarkIs(mark | UNANSWERED),
    ...markConnection(mark),
  ]),
};

/** A client that begins a connection misses ICMPv6's answer that there is no route, and waits for the next one. */
const refuseUnknown: Chain = {
  name: 'refuse_unknown',
  base: { type: 'filter', hook: 'prerouting', priority: -85 },
  rules: (
    [
      ['tcp', 'reset'],
      ['udp', 'unreachable'],
    ] as const
  ).map(([protocol, how]) => [
    ...protocolIs(protocolNumbers[protocol]),
    ...isEstablishedOrRelated(false),
    ...destinationIsUnknown(),
    ...reject(how, 'ipv6'),
  ]),
};

/** The table of every overlay network's namespace, for each of its families. */
export const overlayRules = {
  ipv4: planRuleset(OVERLAY_TABLE, overlaySets, networkChains('ipv4'), 'ipv4'),
  ipv6: planRuleset(OVERLAY_TABLE, overlaySets, networkChains('ipv6'), 'ipv6'),
} as const satisfies Record<IpFamily, Ruleset<keyof typeof overlaySets>>;

export function overlayHostTable(engineId: string): string {
  return `tsswarm_overlay_${engineId}`;
}

export const hostSets = {
  uplinks: { name: 'uplinks', key: 'interfaceName' },
  published: { name: 'published', key: 'protocolPort', value: 'addressPort' },
  publishedAt: { name: 'published_at', key: 'addressProtocolPort', value: 'addressPort' },
} as const satisfies Record<string, SetOptions>;

/** The host's table for all overlay networks, of one family. */
export function overlayHostRules(
  table: string,
  dataPathPort: number,
  family: IpFamily,
): Ruleset<keyof typeof hostSets> {
  return planRuleset(table, hostSets, hostChains(dataPathPort, family), family);
}

function hostChains(dataPathPort: number, family: IpFamily): Chain[] {
  // Without it, each connection inside an overlay would be tracked once more as a UDP flow of the host.
  const untracked: Rule = [
    ...protocolIs(protocolNumbers.udp),
    ...destinationPortIs(dataPathPort),
    ...withoutTracking(),
  ];
  const fromUplink = interfaceIsIn('input', hostSets.uplinks.name);
  const toUplink = interfaceIsIn('output', hostSets.uplinks.name);
  const publish: Rule[] = [
    translateByAddressAndPort(hostSets.publishedAt.name, family),
    [...destinationIsLocal(), ...translateByPort(hostSets.published.name, family)],
  ];
  const wayOut: Rule = [
    ...fromUplink,
    ...interfaceIsIn('output', hostSets.uplinks.name, false),
    ...masquerade(),
  ];
  const sharedChains: Chain[] = [
    { name: 'publish', base: { type: 'nat', hook: 'prerouting', priority: -105 }, rules: publish },
    {
      name: 'publish_local',
      base: { type: 'nat', hook: 'output', priority: -105 },
      rules:
        family === 'ipv4' ? publish : publish.map((rule) => [...destinationIsNot(IPV6_LOOPBACK), ...rule]),
    },
    hostIsolation(toUplink, fromUplink),
  ];
  if (family === 'ipv6') {
    // Nodes send to each other by IPv4, and ::1 is not translated.
    const rules = [[...fromUplink, ...toUplink, ...masquerade()], wayOut];
    const base = { type: 'nat', hook: 'postrouting', priority: 95 } as const;
    return [...sharedChains, { name: 'masquerade', base, rules }];
  }
  return [
    {
      // route_localnet, which lets 127.0.0.1 be translated, would also let a network reach the host's loopback.
      name: 'guard',
      base: { type: 'filter', hook: 'prerouting', priority: -300 },
      rules: [[...fromUplink, ...loopbackIs('destination'), ...drop()], untracked],
    },
    {
      name: 'untracked_out',
      base: { type: 'filter', hook: 'output', priority: -300 },
      rules: [untracked],
    },
    ...sharedChains,
    {
      name: 'masquerade',
      base: { type: 'nat', hook: 'postrouting', priority: 95 },
      rules: [
        // Users of a published port on this node: on another one such an address would be somebody else.
        [...toUplink, ...loopbackIs('source'), ...masquerade()],
        [...toUplink, ...sourceIsLinkLocal(), ...masquerade()],
        wayOut,
      ],
    },
  ];
}

/**
 * In a container's namespace: what is sent to 127.0.0.11 port 53 goes to the network's name server. EEXIST when the
 * table is there, unless it is replaced, for which the kernel waits 10 ms.
 */
export function resolverRuleset(gateway: Buffer, how: 'create' | 'replace'): NetlinkMessage[] {
  return [
    ...(how === 'create' ? [createTable(RESOLVER_TABLE)] : replaceTable(RESOLVER_TABLE)),
    ...chainMessages(RESOLVER_TABLE, [
      {
        name: 'resolve',
        base: { type: 'nat', hook: 'output', priority: -100 },
        rules: [
          [...destinationIs(RESOLVER_ADDRESS), ...destinationPortIs(DNS_PORT), ...translateTo(gateway)],
        ],
      },
      {
        name: 'masquerade',
        base: { type: 'nat', hook: 'postrouting', priority: 100 },
        rules: [[...loopbackIs('source'), ...interfaceIs('outputName', 'lo', false), ...masquerade()]],
      },
    ]),
  ];
}
