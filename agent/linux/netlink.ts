// The wire format that all netlink families share: a header, a family's fixed part, then a tree of attributes.
// Builders are pure: a message is a value, and the socket gives it a sequence number when it sends it.
// Numbers are little-endian, as on every machine that the project runs on; families say where they differ.

import { assert } from '../../core/assert.ts';

export interface NetlinkMessage {
  /** What it does, for error messages: "add route". */
  readonly what: string;
  readonly type: number;
  readonly flags: number;
  /** The family's fixed part and the attributes. */
  readonly body: Buffer;
}

/** A received message; `flags` as in the header. */
export interface NetlinkReply {
  readonly type: number;
  readonly flags: number;
  readonly sequence: number;
  readonly body: Buffer;
}

export type Attribute = readonly [type: number, value: Buffer | readonly Attribute[]];

export const netlinkFlags = {
  request: 0x1,
  ack: 0x4,
  /** Of an answer to a failed request: its body ends after the header of the request. */
  capped: 0x100,
  /** Of an answer that carries the kernel's sentence about what is wrong. */
  hasExtendedAck: 0x200,
  replace: 0x100,
  exclusive: 0x200,
  dump: 0x300,
  create: 0x400,
  append: 0x800,
} as const;

export const netlinkTypes = { error: 2, done: 3 } as const;

const MESSAGE_HEADER_BYTES = 16;
const ATTRIBUTE_HEADER_BYTES = 4;
/** Of an attribute's type: its value is attributes. */
export const NESTED = 0x8000;
const ATTRIBUTE_TYPE_MASK = 0x3fff;
/** The length field of an attribute has 16 bits. */
const ATTRIBUTE_BYTES_MAX = 0xffff;

export function uint8(value: number): Buffer {
  return Buffer.from([value]);
}

export function uint16(value: number): Buffer {
  const buffer = Buffer.alloc(2);
  buffer.writeUInt16LE(value);
  return buffer;
}

export function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value >>> 0);
  return bytes;
}

export function uint16BigEndian(value: number): Buffer {
  const bytes = Buffer.alloc(2);
  bytes.writeUInt16BE(value);
  return bytes;
}

export function uint32BigEndian(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value >>> 0);
  return bytes;
}

/** A string with the zero that ends it. */
export function text(value: string): Buffer {
  return Buffer.from(`${value}\0`);
}

/** The text of an attribute, without the zero that ends it. */
export function textOf(bytes: Buffer): string {
  const end = bytes.indexOf(0);
  return bytes.toString('utf8', 0, end < 0 ? bytes.length : end);
}

/** Attributes and messages start at multiples of four bytes. */
function aligned(length: number): number {
  return (length + 3) & ~3;
}

export function encodeAttributes(attributes: readonly Attribute[]): Buffer {
  const bytes = Buffer.alloc(encodedBytes(attributes));
  writeAttributes(bytes, 0, attributes);
  return bytes;
}

function encodedBytes(attributes: readonly Attribute[]): number {
  let total = 0;
  for (const [, value] of attributes)
    total += ATTRIBUTE_HEADER_BYTES + aligned(Buffer.isBuffer(value) ? value.length : encodedBytes(value));
  return total;
}

/** Returns where the next one goes. */
function writeAttributes(bytes: Buffer, start: number, attributes: readonly Attribute[]): number {
  let position = start;
  for (const [type, value] of attributes) {
    const header = position;
    const data = position + ATTRIBUTE_HEADER_BYTES;
    const nested = !Buffer.isBuffer(value);
    const end = nested ? writeAttributes(bytes, data, value) : data + value.copy(bytes, data);
    const length = end - header;
    assert(length <= ATTRIBUTE_BYTES_MAX, `netlink attribute ${type} has ${length} bytes`);
    bytes.writeUInt16LE(length, header);
    bytes.writeUInt16LE(nested ? type | NESTED : type, header + 2);
    position = header + aligned(length);
  }
  return position;
}

