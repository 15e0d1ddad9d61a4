// Connection tracking: forgetting the connections of an address that goes away. Without that, a UDP client that
// keeps sending stays bound to a dead endpoint for as long as it sends.

import { familyOfBytes, type IpFamily } from './ip-family.ts';
import { netfilterFamilies, netfilterMessage, netfilterSubsystems } from './netfilter.ts';
import {
  type Attribute,
  type NetlinkMessage,
  uint8,
  uint16BigEndian,
  uint32,
  uint32BigEndian,
} from './netlink.ts';

const DELETE = 2;
/** With version 0, the kernel would ignore the filter and delete every entry of the family. */
const FILTER_VERSION = 1;

const TUPLE_ORIGINAL = 1;
const TUPLE_REPLY = 2;
const MARK = 8;
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
  /** Of the whole connection, in the bits of `mask`; absent: any. */
  readonly mark?: { readonly value: number; readonly mask: number };
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
    attributes: [
      [isOriginal ? TUPLE_ORIGINAL : TUPLE_REPLY, tuple],
      [
        FILTER,
        [
          [FILTER_ORIGINAL_FIELDS, uint32(isOriginal ? fields : 0)],
          [FILTER_REPLY_FIELDS, uint32(isOriginal ? 0 : fields)],
        ],
      ],
      ...(match.mark === undefined
        ? []
        : ([
            [MARK, uint32BigEndian(match.mark.value)],
            [MARK_MASK, uint32BigEndian(match.mark.mask)],
          ] as const)),
    ],
  });
}
