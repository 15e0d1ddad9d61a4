// nf_tables: tables, chains, rules, maps and their elements as netlink messages, and the expressions of rules.
// Registers are named by their first 4-byte slot; a concatenated key or value lies in consecutive slots, each field
// padded to four bytes.

import { netfilterFamilies, netfilterMessage, netfilterSubsystems } from './netfilter.ts';
import {
  type Attribute,
  decodeAttributes,
  type NetlinkMessage,
  netlinkFlags,
  text,
  textOf,
  uint16BigEndian,
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
} as const;

/** Hooks of the ip family. */
const hooks = { prerouting: 0, input: 1, forward: 2, output: 3, postrouting: 4 } as const;
const verdicts = { drop: 0, accept: 1 } as const;
export const SET_IS_MAP = 8;

// Types only matter to `nft list`, which shows values by them; a concatenation takes six bits per field.
export const TYPE_IPV4_ADDRESS = 7;
const TYPE_PROTOCOL = 12;
const TYPE_SERVICE = 13;
export const CONCATENATION_BITS = 6;

export type Rule = readonly Attribute[];

export interface BaseChain {
  readonly type: 'nat' | 'filter';
  readonly hook: keyof typeof hooks;
  readonly priority: number;
}

export function tableMessage(
  what: string,
  command: number,
  flags: number,
  attributes: readonly Attribute[],
): NetlinkMessage {
  const subsystem = netfilterSubsystems.tables;
  return netfilterMessage({ what, subsystem, command, flags, attributes });
}

/** Fine when it exists. */
export function addTable(table: string): NetlinkMessage {
  return tableMessage(`add table ${table}`, commands.newTable, netlinkFlags.create, [[1, text(table)]]);
}

/** EEXIST when it exists. */
export function createTable(table: string): NetlinkMessage {
  const flags = netlinkFlags.create | netlinkFlags.exclusive;
  return tableMessage(`create table ${table}`, commands.newTable, flags, [[1, text(table)]]);
}

/** With all that is in it. */
export function deleteTable(table: string): NetlinkMessage {
  return tableMessage(`delete table ${table}`, commands.deleteTable, 0, [[1, text(table)]]);
}

export function addChain(table: string, chain: string, base: BaseChain): NetlinkMessage {
  const hook: Attribute[] = [
    [1, uint32BigEndian(hooks[base.hook])],
    [2, uint32BigEndian(base.priority)],
  ];
  return tableMessage(`add chain ${chain}`, commands.newChain, netlinkFlags.create, [
    [1, text(table)],
    [3, text(chain)],
    [4, hook],
    [5, uint32BigEndian(verdicts.accept)],
    [7, text(base.type)],
  ]);
}

/** One that other chains go to; `addChain` makes those that the kernel calls. */
export function addRegularChain(table: string, chain: string): NetlinkMessage {
  return tableMessage(`add chain ${chain}`, commands.newChain, netlinkFlags.create, [
    [1, text(table)],
    [3, text(chain)],
  ]);
}

export function addRule(table: string, chain: string, rule: Rule): NetlinkMessage {
  const flags = netlinkFlags.create | netlinkFlags.append;
  return tableMessage(`add rule to chain ${chain}`, commands.newRule, flags, [
    [1, text(table)],
    [2, text(chain)],
    [4, rule],
  ]);
}

const PORT_KEY_BYTES = 8;
const PORT_TARGET_BYTES = 8;

/** A map from protocol and port to address and port. `id` is unique in its transaction. */
export function addPortMap(table: string, map: string, id: number): NetlinkMessage {
  return tableMessage(`add map ${map}`, commands.newSet, netlinkFlags.create, [
    [1, text(table)],
    [2, text(map)],
    [3, uint32BigEndian(SET_IS_MAP)],
    [4, uint32BigEndian((TYPE_PROTOCOL << CONCATENATION_BITS) | TYPE_SERVICE)],
    [5, uint32BigEndian(PORT_KEY_BYTES)],
    [6, uint32BigEndian((TYPE_IPV4_ADDRESS << CONCATENATION_BITS) | TYPE_SERVICE)],
    [7, uint32BigEndian(PORT_TARGET_BYTES)],
    [10, uint32BigEndian(id)],
  ]);
}

export interface PortMapElement {
  readonly protocolNumber: number;
  readonly port: number;
  readonly targetAddress: Buffer;
  readonly targetPort: number;
}

/** An attribute's length has 16 bits, and an element takes about 44 bytes. */
export const ELEMENTS_PER_MESSAGE_MAX = 1000;

