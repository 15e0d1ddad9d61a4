// nf_tables: sets and maps of any key, their elements, and the expressions that balance traffic by them.

import { familyOfBytes, type IpFamily, ipFamilies } from './ip-family.ts';
import {
  type Attribute,
  decodeAttributes,
  decodeList,
  type NetlinkMessage,
  type NetlinkReply,
  netlinkFlags,
  text,
  textOf,
  uint8,
  uint16BigEndian,
  uint32,
  uint32BigEndian,
} from './netlink.ts';
import {
  addressOffsets,
  COMPARE_EQUAL,
  COMPARE_UNEQUAL,
  commands,
  compare,
  DESTINATION_PORT_OFFSET,
  expression,
  FIRST_REGISTER,
  loadMeta,
  loadPayload,
  META_LAYER4_PROTOCOL,
  NAT_DESTINATION,
  NETWORK_HEADER,
  SECOND_REGISTER,
  TRANSPORT_HEADER,
  tableMessage,
  VERDICT_REGISTER,
} from './nftables.ts';

const SET_IS_MAP = 8;
/** An attribute's length has 16 bits, and an element takes 60 bytes at most. */
const ELEMENTS_PER_MESSAGE_MAX = 1000;
const GOTO = -4;

// Types only matter to `nft list`, which shows values by them; a concatenation takes six bits per field.
const types = {
  protocol: 12,
  port: 13,
  mark: 19,
  interfaceName: 41,
  verdict: 0xffffff00,
} as const;
const addressTypes: Readonly<Record<IpFamily, number>> = { ipv4: 7, ipv6: 8 };
const CONCATENATION_BITS = 6;
const FIELD_BYTES = 4;

/** What keys and values are; a concatenation has its fields one after another, each padded to four bytes. */
const fields = {
  address: ['address'],
  addressPair: ['address', 'address'],
  /** A slot is a number in the byte order of the machine. */
  addressSlot: ['address', 'mark'],
  addressPort: ['address', 'port'],
  addressProtocolPort: ['address', 'protocol', 'port'],
  protocolPort: ['protocol', 'port'],
  protocolPortSlot: ['protocol', 'port', 'mark'],
  mark: ['mark'],
  markPair: ['mark', 'mark'],
  markPairProtocolPort: ['mark', 'mark', 'protocol', 'port'],
  interfaceName: ['interfaceName'],
  verdict: ['verdict'],
} as const satisfies Record<string, readonly ('address' | keyof typeof types)[]>;

function fieldOf(name: keyof typeof fields, family: IpFamily): { type: number; bytes: number } {
  const parts: readonly ('address' | keyof typeof types)[] = fields[name];
  const typeOf = (part: 'address' | keyof typeof types) =>
    part === 'address' ? addressTypes[family] : types[part];
  // Type numbers of one field may need all bits.
  if (parts.length === 1) return { type: typeOf(parts[0]!), bytes: bytesOfField(parts[0]!, family) };
  return {
    type: parts.reduce((sum, part) => (sum << CONCATENATION_BITS) | typeOf(part), 0),
    bytes: parts.reduce((sum, part) => sum + bytesOfField(part, family), 0),
  };
}

function bytesOfField(part: 'address' | keyof typeof types, family: IpFamily): number {
  if (part === 'address') return ipFamilies[family].addressBytes;
  return part === 'interfaceName' || part === 'verdict' ? 16 : FIELD_BYTES;
}

export interface SetOptions {
  readonly name: string;
  readonly key: Exclude<keyof typeof fields, 'verdict'>;
  /** A map when present. */
  readonly value?: 'address' | 'addressPort' | 'mark' | 'verdict';
}

/** `id` is unique in its transaction. */
export function addSet(
  table: string,
  options: SetOptions,
  id: number,
  family: IpFamily = 'ipv4',
): NetlinkMessage {
  const key = fieldOf(options.key, family);
  const attributes: Attribute[] = [
    [1, text(table)],
    [2, text(options.name)],
    [3, uint32BigEndian(options.value === undefined ? 0 : SET_IS_MAP)],
    [4, uint32BigEndian(key.type)],
    [5, uint32BigEndian(key.bytes)],
  ];
  if (options.value !== undefined) {
    const value = fieldOf(options.value, family);
    attributes.push([6, uint32BigEndian(value.type)], [7, uint32BigEndian(value.bytes)]);
  }
  attributes.push([10, uint32BigEndian(id)]);
  return tableMessage(`add set ${options.name}`, commands.newSet, netlinkFlags.create, attributes, family);
}

