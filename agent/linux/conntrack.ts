// Connection tracking: forgetting the connections of an address that goes away. Without that, a UDP client that
// keeps sending stays bound to a dead endpoint for as long as it sends. A deletion by a filter makes the kernel look at all
// connections, that of one connection is a look-up.

import { familyOfBytes, type IpFamily } from './ip-family.ts';
import {
  NETFILTER_HEADER_BYTES,
  netfilterFamilies,
  netfilterMessage,
  netfilterSubsystems,
} from './netfilter.ts';
import {
  type Attribute,
  decodeAttributes,
  findAttribute,
  NESTED,
  type NetlinkMessage,
  uint8,
  uint16BigEndian,
  uint32,
  uint32BigEndian,
} from './netlink.ts';

/** Without the flag to create, it changes one that is there. */
const NEW = 0;
const GET = 1;
const DELETE = 2;
/** With version 0, the kernel would ignore the filter and delete every entry of the family. */
const FILTER_VERSION = 1;

const TUPLE_ORIGINAL = 1;
const TUPLE_REPLY = 2;
const MARK = 8;
const ID = 12;
const ZONE = 18;
const MARK_MASK = 21;
const FILTER = 25;
const FILTER_ORIGINAL_FIELDS = 1;
const FILTER_REPLY_FIELDS = 2;

const TUPLE_IP = 1;
const TUPLE_PROTOCOL = 2;
const ipSources: Readonly<Record<IpFamily, number>> = { ipv4: 1, ipv6: 3 };
const PROTOCOL_NUMBER = 1;
const PROTOCOL_SOURCE_PORT = 2;
const PROTOCOL_DESTINATION_PORT = 3;

const filterFields = {
  source: 1 << 0,
  protocolNumber: 1 << 3,
  sourcePort: 1 << 4,
  destinationPort: 1 << 5,
} as const;

/** Fields of one direction of a connection; those absent match anything. Ports need the protocol's number. */
export interface ConnectionMatch {
  /** Where `source` does not tell it; IPv4 when absent. */
  readonly family?: IpFamily;
  readonly source?: Buffer;
  readonly protocolNumber?: number;
  readonly sourcePort?: number;
  readonly destinationPort?: number;
}

/** Those bits of a connection's mark that `mask` has. */
export interface ConnectionMark {
  readonly value: number;
  readonly mask: number;
}

/** What tells a connection that was listed from all others. */
export interface TrackedConnection {
  readonly family: number;
  readonly original: Buffer;
  /** Absent when it is none. */
  readonly zone: Buffer | undefined;
  readonly id: Buffer;
}

/** Forgets the connections that match in the given direction. None is fine. */
export function deleteConnections(direction: 'original' | 'reply', match: ConnectionMatch): NetlinkMessage {
  const isOriginal = direction === 'original';
  const family = match.source === undefined ? (match.family ?? 'ipv4') : familyOfBytes(match.source);
  let fields = 0;
  const tuple: Attribute[] = [];
  if (match.source !== undefined) {
    fields |= filterFields.source;
    tuple.push([TUPLE_IP, [[ipSources[family], match.source]]]);
  }
  if (match.protocolNumber !== undefined) {
    fields |= filterFields.protocolNumber;
    const protocol: Attribute[] = [[PROTOCOL_NUMBER, uint8(match.protocolNumber)]];
    if (match.sourcePort !== undefined) {
      fields |= filterFields.sourcePort;
      protocol.push([PROTOCOL_SOURCE_PORT, uint16BigEndian(match.sourcePort)]);
    }
    if (match.destinationPort !== undefined) {
      fields |= filterFields.destinationPort;
      protocol.push([PROTOCOL_DESTINATION_PORT, uint16BigEndian(match.destinationPort)]);
    }
    tuple.push([TUPLE_PROTOCOL, protocol]);
  }
  return netfilterMessage({
    what: 'forget connections',
    subsystem: netfilterSubsystems.connectionTracking,
    command: DELETE,
    family: netfilterFamilies[family],
    version: FILTER_VERSION,
    attributes: [[isOriginal ? TUPLE_ORIGINAL : TUPLE_REPLY, tuple], filterAttribute(direction, fields)],
  });
}

