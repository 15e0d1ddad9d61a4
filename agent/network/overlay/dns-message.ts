// DNS messages (RFC 1035, RFC 6891), as far as a server of addresses needs them: one question in, its answer out. Written by
// hand because it answers half as many questions again per second as the common library.

import { type IpFamily, ipFamilies } from '../../linux/ip-family.ts';

export const recordTypes = { a: 1, ptr: 12, aaaa: 28, opt: 41, any: 255 } as const;

export const responseCodes = {
  ok: 0,
  formatError: 1,
  serverFailure: 2,
  noSuchName: 3,
  notImplemented: 4,
  refused: 5,
} as const;

export interface Question {
  /** Lower case, without the dot at its end. */
  readonly name: string;
  readonly type: number;
  readonly class: number;
  readonly opcode: number;
  /** Where the question ends. */
  readonly end: number;
  /** What the client takes by UDP; undefined when it did not say (no EDNS). */
  readonly udpBytesMax: number | undefined;
}

export const CLASS_IN = 1;
const HEADER_BYTES = 12;
const LABEL_BYTES_MAX = 63;
const NAME_BYTES_MAX = 255;
const OPT_BYTES = 11;
/** The first record behind the question points there for its name. */
const POINTER_TO_QUESTION = 0xc000 | HEADER_BYTES;
/** What fits an Ethernet frame with some tunnels around it: dnsflagday.net/2020. */
const EDNS_BYTES_MAX = 1232;
const UDP_BYTES_MAX = 512;
const TCP_BYTES_MAX = 0xffff;
const RESPONSE = 0x80;
const AUTHORITATIVE = 0x04;
const TRUNCATED = 0x02;
const RECURSION_DESIRED = 0x01;
const RECURSION_AVAILABLE = 0x80;

/** undefined for what is not to be answered at all; 'format-error' for what has no single, plain question. */
export function parseQuestion(message: Buffer): Question | 'format-error' | undefined {
  if (message.length < HEADER_BYTES || (message[2]! & RESPONSE) !== 0) return undefined;
  if (message.readUInt16BE(4) !== 1) return 'format-error';
  let position = HEADER_BYTES;
  let name = '';
  for (let length = message[position]; length !== 0; length = message[position]) {
    const end = position + 1 + (length ?? 0);
    if (length === undefined || length > LABEL_BYTES_MAX || end - HEADER_BYTES > NAME_BYTES_MAX) {
      return 'format-error';
    }
    name += (name === '' ? '' : '.') + message.toString('latin1', position + 1, end);
    position = end;
  }
  const end = position + 5;
  if (end > message.length) return 'format-error';
  return {
    name: name.toLowerCase(),
    type: message.readUInt16BE(position + 1),
    class: message.readUInt16BE(position + 3),
    opcode: (message[2]! >> 3) & 0xf,
    end,
    udpBytesMax: udpBytesMax(message, end),
  };
}

/** Of the OPT record, which clients put right behind the question. */
function udpBytesMax(message: Buffer, end: number): number | undefined {
  const hasOpt =
    message.readUInt16BE(10) > 0 &&
    end + OPT_BYTES <= message.length &&
    message[end] === 0 &&
    message.readUInt16BE(end + 1) === recordTypes.opt;
  if (!hasOpt) return undefined;
  return Math.min(Math.max(message.readUInt16BE(end + 3), UDP_BYTES_MAX), EDNS_BYTES_MAX);
}

export interface Answer {
  readonly code: number;
  /** What this server knows itself, as opposed to a failure to find out. */
  readonly isAuthoritative?: boolean;
  /** One after another. */
  readonly addresses?: Buffer;
  /** Of the addresses; IPv4 when absent. */
  readonly family?: IpFamily;
  /** The first of them in the answer. */
  readonly first?: number;
  /** Of a PTR question. */
  readonly target?: string;
  readonly ttlSeconds?: number;
}

const RECORD_HEADER_BYTES = 12;
const addressTypes: Readonly<Record<IpFamily, number>> = { ipv4: recordTypes.a, ipv6: recordTypes.aaaa };