/** `value` is the bytes of a value, or the name of the chain to go to. */
export interface SetElement {
  readonly key: Buffer;
  readonly value?: Buffer | string;
}

/** A field of two bytes, padded. */
export function portField(port: number): Buffer {
  return Buffer.concat([uint16BigEndian(port), Buffer.alloc(2)]);
}

export function protocolPortKey(protocolNumber: number, port: number): Buffer {
  return Buffer.concat([uint32(protocolNumber), portField(port)]);
}

/** EEXIST when a key is there with another value. */
export function addElements(
  table: string,
  set: string,
  elements: readonly SetElement[],
  family?: IpFamily,
): NetlinkMessage[] {
  return elementMessages(table, set, elements, 'add', family);
}

/** ENOENT when a key is not there. */
export function deleteElements(
  table: string,
  set: string,
  keys: readonly Buffer[],
  family?: IpFamily,
): NetlinkMessage[] {
  return elementMessages(
    table,
    set,
    keys.map((key) => ({ key })),
    'delete',
    family,
  );
}

function elementMessages(
  table: string,
  set: string,
  elements: readonly SetElement[],
  action: 'add' | 'delete',
  family?: IpFamily,
): NetlinkMessage[] {
  const messages: NetlinkMessage[] = [];
  const command = action === 'add' ? commands.newElement : commands.deleteElement;
  const flags = action === 'add' ? netlinkFlags.create : 0;
  for (let first = 0; first < elements.length; first += ELEMENTS_PER_MESSAGE_MAX) {
    const list = elements.slice(first, first + ELEMENTS_PER_MESSAGE_MAX).map(encodeElement);
    const attributes: Attribute[] = [
      [1, text(table)],
      [2, text(set)],
      [3, list],
    ];
    messages.push(tableMessage(`${action} elements of ${set}`, command, flags, attributes, family));
  }
  return messages;
}

function encodeElement({ key, value }: SetElement): Attribute {
  const attributes: Attribute[] = [[1, [[1, key]]]];
  if (Buffer.isBuffer(value)) attributes.push([2, [[1, value]]]);
  else if (value !== undefined) {
    const verdict: Attribute[] = [
      [1, uint32BigEndian(GOTO)],
      [2, text(value)],
    ];
    attributes.push([2, [[2, verdict]]]);
  }
  return [1, attributes];
}

/** ENOENT when there is no such set. */
export function listElements(table: string, set: string, family?: IpFamily): NetlinkMessage {
  const attributes: Attribute[] = [
    [1, text(table)],
    [2, text(set)],
  ];
  return tableMessage(`list elements of ${set}`, commands.getElement, 0, attributes, family);
}

/** The elements in one reply of `listElements`. */
export function decodeElements(reply: NetlinkReply): SetElement[] {
  const list = decodeAttributes(reply.body, 4).get(3) ?? Buffer.alloc(0);
  return decodeList(list).map((element) => {
    const attributes = decodeAttributes(element);
    const key = decodeAttributes(attributes.get(1) ?? Buffer.alloc(0)).get(1) ?? Buffer.alloc(0);
    const data = attributes.get(2);
    if (data === undefined) return { key };
    const kinds = decodeAttributes(data);
    const verdict = kinds.get(2);
    if (verdict === undefined) return { key, value: kinds.get(1) ?? Buffer.alloc(0) };
    return { key, value: textOf(decodeAttributes(verdict).get(2) ?? Buffer.alloc(0)) };
  });
}

const THIRD_REGISTER = SECOND_REGISTER + 1;

/** The register behind an address that was loaded into this one. */
function behindAddress(family: IpFamily, register = FIRST_REGISTER): number {
  return register + ipFamilies[family].addressBytes / FIELD_BYTES;
}

function lookup(set: string, attributes: readonly Attribute[]): Attribute {
  return expression('lookup', [[1, text(set)], [2, uint32BigEndian(FIRST_REGISTER)], ...attributes]);
}

const LOOKUP_INVERTED = 1;

function isMember(set: string, wanted = true): Attribute {
  return lookup(set, wanted ? [] : [[5, uint32BigEndian(LOOKUP_INVERTED)]]);
}

type Side = 'source' | 'destination';

