// The nf_tables of overlay networks. A network's table never changes but in the elements of its sets and maps:
//
//   svc        VIP → chain with as many slots as the service has
//   lb         VIP and slot → backend
//   svc_empty  VIP without backends → refuse
//   hairpin    (address, address) of containers here: one that reaches itself by its VIP must see another's address
//   gone       addresses whose container has left: what is still sent to them is answered with a reset

import { createHash } from 'node:crypto';
import { type NetlinkMessage, textOf } from '../../linux/netlink.ts';
import type { NetlinkSocket } from '../../linux/netlink-socket.ts';
import {
  addChain,
  addRegularChain,
  addRule,
  addTable,
  type BaseChain,
  createTable,
  deleteTable,
  drop,
  interfaceIs,
  isDestinationTranslated,
  isEstablishedOrRelated,
  isInvalid,
  listRules,
  loopbackIs,
  masquerade,
  type Rule,
} from '../../linux/nftables.ts';
import {
  addElements,
  addressesAreIn,
  addSet,
  decodeElements,
  destinationIs,
  destinationIsIn,
  destinationPortIs,
  goByDestination,
  interfaceIsIn,
  listElements,
  protocolIs,
  reject,
  type SetElement,
  type SetOptions,
  translateTo,
  translateToRandomSlot,
  withoutTracking,
} from '../../linux/nftables-maps.ts';
import { protocolNumbers } from '../port-holder.ts';
import { UPLINK_IN_NETWORK } from '../rulesets.ts';
import { slotClasses } from './balancing.ts';

export const OVERLAY_TABLE = 'tsswarm';
const RESOLVER_TABLE = 'tsswarm_dns';
const UPLINKS_SET = 'uplinks';
/** Where containers ask for names, as in Docker. */
export const RESOLVER_ADDRESS = Buffer.from([127, 0, 0, 11]);
export const DNS_PORT = 53;
const REFUSE_CHAIN = 'refuse';

export const overlaySets = {
  svc: { name: 'svc', key: 'address', value: 'verdict' },
  lb: { name: 'lb', key: 'addressSlot', value: 'address' },
  svcEmpty: { name: 'svc_empty', key: 'address', value: 'verdict' },
  hairpin: { name: 'hairpin', key: 'addressPair' },
  gone: { name: 'gone', key: 'address' },
} as const satisfies Record<string, SetOptions>;

export type OverlayElements = Readonly<Record<keyof typeof overlaySets, readonly SetElement[]>>;

interface Chain {
  readonly name: string;
  /** Absent for chains that others go to. */
  readonly base?: BaseChain;
  readonly rules: readonly Rule[];
}

/** The chain that a service with so many slots goes to. */
export function serviceChain(slots: number): string {
  return slots === 0 ? REFUSE_CHAIN : `n${slots}`;
}

const networkChains: readonly Chain[] = [
  ...slotClasses.map((slots) => ({
    name: serviceChain(slots),
    rules: [translateToRandomSlot(overlaySets.lb.name, slots)],
  })),
  {
    name: REFUSE_CHAIN,
    rules: [[...protocolIs(protocolNumbers.tcp), ...reject('reset')], reject('unreachable')],
  },
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
  {
    name: 'isolate',
    base: { type: 'filter', hook: 'forward', priority: 0 },
    rules: [
      [
        ...interfaceIs('inputName', UPLINK_IN_NETWORK),
        ...isEstablishedOrRelated(false),
        ...isDestinationTranslated(false),
        ...drop(),
      ],
    ],
  },
  {
    name: 'masquerade',
    base: { type: 'nat', hook: 'postrouting', priority: 100 },
    rules: [
      [...isDestinationTranslated(true), ...addressesAreIn(overlaySets.hairpin.name), ...masquerade()],
      [...interfaceIs('outputName', UPLINK_IN_NETWORK), ...masquerade()],
    ],
  },
];

const ruleset: readonly NetlinkMessage[] = [
  ...Object.values(overlaySets).map((set, index) => addSet(OVERLAY_TABLE, set, index + 1)),
  ...chainMessages(OVERLAY_TABLE, networkChains),
];

