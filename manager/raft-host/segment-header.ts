// The first sector of a segment: whose it is, where it stands in the log, and where the segment before it ends. Pure.

import { crc32 } from 'node:zlib';
import { assert } from '../../core/assert.ts';
import { SwarmError } from '../../core/errors.ts';
import { type DataKey, damaged, nonceOf, SALT_BYTES, seal, TAG_BYTES, unseal } from './data-key.ts';

const MAGIC = Buffer.from('TSWARMLG');
const FORMAT_VERSION = 1;
/** One sector: a disk writes it whole or not at all. */
export const SEGMENT_HEADER_BYTES = 512;
const CLUSTER_ID_START = 92;
const CLUSTER_ID_BYTES_MAX = 128;
const CRC_START = SEGMENT_HEADER_BYTES - TAG_BYTES - 4;
const TAG_START = SEGMENT_HEADER_BYTES - TAG_BYTES;
const HEADER_COUNTER = 0;
const SEGMENT_NAME = /^log-(\d{16})\.seg$/;

export interface LogMember {
  readonly clusterId: string;
  /** One incarnation of a manager. */
  readonly memberId: number;
}

export interface SegmentHeader {
  readonly member: LogMember;
  readonly keyId: number;
  readonly salt: Buffer;
  readonly sequence: number;
  /** The index after the last one of the segments before, and the term of that last one. */
  readonly firstIndex: number;
  readonly previousTerm: number;
  /** The first block's sequence and chain. */
  readonly firstBlock: number;
  readonly chain: Buffer;
  /** Where the blocks of the segment before end; what follows there is no part of the log. */
  readonly previousEnd: number;
  /** The file was this long, and zero, before it became a segment. */
  readonly capacity: number;
}

export function segmentName(sequence: number): string {
  return `log-${String(sequence).padStart(16, '0')}.seg`;
}

/** The sequence of the segment of this name; undefined when it is the name of something else. */
export function segmentSequence(name: string): number | undefined {
  const digits = SEGMENT_NAME.exec(name)?.[1];
  return digits === undefined ? undefined : Number(digits);
}

export function encodeSegmentHeader(header: SegmentHeader, key: DataKey): Buffer {
  const clusterId = Buffer.from(header.member.clusterId);
  assert(clusterId.length <= CLUSTER_ID_BYTES_MAX, 'the id of the cluster is too long');
  assert(header.salt.length === SALT_BYTES && header.keyId === key.id, 'another key');
  const bytes = Buffer.alloc(SEGMENT_HEADER_BYTES);
  bytes.set(MAGIC);
  bytes.writeUInt32LE(FORMAT_VERSION, 8);
  bytes.writeUInt32LE(header.keyId, 12);
  bytes.set(header.salt, 16);
  bytes.writeBigUInt64LE(BigInt(header.sequence), 24);
  bytes.writeBigUInt64LE(BigInt(header.member.memberId), 32);
  bytes.writeBigUInt64LE(BigInt(header.firstIndex), 40);
  bytes.writeBigUInt64LE(BigInt(header.previousTerm), 48);
  bytes.writeBigUInt64LE(BigInt(header.firstBlock), 56);
  bytes.writeBigUInt64LE(BigInt(header.previousEnd), 64);
  bytes.set(header.chain, 72);
  bytes.writeBigUInt64LE(BigInt(header.capacity), 80);
  bytes.writeUInt32LE(clusterId.length, 88);
  bytes.set(clusterId, CLUSTER_ID_START);
  bytes.writeUInt32LE(crc32(bytes.subarray(0, CRC_START)), CRC_START);
  const nonce = nonceOf(header.salt, HEADER_COUNTER);
  bytes.set(seal(key.secret, nonce, bytes.subarray(0, TAG_START), Buffer.alloc(0)).tag, TAG_START);
  return bytes;
}

/** Throws what is wrong with it, in words for the operator. */
export function decodeSegmentHeader(name: string, bytes: Buffer, keys: readonly DataKey[]): SegmentHeader {
  if (bytes.length < SEGMENT_HEADER_BYTES || !bytes.subarray(0, MAGIC.length).equals(MAGIC))
    throw damaged(name, 0, 'it does not begin as a segment of the log does');
  if (bytes.readUInt32LE(CRC_START) !== crc32(bytes.subarray(0, CRC_START)))
    throw damaged(name, 0, 'the checksum of its header does not fit');
  checkVersion(name, bytes.readUInt32LE(8));
  const number = (offset: number) => Number(bytes.readBigUInt64LE(offset));
  const clusterIdEnd = CLUSTER_ID_START + bytes.readUInt32LE(88);
  const header: SegmentHeader = {
    member: { clusterId: bytes.toString('utf8', CLUSTER_ID_START, clusterIdEnd), memberId: number(32) },
    keyId: bytes.readUInt32LE(12),
    salt: Buffer.from(bytes.subarray(16, 16 + SALT_BYTES)),
    sequence: number(24),
    firstIndex: number(40),
    previousTerm: number(48),
    firstBlock: number(56),
    previousEnd: number(64),
    chain: Buffer.from(bytes.subarray(72, 80)),
    capacity: number(80),
  };
  const key = keyOf(name, header.keyId, keys);
  const sealed = { ciphertext: Buffer.alloc(0), tag: bytes.subarray(TAG_START, SEGMENT_HEADER_BYTES) };
  const nonce = nonceOf(header.salt, HEADER_COUNTER);
  if (unseal(key.secret, nonce, bytes.subarray(0, TAG_START), sealed) === undefined)
    throw damaged(name, TAG_START, 'it was written with another key than the key file holds');
  return header;
}

export function checkVersion(name: string, version: number): void {
  if (version === FORMAT_VERSION) return;
  throw new SwarmError('failed-precondition', `${name} has format ${version}, this version reads 1`, {
    hint: 'Start the version of tsswarm that wrote it, or a newer one.',
  });
}

export function keyOf(name: string, keyId: number, keys: readonly DataKey[]): DataKey {
  const key = keys.find(({ id }) => id === keyId);
  if (key === undefined) throw damaged(name, 12, `the key file holds no key ${keyId}`);
  return key;
}