function loadAddress(side: Side, family: IpFamily, register = FIRST_REGISTER): Attribute {
  return loadPayload(NETWORK_HEADER, addressOffsets[family][side], ipFamilies[family].addressBytes, register);
}

/** The rule ends unless the packet's destination is in the set. */
export function destinationIsIn(set: string, family: IpFamily): Attribute[] {
  return [loadAddress('destination', family), isMember(set)];
}

/** The rule ends unless the pair of the packet's addresses is in the set. */
export function addressesAreIn(set: string, family: IpFamily): Attribute[] {
  return [
    loadAddress('source', family),
    loadAddress('destination', family, behindAddress(family)),
    isMember(set),
  ];
}

/** What the map holds for the packet's source, then for its destination; the rule ends where it holds nothing. */
function loadGroups(map: string, family: IpFamily): Attribute[] {
  const groupOf = (side: Side, register: number): Attribute[] => [
    loadAddress(side, family, register),
    expression('lookup', [
      [1, text(map)],
      [2, uint32BigEndian(register)],
      [3, uint32BigEndian(register)],
    ]),
  ];
  return [...groupOf('source', FIRST_REGISTER), ...groupOf('destination', SECOND_REGISTER)];
}

/** The rule ends unless the pair of the groups that the packet's addresses are in is in the set. */
export function groupsAreIn(map: string, set: string, family: IpFamily): Attribute[] {
  return [...loadGroups(map, family), isMember(set)];
}

/** The same for the groups with the packet's protocol and destination port. */
export function groupsAndPortAreIn(map: string, set: string, family: IpFamily): Attribute[] {
  return [...loadGroups(map, family), ...loadPort(THIRD_REGISTER), isMember(set)];
}

const META_INPUT_NAME = 6;
const META_OUTPUT_NAME = 7;

export function interfaceIsIn(side: 'input' | 'output', set: string, wanted = true): Attribute[] {
  return [loadMeta(side === 'input' ? META_INPUT_NAME : META_OUTPUT_NAME), isMember(set, wanted)];
}

/** Goes to the chain that the map holds for the packet's destination; the rule ends when it holds none. */
export function goByDestination(map: string, family: IpFamily): Attribute[] {
  return [loadAddress('destination', family), lookup(map, [[3, uint32BigEndian(VERDICT_REGISTER)]])];
}

/** Protocol and destination port, as a key's first fields or behind an address. */
function loadPort(register: number): Attribute[] {
  return [
    loadMeta(META_LAYER4_PROTOCOL, register),
    loadPayload(TRANSPORT_HEADER, DESTINATION_PORT_OFFSET, 2, register + 1),
  ];
}

/** Goes to the chain that the map holds for the packet's protocol and port; the rule ends when it holds none. */
export function goByPort(map: string): Attribute[] {
  return [...loadPort(FIRST_REGISTER), lookup(map, [[3, uint32BigEndian(VERDICT_REGISTER)]])];
}

/** The rule ends unless the packet's destination address, protocol and port are in the set. */
export function destinationPortIsIn(set: string, family: IpFamily): Attribute[] {
  return [loadAddress('destination', family), ...loadPort(behindAddress(family)), isMember(set)];
}

const RANDOM = 1;
/** Jenkins, with a seed of its own choice the kernel would hash differently on each node. */
const HASH_SEED = 1;

/** A number below `slots`: a random one, or one that follows from the packet's source address. */
export interface SlotChoice {
  readonly slots: number;
  readonly pick: 'random' | 'client-address';
}

function loadSlot({ slots, pick }: SlotChoice, register: number, family: IpFamily): Attribute[] {
  if (pick === 'random') {
    const random = expression('numgen', [
      [1, uint32BigEndian(register)],
      [2, uint32BigEndian(slots)],
      [3, uint32BigEndian(RANDOM)],
      [4, uint32BigEndian(0)],
    ]);
    return [random];
  }
  const hash = expression('hash', [
    [1, uint32BigEndian(register + 1)],
    [2, uint32BigEndian(register)],
    [3, uint32BigEndian(ipFamilies[family].addressBytes)],
    [4, uint32BigEndian(slots)],
    [5, uint32BigEndian(HASH_SEED)],
    [7, uint32BigEndian(0)],
  ]);
  return [loadAddress('source', family, register + 1), hash];
}