/** All connections of a family and a protocol, by number, that have this mark. */
export function listConnections(
  family: IpFamily,
  protocolNumber: number,
  mark: ConnectionMark,
): NetlinkMessage {
  return netfilterMessage({
    what: 'list connections',
    subsystem: netfilterSubsystems.connectionTracking,
    command: GET,
    family: netfilterFamilies[family],
    attributes: [
      [TUPLE_ORIGINAL, [[TUPLE_PROTOCOL, [[PROTOCOL_NUMBER, uint8(protocolNumber)]]]]],
      filterAttribute('original', filterFields.protocolNumber),
      ...markAttributes(mark),
    ],
  });
}

/** Where a connection's answers come from: the backend, when its destination is translated. */
export function replySourceOf(body: Buffer): Buffer {
  const reply = findAttribute(body, TUPLE_REPLY, NETFILTER_HEADER_BYTES)!;
  const addresses = findAttribute(reply, TUPLE_IP)!;
  return (findAttribute(addresses, ipSources.ipv4) ?? findAttribute(addresses, ipSources.ipv6))!;
}

/** Shares the memory of `body`. */
export function decodeConnection(body: Buffer): TrackedConnection {
  const attributes = decodeAttributes(body, NETFILTER_HEADER_BYTES);
  return {
    family: body[0]!,
    original: attributes.get(TUPLE_ORIGINAL)!,
    zone: attributes.get(ZONE),
    id: attributes.get(ID)!,
  };
}

/** The answer is as listed. ENOENT when it has ended; another one may have its addresses and ports. */
export function askForConnection(connection: TrackedConnection): NetlinkMessage {
  return netfilterMessage({
    what: 'ask for a connection',
    subsystem: netfilterSubsystems.connectionTracking,
    command: GET,
    family: connection.family,
    attributes: keyAttributes(connection),
  });
}

/** Changes the bits of the mark that `mask` has. ENOENT when the connection has ended. */
export function changeMark(connection: TrackedConnection, mark: ConnectionMark): NetlinkMessage {
  return netfilterMessage({
    what: 'mark a connection',
    subsystem: netfilterSubsystems.connectionTracking,
    command: NEW,
    family: connection.family,
    attributes: [...keyAttributes(connection), ...markAttributes(mark)],
  });
}

/** Forgets this one. ENOENT when it has ended, also when another one has its addresses and ports now. */
export function deleteConnection(connection: TrackedConnection): NetlinkMessage {
  return netfilterMessage({
    what: 'forget a connection',
    subsystem: netfilterSubsystems.connectionTracking,
    command: DELETE,
    family: connection.family,
    attributes: [...keyAttributes(connection), [ID, connection.id]],
  });
}

/** Forgets the connections that have this mark. None is fine. */
export function deleteMarked(mark: ConnectionMark): NetlinkMessage {
  return netfilterMessage({
    what: 'forget marked connections',
    subsystem: netfilterSubsystems.connectionTracking,
    command: DELETE,
    family: netfilterFamilies.any,
    version: FILTER_VERSION,
    attributes: markAttributes(mark),
  });
}

/** Which fields of the tuple of a direction count. */
function filterAttribute(direction: 'original' | 'reply', fields: number): Attribute {
  const isOriginal = direction === 'original';
  return [
    FILTER,
    [
      [FILTER_ORIGINAL_FIELDS, uint32(isOriginal ? fields : 0)],
      [FILTER_REPLY_FIELDS, uint32(isOriginal ? 0 : fields)],
    ],
  ];
}

function keyAttributes({ original, zone }: TrackedConnection): Attribute[] {
  return [[TUPLE_ORIGINAL | NESTED, original], ...(zone === undefined ? [] : [[ZONE, zone] as const])];
}

function markAttributes({ value, mask }: ConnectionMark): Attribute[] {
  return [
    [MARK, uint32BigEndian(value)],
    [MARK_MASK, uint32BigEndian(mask)],
  ];
}
