// nf_tables: expressions that tell apart connections by the machine that they came from, and send its answers there. A
// mark is the last four bytes of the machine's MAC address, as they are in the header, a zone the last two.

import { type Attribute, uint8, uint32, uint32BigEndian } from './netlink.ts';
import {
  COMPARE_EQUAL,
  COMPARE_UNEQUAL,
  compare,
  connectionBits,
  expression,
  FIRST_REGISTER,
  LINK_HEADER,
  loadMeta,
  loadPayload,
} from './nftables.ts';

const META_MARK = 3;
const CONNECTION_DIRECTION = 1;
const CONNECTION_MARK = 3;
const CONNECTION_ZONE = 17;
const directions = { original: 0, reply: 1 } as const;
const MAC_MARK_BYTES = 4;
const MAC_ZONE_BYTES = 2;
/** Behind the first two bytes of the destination's address, and of the source's. */
const DESTINATION_MARK_OFFSET = 2;
const SOURCE_MARK_OFFSET = 8;
const SOURCE_ZONE_OFFSET = 10;
const NO_CHECKSUM = 0;

/** Which way the packet goes, seen from who began the connection. Errors about a connection's packets count as well. */
export function directionIs(direction: keyof typeof directions): Attribute[] {
  return [
    expression('ct', [
      [1, uint32BigEndian(FIRST_REGISTER)],
      [2, uint32BigEndian(CONNECTION_DIRECTION)],
    ]),
    compare(COMPARE_EQUAL, uint8(directions[direction])),
  ];
}

/** The connection gets the mark of the machine that the packet comes from. */
export function markConnectionBySourceMac(): Attribute[] {
  return [
    loadPayload(LINK_HEADER, SOURCE_MARK_OFFSET, MAC_MARK_BYTES),
    expression('ct', [
      [2, uint32BigEndian(CONNECTION_MARK)],
      [4, uint32BigEndian(FIRST_REGISTER)],
    ]),
  ];
}

/** The connection has this mark, as a number. */
export function connectionMarkIs(mark: number): Attribute[] {
  return [loadConnectionMark(), compare(COMPARE_EQUAL, uint32(mark))];
}

/** The connection's mark has any of these bits. */
export function connectionMarkHas(bits: number): Attribute[] {
  return connectionBits(CONNECTION_MARK, bits, true);
}

/** Gives the connection this mark, a number. */
export function markConnection(mark: number): Attribute[] {
  return [
    loadNumber(mark),
    expression('ct', [
      [2, uint32BigEndian(CONNECTION_MARK)],
      [4, uint32BigEndian(FIRST_REGISTER)],
    ]),
  ];
}

/**
 * Before connection tracking: what comes from different machines is never the same connection. Answers have no zone, so
 * when two connections differ in nothing else, one gets another source port.
 */
export function zoneBySourceMac(): Attribute[] {
  return [
    loadPayload(LINK_HEADER, SOURCE_ZONE_OFFSET, MAC_ZONE_BYTES),
    expression('ct', [
      [2, uint32BigEndian(CONNECTION_ZONE)],
      [3, uint8(directions.original)],
      [4, uint32BigEndian(FIRST_REGISTER)],
    ]),
  ];
}

/** The packet gets its connection's mark. */
export function markAsConnection(): Attribute[] {
  return [loadConnectionMark(), setMark()];
}

/** On its way out of a link: a packet with a mark goes to the machine of the mark, without it. */
export function sendToMarkedMac(): Attribute[] {
  return [
    loadMeta(META_MARK),
    compare(COMPARE_UNEQUAL, uint32(0)),
    expression('payload', [
      [2, uint32BigEndian(LINK_HEADER)],
      [3, uint32BigEndian(DESTINATION_MARK_OFFSET)],
      [4, uint32BigEndian(MAC_MARK_BYTES)],
      [5, uint32BigEndian(FIRST_REGISTER)],
      [6, uint32BigEndian(NO_CHECKSUM)],
      [7, uint32BigEndian(0)],
    ]),
    // The tunnel would look its own route up by the mark, in the host's rules.
    loadNumber(0),
    setMark(),
  ];
}

function loadConnectionMark(): Attribute {
  return expression('ct', [
    [1, uint32BigEndian(FIRST_REGISTER)],
    [2, uint32BigEndian(CONNECTION_MARK)],
  ]);
}

function loadNumber(value: number): Attribute {
  return expression('immediate', [
    [1, uint32BigEndian(FIRST_REGISTER)],
    [2, [[1, uint32(value)]]],
  ]);
}

function setMark(): Attribute {
  return expression('meta', [
    [2, uint32BigEndian(META_MARK)],
    [3, uint32BigEndian(FIRST_REGISTER)],
  ]);
}