/** As many addresses as fit; the rest is there by TCP. */
export function encodeAnswer(
  query: Buffer,
  question: Question,
  answer: Answer,
  transport: 'udp' | 'tcp',
): Buffer {
  const optBytes = question.udpBytesMax === undefined ? 0 : OPT_BYTES;
  const max = transport === 'tcp' ? TCP_BYTES_MAX : (question.udpBytesMax ?? UDP_BYTES_MAX);
  const target = answer.target === undefined ? undefined : encodeName(answer.target);
  const family = answer.family ?? 'ipv4';
  const { addressBytes } = ipFamilies[family];
  const recordBytes = RECORD_HEADER_BYTES + addressBytes;
  const total = (answer.addresses?.length ?? 0) / addressBytes;
  const room = Math.floor((max - question.end - optBytes) / recordBytes);
  const count = Math.min(total, room);
  const targetBytes = target === undefined ? 0 : RECORD_HEADER_BYTES + target.length;
  const bytes = Buffer.allocUnsafe(question.end + count * recordBytes + targetBytes + optBytes);
  query.copy(bytes, 0, 0, question.end);
  writeHeader(bytes, answer, count + (target === undefined ? 0 : 1), optBytes > 0, count < total);
  let position = question.end;
  const ttl = answer.ttlSeconds ?? 0;
  for (let index = 0; index < count; index++) {
    const source = ((index + (answer.first ?? 0)) % total) * addressBytes;
    writeRecord(bytes, position, addressTypes[family], ttl, addressBytes);
    answer.addresses!.copy(bytes, position + RECORD_HEADER_BYTES, source, source + addressBytes);
    position += recordBytes;
  }
  if (target !== undefined) {
    writeRecord(bytes, position, recordTypes.ptr, ttl, target.length);
    target.copy(bytes, position + RECORD_HEADER_BYTES);
    position += RECORD_HEADER_BYTES + target.length;
  }
  if (optBytes > 0) writeOpt(bytes, position);
  return bytes;
}

/** For a query whose question cannot be read. */
export function encodeFormatError(query: Buffer): Buffer {
  const bytes = Buffer.alloc(HEADER_BYTES);
  query.copy(bytes, 0, 0, 3);
  writeHeader(bytes, { code: responseCodes.formatError }, 0, false, false);
  bytes.writeUInt16BE(0, 4);
  return bytes;
}

function writeHeader(
  bytes: Buffer,
  answer: Answer,
  records: number,
  hasOpt: boolean,
  isTruncated: boolean,
): void {
  const kept = bytes[2]! & (0x78 | RECURSION_DESIRED);
  bytes[2] =
    kept | RESPONSE | (answer.isAuthoritative === true ? AUTHORITATIVE : 0) | (isTruncated ? TRUNCATED : 0);
  bytes[3] = RECURSION_AVAILABLE | answer.code;
  bytes.writeUInt16BE(1, 4);
  bytes.writeUInt16BE(records, 6);
  bytes.writeUInt16BE(0, 8);
  bytes.writeUInt16BE(hasOpt ? 1 : 0, 10);
}

function writeRecord(bytes: Buffer, position: number, type: number, ttl: number, length: number): void {
  bytes.writeUInt16BE(POINTER_TO_QUESTION, position);
  bytes.writeUInt16BE(type, position + 2);
  bytes.writeUInt16BE(CLASS_IN, position + 4);
  bytes.writeUInt32BE(ttl, position + 6);
  bytes.writeUInt16BE(length, position + 10);
}

function writeOpt(bytes: Buffer, position: number): void {
  bytes[position] = 0;
  bytes.writeUInt16BE(recordTypes.opt, position + 1);
  bytes.writeUInt16BE(EDNS_BYTES_MAX, position + 3);
  bytes.writeUInt32BE(0, position + 5);
  bytes.writeUInt16BE(0, position + 9);
}

function encodeName(name: string): Buffer {
  const labels = name.split('.').map((label) => Buffer.from(label, 'latin1').subarray(0, LABEL_BYTES_MAX));
  return Buffer.concat([...labels.flatMap((label) => [Buffer.from([label.length]), label]), Buffer.alloc(1)]);
}
