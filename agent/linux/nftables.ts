// nf_tables: tables, chains, rules, maps and their elements as netlink messages, and the expressions of rules.
// Registers are named by their first 4-byte slot; a concatenated key or value lies in consecutive slots, each field
// padded to four bytes.

import type { IpFamily } from './ip-family.ts';
import { netfilterFamilies, netfilterMessage, netfilterSubsystems } from './netfilter.ts';
import {
  type Attribute,
  decodeAttributes,
  type NetlinkMessage,
  netlinkFlags,
  text,
  textOf,
  uint32,
  uint32BigEndian,
} from './netlink.ts';

export const commands = {
  newTable: 0,
  deleteTable: 2,
  newChain: 3,
  getChain: 4,
  newRule: 6,
  getRule: 7,
  newSet: 9,
  newElement: 12,
  getElement: 13,
  deleteElement: 14,
  getGeneration: 16,
} as const;

const NETDEV_EGRESS = 1;
/** Hooks of the ip and ip6 families. */
const hooks = { prerouting: 0, input: 1, forward: 2, output: 3, postrouting: 4 } as const;
const verdicts = { drop: 0, accept: 1 } as const;

export type Rule = readonly Attribute[];

export interface BaseChain {
  /** `route`: of the output hook, where a packet whose mark changes is routed again. */
  readonly type: 'nat' | 'filter' | 'route';
  readonly hook: keyof typeof hooks;
  readonly priority: number;
}

/** Of tables: `netdev` has the packets of single links, as they leave. */
export type TableFamily = IpFamily | 'netdev';

export function tableMessage(
  what: string,
  command: number,
  flags: number,
  attributes: readonly Attribute[],
  family: TableFamily = 'ipv4',
): NetlinkMessage {
  const subsystem = netfilterSubsystems.tables;
  return netfilterMessage({ what, subsystem, command, flags, attributes, family: netfilterFamilies[family] });
}

/** Fine when it exists. */
export function addTable(table: string, family?: TableFamily): NetlinkMessage {
  const attributes: Attribute[] = [[1, text(table)]];
  return tableMessage(`add table ${table}`, commands.newTable, netlinkFlags.create, attributes, family);
}

/** EEXIST when it exists. */
export function createTable(table: string): NetlinkMessage {
  const flags = netlinkFlags.create | netlinkFlags.exclusive;
  return tableMessage(`create table ${table}`, commands.newTable, flags, [[1, text(table)]]);
}

/** With all that is in it. */
export function deleteTable(table: string, family?: TableFamily): NetlinkMessage {
  return tableMessage(`delete table ${table}`, commands.deleteTable, 0, [[1, text(table)]], family);
}

export function addChain(
  table: string,
  chain: string,
  base: BaseChain,
  family: IpFamily = 'ipv4',
): NetlinkMessage {
  return addHookedChain(table, chain, base.type, family, [
    [1, uint32BigEndian(hooks[base.hook])],
    [2, uint32BigEndian(base.priority)],
  ]);
}

/** Of a netdev table: what leaves by the link. EOPNOTSUPP before Linux 5.16. */
export function addEgressChain(table: string, chain: string, link: string): NetlinkMessage {
  return addHookedChain(table, chain, 'filter', 'netdev', [
    [1, uint32BigEndian(NETDEV_EGRESS)],
    [2, uint32BigEndian(0)],
    [3, text(link)],
  ]);
}

function addHookedChain(
  table: string,
  chain: string,
  type: string,
  family: TableFamily,
  hook: readonly Attribute[],
): NetlinkMessage {
  const attributes: Attribute[] = [
    [1, text(table)],
    [3, text(chain)],
    [4, hook],
    [5, uint32BigEndian(verdicts.accept)],
    [7, text(type)],
  ];
  return tableMessage(`add chain ${chain}`, commands.newChain, netlinkFlags.create, attributes, family);
}

/** One that other chains go to; `addChain` makes those that the kernel calls. */
export function addRegularChain(table: string, chain: string, family?: IpFamily): NetlinkMessage {
  const attributes: Attribute[] = [
    [1, text(table)],
    [3, text(chain)],
  ];
  return tableMessage(`add chain ${chain}`, commands.newChain, netlinkFlags.create, attributes, family);
}