/** EEXIST when a key is there with another value. */
export function addPortMapElements(
  table: string,
  map: string,
  elements: readonly PortMapElement[],
): NetlinkMessage[] {
  return elementMessages(table, map, elements, 'add');
}

/** ENOENT when a key is not there. */
export function deletePortMapElements(
  table: string,
  map: string,
  elements: readonly PortMapElement[],
): NetlinkMessage[] {
  return elementMessages(table, map, elements, 'delete');
}

function elementMessages(
  table: string,
  map: string,
  elements: readonly PortMapElement[],
  action: 'add' | 'delete',
): NetlinkMessage[] {
  const messages: NetlinkMessage[] = [];
  for (let first = 0; first < elements.length; first += ELEMENTS_PER_MESSAGE_MAX) {
    const list = elements.slice(first, first + ELEMENTS_PER_MESSAGE_MAX).map((element): Attribute => {
      const key: Attribute = [1, [[1, Buffer.concat([uint32(element.protocolNumber), port(element.port)])]]];
      const value: Attribute = [2, [[1, Buffer.concat([element.targetAddress, port(element.targetPort)])]]];
      return [1, action === 'add' ? [key, value] : [key]];
    });
    const command = action === 'add' ? commands.newElement : commands.deleteElement;
    const flags = action === 'add' ? netlinkFlags.create : 0;
    messages.push(
      tableMessage(`${action} elements of map ${map}`, command, flags, [
        [1, text(table)],
        [2, text(map)],
        [3, list],
      ]),
    );
  }
  return messages;
}

/** A port in a concatenation: two bytes big-endian, two of padding. */
function port(value: number): Buffer {
  return Buffer.concat([uint16BigEndian(value), Buffer.alloc(2)]);
}

export const listChains: NetlinkMessage = netfilterMessage({
  what: 'list chains',
  subsystem: netfilterSubsystems.tables,
  command: commands.getChain,
  family: netfilterFamilies.any,
});

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
export function listRules(table: string): NetlinkMessage {
  return tableMessage(`list rules of table ${table}`, commands.getRule, 0, [[1, text(table)]]);
}

export const VERDICT_REGISTER = 0;
/** The first 4-byte slot, and the one after it. */
export const FIRST_REGISTER = 8;
export const SECOND_REGISTER = 9;

export const META_LAYER4_PROTOCOL = 16;
const metaKeys = { inputName: 6, outputName: 7 } as const;
export const NETWORK_HEADER = 1;
export const TRANSPORT_HEADER = 2;
export const DESTINATION_PORT_OFFSET = 2;
export const ipv4Offsets = { source: 12, destination: 16 } as const;
const FIB_RESULT_ADDRESS_TYPE = 3;
const FIB_BY_DESTINATION = 2;
const ADDRESS_TYPE_LOCAL = 2;
export const NAT_DESTINATION = 1;
export const AF_INET = 2;
const CONNECTION_STATE = 0;
const CONNECTION_STATUS = 2;
const STATE_INVALID = 0x1;
const STATE_ESTABLISHED_OR_RELATED = 0x2 | 0x4;
const STATUS_DESTINATION_NAT = 0x20;
const INTERFACE_NAME_BYTES = 16;
export const COMPARE_EQUAL = 0;
const COMPARE_UNEQUAL = 1;

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

/** Whether any of the bits of a connection's state or status is set. */
function connectionBits(key: number, bits: number, wanted: boolean): Attribute[] {
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
export function loopbackIs(side: keyof typeof ipv4Offsets): Attribute[] {
  return [loadPayload(NETWORK_HEADER, ipv4Offsets[side], 1), compare(COMPARE_EQUAL, Buffer.from([127]))];
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

/** DNAT to what the map holds for the packet's protocol and port; the rule ends when it holds nothing. */
export function translateByPortMap(map: string): Attribute[] {
  return [
    loadMeta(META_LAYER4_PROTOCOL),
    loadPayload(TRANSPORT_HEADER, DESTINATION_PORT_OFFSET, 2, SECOND_REGISTER),
    expression('lookup', [
      [1, text(map)],
      [2, uint32BigEndian(FIRST_REGISTER)],
      [3, uint32BigEndian(FIRST_REGISTER)],
    ]),
    expression('nat', [
      [1, uint32BigEndian(NAT_DESTINATION)],
      [2, uint32BigEndian(AF_INET)],
      [3, uint32BigEndian(FIRST_REGISTER)],
      [5, uint32BigEndian(SECOND_REGISTER)],
    ]),
  ];
}

export function masquerade(): Attribute[] {
  return [expression('masq', [])];
}

export function drop(): Attribute[] {
  return [verdict(verdicts.drop)];
}