/** The attributes from `offset` on, by type; the last of a type wins. */
export function decodeAttributes(bytes: Buffer, offset = 0): Map<number, Buffer> {
  const attributes = new Map<number, Buffer>();
  let position = offset;
  while (position + ATTRIBUTE_HEADER_BYTES <= bytes.length) {
    const length = bytes.readUInt16LE(position);
    if (length < ATTRIBUTE_HEADER_BYTES) break;
    const type = bytes.readUInt16LE(position + 2) & ATTRIBUTE_TYPE_MASK;
    attributes.set(type, bytes.subarray(position + ATTRIBUTE_HEADER_BYTES, position + length));
    position += aligned(length);
  }
  return attributes;
}

/** One attribute from `offset` on, for where there are too many messages to decode all of each. */
export function findAttribute(bytes: Buffer, wanted: number, offset = 0): Buffer | undefined {
  for (let position = offset; position + ATTRIBUTE_HEADER_BYTES <= bytes.length; ) {
    const length = bytes.readUInt16LE(position);
    if (length < ATTRIBUTE_HEADER_BYTES) return undefined;
    if ((bytes.readUInt16LE(position + 2) & ATTRIBUTE_TYPE_MASK) === wanted)
      return bytes.subarray(position + ATTRIBUTE_HEADER_BYTES, position + length);
    position += aligned(length);
  }
  return undefined;
}

/** The values of a list, whose attributes all have the same type. */
export function decodeList(bytes: Buffer): Buffer[] {
  const values: Buffer[] = [];
  let position = 0;
  while (position + ATTRIBUTE_HEADER_BYTES <= bytes.length) {
    const length = bytes.readUInt16LE(position);
    if (length < ATTRIBUTE_HEADER_BYTES) break;
    values.push(bytes.subarray(position + ATTRIBUTE_HEADER_BYTES, position + length));
    position += aligned(length);
  }
  return values;
}

export function encodeMessage(message: NetlinkMessage, sequence: number, flags = 0): Buffer {
  const length = MESSAGE_HEADER_BYTES + message.body.length;
  const bytes = Buffer.alloc(aligned(length));
  bytes.writeUInt32LE(length, 0);
  bytes.writeUInt16LE(message.type, 4);
  bytes.writeUInt16LE(message.flags | netlinkFlags.request | flags, 6);
  bytes.writeUInt32LE(sequence, 8);
  message.body.copy(bytes, MESSAGE_HEADER_BYTES);
  return bytes;
}

/** The messages of one datagram. Their bodies share its memory. */
export function decodeMessages(datagram: Buffer): NetlinkReply[] {
  const messages: NetlinkReply[] = [];
  let position = 0;
  while (position + MESSAGE_HEADER_BYTES <= datagram.length) {
    const length = datagram.readUInt32LE(position);
    if (length < MESSAGE_HEADER_BYTES) break;
    messages.push({
      type: datagram.readUInt16LE(position + 4),
      flags: datagram.readUInt16LE(position + 6),
      sequence: datagram.readUInt32LE(position + 8),
      body: datagram.subarray(position + MESSAGE_HEADER_BYTES, position + length),
    });
    position += aligned(length);
  }
  return messages;
}

const EXTENDED_ACK_MESSAGE = 1;

/** What an error message says: errno 0 is an acknowledgement. */
export function decodeError(reply: NetlinkReply): { errno: number; explanation: string } {
  const errno = Math.abs(reply.body.readInt32LE(0));
  if ((reply.flags & netlinkFlags.hasExtendedAck) === 0) return { errno, explanation: '' };
  const capped = errno === 0 || (reply.flags & netlinkFlags.capped) !== 0;
  const requestBytes = capped ? MESSAGE_HEADER_BYTES : aligned(reply.body.readUInt32LE(4));
  const explanation = decodeAttributes(reply.body, 4 + requestBytes).get(EXTENDED_ACK_MESSAGE);
  return { errno, explanation: explanation === undefined ? '' : textOf(explanation) };
}