export function addRule(table: string, chain: string, rule: Rule, family?: TableFamily): NetlinkMessage {
  const flags = netlinkFlags.create | netlinkFlags.append;
  const attributes: Attribute[] = [
    [1, text(table)],
    [2, text(chain)],
    [4, rule],
  ];
  return tableMessage(`add rule to chain ${chain}`, commands.newRule, flags, attributes, family);
}

export const listChains: NetlinkMessage = netfilterMessage({
  what: 'list chains',
  subsystem: netfilterSubsystems.tables,
  command: commands.getChain,
  family: netfilterFamilies.any,
});

const GENERATION_ID = 1;

/** Asks for the number of changes of the ruleset of the socket's namespace, whoever made them. */
export const getGeneration: NetlinkMessage = netfilterMessage({
  what: 'read the generation of the ruleset',
  subsystem: netfilterSubsystems.tables,
  command: commands.getGeneration,
});

export function decodeGeneration(body: Buffer): number {
  return decodeAttributes(body, 4).get(GENERATION_ID)?.readUInt32BE() ?? 0;
}

export interface ListedChain {
  readonly family: number;
  readonly table: string;
  readonly name: string;
  /** Of base chains only. */
  readonly hook: keyof typeof hooks | undefined;
  readonly dropsByDefault: boolean;
}

export function decodeChain(body: Buffer): ListedChain {
  const attributes = decodeAttributes(body, 4);
  const hookNumber = decodeAttributes(attributes.get(4) ?? Buffer.alloc(0))
    .get(1)
    ?.readUInt32BE();
  const hookNames = Object.keys(hooks) as (keyof typeof hooks)[];
  return {
    family: body[0] ?? 0,
    table: textOf(attributes.get(1) ?? Buffer.alloc(0)),
    name: textOf(attributes.get(3) ?? Buffer.alloc(0)),
    hook: hookNames.find((name) => hooks[name] === hookNumber),
    dropsByDefault: attributes.get(5)?.readUInt32BE() === verdicts.drop,
  };
}

/** The rules of a table, one a reply. */
export function listRules(table: string, family?: TableFamily): NetlinkMessage {
  return tableMessage(`list rules of table ${table}`, commands.getRule, 0, [[1, text(table)]], family);
}

export const VERDICT_REGISTER = 0;
/** The first 4-byte slot, and the one after it. */
export const FIRST_REGISTER = 8;
export const SECOND_REGISTER = 9;

export const META_LAYER4_PROTOCOL = 16;
const metaKeys = { inputName: 6, outputName: 7 } as const;
export const LINK_HEADER = 0;
export const NETWORK_HEADER = 1;
export const TRANSPORT_HEADER = 2;
export const DESTINATION_PORT_OFFSET = 2;
/** Of the addresses in the header. */
export const addressOffsets = {
  ipv4: { source: 12, destination: 16 },
  ipv6: { source: 8, destination: 24 },
} as const;
const FIB_RESULT_OUTPUT_LINK = 1;
const FIB_BY_SOURCE = 1;
const FIB_BY_INPUT_LINK = 8;
const FIB_RESULT_ADDRESS_TYPE = 3;
const FIB_BY_DESTINATION = 2;
const ADDRESS_TYPE_LOCAL = 2;
export const NAT_DESTINATION = 1;
const CONNECTION_STATE = 0;
const CONNECTION_STATUS = 2;
const STATE_INVALID = 0x1;
const STATE_ESTABLISHED_OR_RELATED = 0x2 | 0x4;
const STATUS_DESTINATION_NAT = 0x20;
const INTERFACE_NAME_BYTES = 16;
export const COMPARE_EQUAL = 0;
export const COMPARE_UNEQUAL = 1;

export function expression(name: string, attributes: readonly Attribute[]): Attribute {
  return [
    1,
    [
      [1, text(name)],
      [2, attributes],
    ],
  ];
}

export function loadMeta(key: number, register = FIRST_REGISTER): Attribute {
  return expression('meta', [
    [1, uint32BigEndian(register)],
    [2, uint32BigEndian(key)],
  ]);
}