/** An empty chain of this name tells which rules a table has: another program version may have other ones. */
export const rulesetMark = `rules_${createHash('sha256')
  .update(Buffer.concat(ruleset.map(({ body }) => body)))
  .digest('hex')
  .slice(0, 12)}`;

/** How many rules the table of a network's namespace has. */
export const rulesetSize = networkChains.flatMap(({ rules }) => rules).length;

/** Replaces the table of a network's namespace in one transaction. */
export function overlayRuleset(elements: OverlayElements): NetlinkMessage[] {
  const names = Object.keys(overlaySets) as (keyof typeof overlaySets)[];
  return [
    ...replaceTable(OVERLAY_TABLE),
    ...ruleset,
    ...names.flatMap((name) => addElements(OVERLAY_TABLE, overlaySets[name].name, elements[name])),
    addRegularChain(OVERLAY_TABLE, rulesetMark),
  ];
}

export function overlayHostTable(engineId: string): string {
  return `tsswarm_overlay_${engineId}`;
}

/** Chains of the host's table for all overlay networks. */
function hostChains(dataPathPort: number): Chain[] {
  // Without it, each connection inside an overlay would be tracked once more as a UDP flow of the host.
  const untracked: Rule = [
    ...protocolIs(protocolNumbers.udp),
    ...destinationPortIs(dataPathPort),
    ...withoutTracking(),
  ];
  const fromUplink = interfaceIsIn('input', UPLINKS_SET);
  const toUplink = interfaceIsIn('output', UPLINKS_SET);
  return [
    {
      name: 'untracked_in',
      base: { type: 'filter', hook: 'prerouting', priority: -300 },
      rules: [untracked],
    },
    {
      name: 'untracked_out',
      base: { type: 'filter', hook: 'output', priority: -300 },
      rules: [untracked],
    },
    {
      // Nothing but answers enters a network, from wherever.
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
      rules: [[...fromUplink, ...interfaceIsIn('output', UPLINKS_SET, false), ...masquerade()]],
    },
  ];
}

/** Replaces the host's table; `uplinks` are the host's ends of the networks' links. */
export function overlayHostRuleset(
  table: string,
  dataPathPort: number,
  uplinks: readonly string[],
): NetlinkMessage[] {
  return [
    ...replaceTable(table),
    addSet(table, { name: UPLINKS_SET, key: 'interfaceName' }, 1),
    ...addElements(
      table,
      UPLINKS_SET,
      uplinks.map((name) => ({ key: interfaceNameKey(name) })),
    ),
    ...chainMessages(table, hostChains(dataPathPort)),
  ];
}

/** Whether the host's table has its rules, and these uplinks. */
export function isHostTableRight(
  tables: NetlinkSocket,
  table: string,
  dataPathPort: number,
  uplinks: readonly string[],
): boolean {
  const expected = hostChains(dataPathPort).flatMap(({ rules }) => rules).length;
  if (tables.dump(listRules(table)).length !== expected) return false;
  const names = tables
    .dump(listElements(table, UPLINKS_SET))
    .flatMap(decodeElements)
    .map(({ key }) => textOf(key));
  return names.length === uplinks.length && uplinks.every((name) => names.includes(name));
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

const INTERFACE_NAME_BYTES = 16;

function interfaceNameKey(name: string): Buffer {
  const key = Buffer.alloc(INTERFACE_NAME_BYTES);
  key.write(name);
  return key;
}

function replaceTable(table: string): NetlinkMessage[] {
  // Deleting what is not there would fail the transaction.
  return [addTable(table), deleteTable(table), addTable(table)];
}

/** All chains before all rules: rules and elements go to chains. */
function chainMessages(table: string, chains: readonly Chain[]): NetlinkMessage[] {
  return [
    ...chains.map(({ name, base }) =>
      base === undefined ? addRegularChain(table, name) : addChain(table, name, base),
    ),
    ...chains.flatMap(({ name, rules }) => rules.map((rule) => addRule(table, name, rule))),
  ];
}
