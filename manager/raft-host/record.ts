// Records of the log on disk, and how to read them back after any crash. Pure.
//
//   magic u32 | length u32 | index u64 | crc u32 (of length, index and payload) | payload, padded to 8 bytes
//
// A record that ends the last segment and is not whole is a torn write: it was never acknowledged and is dropped.
// A broken record with a whole one behind it is bit rot: the log refuses to open.

import { crc32 } from 'node:zlib';
import { assert } from '../../core/assert.ts';

const MAGIC = 0x54_53_57_31; // "TSW1"
const HEADER_BYTES = 20;
const ALIGNMENT = 8;
/** Longer payloads cannot be meant. */
export const RECORD_BYTES_MAX = 64 * 2 ** 20;

export interface LogRecord {
  readonly index: number;
  readonly payload: Buffer;
}

export interface ScanResult {
  readonly records: readonly LogRecord[];
  /** Bytes from the start that are whole records. */
  readonly validBytes: number;
  /** Where a broken record has whole ones behind it. */
  readonly corruptAt?: number;
}

export function encodeRecord(index: number, payload: Uint8Array): Buffer {
  assert(payload.length <= RECORD_BYTES_MAX, `a record of ${payload.length} bytes`);
  const size = recordBytes(payload.length);
  const record = Buffer.alloc(size);
  record.writeUInt32LE(MAGIC, 0);
  record.writeUInt32LE(payload.length, 4);
  record.writeBigUInt64LE(BigInt(index), 8);
  record.set(payload, HEADER_BYTES);
  record.writeUInt32LE(checksum(record, payload.length), 16);
  return record;
}

/** Reads records until the first that is not whole. */
export function scanRecords(bytes: Buffer): ScanResult {
  const records: LogRecord[] = [];
  let offset = 0;
  for (;;) {
    const record = readRecord(bytes, offset);
    if (record === undefined) break;
    records.push(record);
    offset += recordBytes(record.payload.length);
  }
  const isCorrupt = hasRecordBehind(bytes, offset);
  return { records, validBytes: offset, ...(isCorrupt ? { corruptAt: offset } : undefined) };
}

function recordBytes(payloadLength: number): number {
  return Math.ceil((HEADER_BYTES + payloadLength) / ALIGNMENT) * ALIGNMENT;
}

function checksum(record: Buffer, payloadLength: number): number {
  const head = crc32(record.subarray(4, 16));
  return crc32(record.subarray(HEADER_BYTES, HEADER_BYTES + payloadLength), head);
}

function readRecord(bytes: Buffer, offset: number): LogRecord | undefined {
  if (offset + HEADER_BYTES > bytes.length || bytes.readUInt32LE(offset) !== MAGIC) return undefined;
  const length = bytes.readUInt32LE(offset + 4);
  if (length > RECORD_BYTES_MAX || offset + recordBytes(length) > bytes.length) return undefined;
  const record = bytes.subarray(offset, offset + recordBytes(length));
  if (record.readUInt32LE(16) !== checksum(record, length)) return undefined;
  return {
    index: Number(record.readBigUInt64LE(8)),
    payload: record.subarray(HEADER_BYTES, HEADER_BYTES + length),
  };
}

function hasRecordBehind(bytes: Buffer, offset: number): boolean {
  for (let next = offset + ALIGNMENT; next + HEADER_BYTES <= bytes.length; next += ALIGNMENT)
    if (readRecord(bytes, next) !== undefined) return true;
  return false;
}
