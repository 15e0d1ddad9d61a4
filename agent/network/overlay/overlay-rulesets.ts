// The nf_tables of overlay networks. A network's table never changes but in the elements of its sets and maps:
//
//   svc        VIP → chain with as many slots as the service has
//   lb         VIP and slot → backend
//   svc_empty  VIP without backends → refuse
//   hairpin    (address, address) of containers here: one that reaches itself by its VIP must see another's address
//   gone       addresses whose container has left: what is still sent to them is answered with a reset

import type { NetlinkMessage } from '../../linux/netlink.ts';
import {
  createTable,
  destinationIsLocal,
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
import { type Chain, chainMessages, hostIsolation, networkIsolation, replaceTable } from '../chains.ts';
import { protocolNumbers } from '../port-holder.ts';
import { UPLINK_IN_NETWORK } from '../rulesets.ts';
import { balanceChains, REFUSE_CHAIN } from './balancing.ts';
import { planRuleset, type Ruleset } from './ruleset.ts';

export const OVERLAY_TABLE = 'tsswarm';
const RESOLVER_TABLE = 'tsswarm_dns';
/** Where containers ask for names, as in Docker. */
export const RESOLVER_ADDRESS = Buffer.from([127, 0, 0, 11]);
export const DNS_PORT = 53;

export const overlaySets = {
  svc: { name: 'svc', key: 'address', value: 'verdict' },
  lb: { name: 'lb', key: 'addressSlot', value: 'address' },
  svcEmpty: { name: 'svc_empty', key: 'address', value: 'verdict' },
  hairpin: { name: 'hairpin', key: 'addressPair' },
  gone: { name: 'gone', key: 'address' },
} as const satisfies Record<string, SetOptions>;

/** Where names without backends go. */
export const refuseChain: Chain = {
  name: REFUSE_CHAIN,
  rules: [[...protocolIs(protocolNumbers.tcp), ...reject('reset')], reject('unreachable')],
};

const networkChains: readonly Chain[] = [
  ...balanceChains.map((chain) => ({
    name: chain.name,
    rules: [translateToSlot(overlaySets.lb.name, chain)],
  })),
  refuseChain,
  {
    name: 'refuse_without_backends',
    base: { type: 'filter', hook: 'prerouting', priority: -150 },
    // Connections that were made while there were backends go on.
    rules: [[...isEstablishedOrRelated(false), ...goByDestination(overlaySets.svcEmpty.name)]],
  },
  {
    name: 'balance',
    base: { type: 'nat', hook: 'prerouting', priority: -100 },
    rules: [goByDestination(overlaySets.svc.name)],
  },
  {
    // Behind the translation: clients of a VIP and those that use the address itself alike.
    name: 'cut',
    base: { type: 'filter', hook: 'prerouting', priority: -90 },
    rules: [
      [...destinationIsIn(overlaySets.gone.name), ...protocolIs(protocolNumbers.tcp), ...reject('reset')],
    ],
  },
  networkIsolation(interfaceIs('inputName', UPLINK_IN_NETWORK)),
  {
    name: 'masquerade',
    base: { type: 'nat', hook: 'postrouting', priority: 100 },
    rules: [
      [...isDestinationTranslated(true), ...addressesAreIn(overlaySets.hairpin.name), ...masquerade()],
      [...interfaceIs('outputName', UPLINK_IN_NETWORK), ...masquerade()],
    ],
  },
];

/** The table of every overlay network's namespace. */
export const overlayRules = planRuleset(OVERLAY_TABLE, overlaySets, networkChains);

export function overlayHostTable(engineId: string): string {
  return `tsswarm_overlay_${engineId}`;
}

export const hostSets = {
  uplinks: { name: 'uplinks', key: 'interfaceName' },
  published: { name: 'published', key: 'protocolPort', value: 'addressPort' },
  publishedAt: { name: 'published_at', key: 'addressProtocolPort', value: 'addressPort' },
} as const satisfies Record<string, SetOptions>;

/** The host's table for all overlay networks. */
export function overlayHostRules(table: string, dataPathPort: number): Ruleset<keyof typeof hostSets> {
  return planRuleset(table, hostSets, hostChains(dataPathPort));
}

function hostChains(dataPathPort: number): Chain[] {
  // Without it, each connection inside an overlay would be tracked once more as a UDP flow of the host.
  const untracked: Rule = [
    ...protocolIs(protocolNumbers.udp),
    ...destinationPortIs(dataPathPort),
    ...withoutTracking(),
  ];
  const fromUplink = interfaceIsIn('input', hostSets.uplinks.name);
  const toUplink = interfaceIsIn('output', hostSets.uplinks.name);
  const publish: Rule[] = [
    translateByAddressAndPort(hostSets.publishedAt.name),
    [...destinationIsLocal(), ...translateByPort(hostSets.published.name)],
  ];
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
    { name: 'publish', base: { type: 'nat', hook: 'prerouting', priority: -105 }, rules: publish },
    { name: 'publish_local', base: { type: 'nat', hook: 'output', priority: -105 }, rules: publish },
    hostIsolation(toUplink, fromUplink),
    {
      name: 'masquerade',
      base: { type: 'nat', hook: 'postrouting', priority: 95 },
      rules: [
        // Users of a published port on this node: on another one such an address would be somebody else.
        [...toUplink, ...loopbackIs('source'), ...masquerade()],
        [...toUplink, ...sourceIsLinkLocal(), ...masquerade()],
        [...fromUplink, ...interfaceIsIn('output', hostSets.uplinks.name, false), ...masquerade()],
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