export function loadPayload(
  base: number,
  offset: number,
  length: number,
  register = FIRST_REGISTER,
): Attribute {
  return expression('payload', [
    [1, uint32BigEndian(register)],
    [2, uint32BigEndian(base)],
    [3, uint32BigEndian(offset)],
    [4, uint32BigEndian(length)],
  ]);
}

export function compare(operator: number, value: Buffer): Attribute {
  return expression('cmp', [
    [1, uint32BigEndian(FIRST_REGISTER)],
    [2, uint32BigEndian(operator)],
    [3, [[1, value]]],
  ]);
}

function verdict(code: number): Attribute {
  return expression('immediate', [
    [1, uint32BigEndian(VERDICT_REGISTER)],
    [2, [[2, [[1, uint32BigEndian(code)]]]]],
  ]);
}

/** Whether any of the bits of a connection's state, status or mark is set. */
export function connectionBits(key: number, bits: number, wanted: boolean): Attribute[] {
  return [
    expression('ct', [
      [1, uint32BigEndian(FIRST_REGISTER)],
      [2, uint32BigEndian(key)],
    ]),
    expression('bitwise', [
      [1, uint32BigEndian(FIRST_REGISTER)],
      [2, uint32BigEndian(FIRST_REGISTER)],
      [3, uint32BigEndian(4)],
      [4, [[1, uint32(bits)]]],
      [5, [[1, uint32(0)]]],
    ]),
    compare(wanted ? COMPARE_UNEQUAL : COMPARE_EQUAL, uint32(0)),
  ];
}

/** `iifname` and `oifname`, equal or not. */
export function interfaceIs(side: keyof typeof metaKeys, name: string, equal = true): Attribute[] {
  const padded = Buffer.alloc(INTERFACE_NAME_BYTES);
  padded.write(name);
  return [loadMeta(metaKeys[side]), compare(equal ? COMPARE_EQUAL : COMPARE_UNEQUAL, padded)];
}

/** 127.0.0.0/8 as source or destination. */
export function loopbackIs(side: keyof typeof addressOffsets.ipv4): Attribute[] {
  return [
    loadPayload(NETWORK_HEADER, addressOffsets.ipv4[side], 1),
    compare(COMPARE_EQUAL, Buffer.from([127])),
  ];
}

/** The packet is for an address of this namespace. */
export function destinationIsLocal(): Attribute[] {
  return [
    expression('fib', [
      [1, uint32BigEndian(FIRST_REGISTER)],
      [2, uint32BigEndian(FIB_RESULT_ADDRESS_TYPE)],
      [3, uint32BigEndian(FIB_BY_DESTINATION)],
    ]),
    compare(COMPARE_EQUAL, uint32(ADDRESS_TYPE_LOCAL)),
  ];
}

/** The packet's source is not behind the link that it came by: it is not the sender's own. */
export function sourceIsForeign(): Attribute[] {
  return noRouteBy(FIB_BY_SOURCE | FIB_BY_INPUT_LINK);
}

/** No route leads to the packet's destination, or one that refuses. */
export function destinationIsUnknown(): Attribute[] {
  return noRouteBy(FIB_BY_DESTINATION);
}

function noRouteBy(fields: number): Attribute[] {
  return [
    expression('fib', [
      [1, uint32BigEndian(FIRST_REGISTER)],
      [2, uint32BigEndian(FIB_RESULT_OUTPUT_LINK)],
      [3, uint32BigEndian(fields)],
    ]),
    compare(COMPARE_EQUAL, uint32(0)),
  ];
}

export function isDestinationTranslated(wanted: boolean): Attribute[] {
  return connectionBits(CONNECTION_STATUS, STATUS_DESTINATION_NAT, wanted);
}

export function isEstablishedOrRelated(wanted: boolean): Attribute[] {
  return connectionBits(CONNECTION_STATE, STATE_ESTABLISHED_OR_RELATED, wanted);
}

/** Connection tracking could not place the packet, so it was not translated either. */
export function isInvalid(): Attribute[] {
  return connectionBits(CONNECTION_STATE, STATE_INVALID, true);
}

export function masquerade(): Attribute[] {
  return [expression('masq', [])];
}

export function drop(): Attribute[] {
  return [verdict(verdicts.drop)];
}

/** No further rule of the chain looks at the packet. */
export function accept(): Attribute[] {
  return [verdict(verdicts.accept)];
}