/** DNAT to what the map holds for the packet's destination and a slot. */
export function translateToSlot(map: string, choice: SlotChoice, family: IpFamily): Attribute[] {
  return [
    loadAddress('destination', family),
    ...loadSlot(choice, behindAddress(family), family),
    lookup(map, [[3, uint32BigEndian(FIRST_REGISTER)]]),
    translateDestination(family),
  ];
}

/** DNAT to the address and port that the map holds for the packet's protocol, port and a slot. */
export function translatePortToSlot(map: string, choice: SlotChoice, family: IpFamily): Attribute[] {
  return [
    ...loadPort(FIRST_REGISTER),
    ...loadSlot(choice, THIRD_REGISTER, family),
    lookup(map, [[3, uint32BigEndian(FIRST_REGISTER)]]),
    translateDestinationAndPort(family),
  ];
}

/** DNAT to what the map holds for the packet's protocol and port; the rule ends when it holds nothing. */
export function translateByPort(map: string, family: IpFamily = 'ipv4'): Attribute[] {
  return [
    ...loadPort(FIRST_REGISTER),
    lookup(map, [[3, uint32BigEndian(FIRST_REGISTER)]]),
    translateDestinationAndPort(family),
  ];
}

/** The same for the packet's destination address, protocol and port. */
export function translateByAddressAndPort(map: string, family: IpFamily): Attribute[] {
  return [
    loadAddress('destination', family),
    ...loadPort(behindAddress(family)),
    lookup(map, [[3, uint32BigEndian(FIRST_REGISTER)]]),
    translateDestinationAndPort(family),
  ];
}

/** DNAT to one IPv4 address. */
export function translateTo(address: Buffer): Attribute[] {
  return [
    expression('immediate', [
      [1, uint32BigEndian(FIRST_REGISTER)],
      [2, [[1, address]]],
    ]),
    translateDestination('ipv4'),
  ];
}

function translateDestination(family: IpFamily): Attribute {
  return expression('nat', [
    [1, uint32BigEndian(NAT_DESTINATION)],
    [2, uint32BigEndian(ipFamilies[family].number)],
    [3, uint32BigEndian(FIRST_REGISTER)],
  ]);
}

function translateDestinationAndPort(family: IpFamily): Attribute {
  return expression('nat', [
    [1, uint32BigEndian(NAT_DESTINATION)],
    [2, uint32BigEndian(ipFamilies[family].number)],
    [3, uint32BigEndian(FIRST_REGISTER)],
    [5, uint32BigEndian(behindAddress(family))],
  ]);
}

export function destinationIs(address: Buffer): Attribute[] {
  return [loadAddress('destination', familyOfBytes(address)), compare(COMPARE_EQUAL, address)];
}

export function destinationIsNot(address: Buffer): Attribute[] {
  return [loadAddress('destination', familyOfBytes(address)), compare(COMPARE_UNEQUAL, address)];
}

const LINK_LOCAL = Buffer.from([169, 254]);

/** 169.254.0.0/16: the links between a host and its networks have such addresses. */
export function sourceIsLinkLocal(): Attribute[] {
  return [
    loadPayload(NETWORK_HEADER, addressOffsets.ipv4.source, LINK_LOCAL.length),
    compare(COMPARE_EQUAL, LINK_LOCAL),
  ];
}

/** Of TCP and UDP alike. */
export function destinationPortIs(port: number): Attribute[] {
  return [
    loadPayload(TRANSPORT_HEADER, DESTINATION_PORT_OFFSET, 2),
    compare(COMPARE_EQUAL, uint16BigEndian(port)),
  ];
}

export function protocolIs(number: number): Attribute[] {
  return [loadMeta(META_LAYER4_PROTOCOL), compare(COMPARE_EQUAL, uint8(number))];
}

const rejections = { unreachable: 0, reset: 1 } as const;
/** Codes of ICMP's and ICMPv6's "unreachable". */
const portUnreachable: Readonly<Record<IpFamily, number>> = { ipv4: 3, ipv6: 4 };

/** Answers TCP with a reset, anything else with "port unreachable". `reset` is for TCP only. */
export function reject(how: keyof typeof rejections, family: IpFamily): Attribute[] {
  return [
    expression('reject', [
      [1, uint32BigEndian(rejections[how])],
      [2, uint8(portUnreachable[family])],
    ]),
  ];
}

/** Connection tracking does not look at the packet. */
export function withoutTracking(): Attribute[] {
  return [expression('notrack', [])];
}
