// Blocks of the log: what one group commit writes. Pure.
//
//   magic u32 | length u32 | sequence u64 | chain 8 | crc u32 of what follows the header | crc u32 of salt and header
//   ciphertext (length bytes, a multiple of 8) | tag 16
//
// `sequence` counts blocks through all segments, `chain` is the beginning of the tag of the block before. No eight
// bytes of a block are all zero, so a sector that was never written shows. Inside are records, then zeros:
//
//   kind u8 | kind of entry u8 | 0 u16 | length u32 | index u64 | term u64 | payload

import { crc32 } from 'node:zlib';
import { assert, defined } from '../../core/assert.ts';
import { type Entry, type EntryKind, entryKindNumbers, type HardState } from '../../proto/generated/raft.ts';
import { type DataKey, nonceOf, seal, TAG_BYTES, unseal } from './data-key.ts';
import { SEGMENT_HEADER_BYTES } from './segment-header.ts';

const MAGIC = 0x4b_4c_42_54; // "TBLK"
export const BLOCK_HEADER_BYTES = 32;
export const CHAIN_BYTES = 8;
export const ALIGNMENT = 8;
const RECORD_HEADER_BYTES = 24;
const HARD_STATE_PAYLOAD_BYTES = 8;
/** Longer blocks cannot be meant: a lower limit than what Node can read at once, a higher one than any message. */
export const BLOCK_BYTES_MAX = 256 * 2 ** 20;
// The work buffer of an idle log.
const BUFFER_BYTES_MIN = 64 * 1024;
// A larger one is given back after its block.
const BUFFER_BYTES_KEPT = 2 * 2 ** 20;

const KIND_END = 0;
const KIND_ENTRY = 1;
const KIND_HARD_STATE = 2;
const KIND_MARK = 3;

const ENTRY_KINDS = Object.fromEntries(
  Object.entries(entryKindNumbers).map(([kind, number]) => [number, kind]),
) as Record<number, EntryKind>;

/** A place in the log: an entry's index and its term. */
export interface LogPosition {
  readonly index: number;
  readonly term: number;
}

export type LogRecord =
  | { readonly kind: 'entry'; readonly entry: Entry }
  | { readonly kind: 'hard-state'; readonly hardState: HardState }
  /** The log restarts after this place: what it held before is gone. */
  | { readonly kind: 'mark'; readonly mark: LogPosition };

/** Where a block stands: with the key, all that its encryption depends on. */
export interface BlockPlace {
  readonly key: DataKey;
  readonly salt: Uint8Array;
  /** Within the segment, from 1. */
  readonly counter: number;
  readonly sequence: number;
  readonly chain: Uint8Array;
}

export interface BlockHeader {
  readonly length: number;
  readonly sequence: number;
  readonly chain: Buffer;
  readonly crc: number;
}

/** Bytes that an entry takes in a block. */
export function entryBytes(entry: Entry): number {
  return RECORD_HEADER_BYTES + entry.payload.length;
}

/** Bytes of a block whose records take `recordBytes`. */
export function blockBytes(recordBytes: number): number {
  return BLOCK_HEADER_BYTES + align(recordBytes) + TAG_BYTES;
}

/** One block in the making. The buffer is used again: what `seal` returns is good until the next `reset`. */
export class BlockBuilder {
  // Room for a segment's header in front, so that both go out in one write.
  #buffer = Buffer.allocUnsafe(BUFFER_BYTES_MIN);
  #end = RECORDS_START;

  get recordBytes(): number {
    return this.#end - RECORDS_START;
  }

  reset(): void {
    if (this.#buffer.length > BUFFER_BYTES_KEPT) this.#buffer = Buffer.allocUnsafe(BUFFER_BYTES_MIN);
    this.#end = RECORDS_START;
  }

  add(record: LogRecord): void {
    if (record.kind === 'entry') this.addEntry(record.entry);
    else if (record.kind === 'hard-state') this.addHardState(record.hardState);
    else this.addMark(record.mark);
  }

  addEntry({ kind, index, term, payload }: Entry): void {
    const start = this.#addHeader(KIND_ENTRY, payload.length, { index, term });
    this.#buffer[start + 1] = entryKindNumbers[kind];
    this.#buffer.set(payload, start + RECORD_HEADER_BYTES);
  }

  addHardState({ term, vote, commit }: HardState): void {
    const start = this.#addHeader(KIND_HARD_STATE, HARD_STATE_PAYLOAD_BYTES, { index: vote, term });
    writeNumber(this.#buffer, commit, start + RECORD_HEADER_BYTES);
  }

  addMark(mark: LogPosition): void {
    this.#addHeader(KIND_MARK, 0, mark);
  }

  /** Encrypts, in place. The block follows `SEGMENT_HEADER_BYTES` that are the caller's to fill or to leave out. */
  seal(place: BlockPlace): { readonly bytes: Buffer; readonly chain: Buffer } {
    const length = align(this.recordBytes);
    const total = RECORDS_START + length + TAG_BYTES;
    assert(blockBytes(length) <= BLOCK_BYTES_MAX, `a block of ${total} bytes`);
    this.#reserve(total - this.#end);
    const buffer = this.#buffer;
    buffer.fill(0, this.#end, RECORDS_START + length);
    const header = buffer.subarray(SEGMENT_HEADER_BYTES, RECORDS_START);
    header.writeUInt32LE(MAGIC, 0);
    header.writeUInt32LE(length, 4);
    writeNumber(header, place.sequence, 8);
    header.set(place.chain, 16);
    const plain = buffer.subarray(RECORDS_START, RECORDS_START + length);
    const nonce = nonceOf(place.salt, place.counter);
    const { ciphertext, tag } = seal(place.key.secret, nonce, header.subarray(0, 24), plain);
    buffer.set(ciphertext, RECORDS_START);
    buffer.set(tag, RECORDS_START + length);
    header.writeUInt32LE(crc32(buffer.subarray(RECORDS_START, total)), 24);
    header.writeUInt32LE(headerCrc(header, place.salt), 28);
    return { bytes: buffer.subarray(0, total), chain: tag.subarray(0, CHAIN_BYTES) };
  }

  #addHeader(kind: number, payloadBytes: number, { index, term }: LogPosition): number {
    this.#reserve(RECORD_HEADER_BYTES + payloadBytes);
    const start = this.#end;
    const buffer = this.#buffer;
    buffer.writeUInt32LE(kind, start);
    buffer.writeUInt32LE(payloadBytes, start + 4);
    writeNumber(buffer, index, start + 8);
    writeNumber(buffer, term, start + 16);
    this.#end += RECORD_HEADER_BYTES + payloadBytes;
    return start;
  }

  #reserve(bytes: number): void {
    if (this.#end + bytes <= this.#buffer.length) return;
    const larger = Buffer.allocUnsafe(Math.max(2 * this.#buffer.length, this.#end + bytes));
    larger.set(this.#buffer.subarray(0, this.#end));
    this.#buffer = larger;
  }
}

const RECORDS_START = SEGMENT_HEADER_BYTES + BLOCK_HEADER_BYTES;

/** The header of a block of the segment with this salt; undefined when these bytes are none. */
export function readBlockHeader(bytes: Buffer, salt: Uint8Array): BlockHeader | undefined {
  if (bytes.length < BLOCK_HEADER_BYTES || bytes.readUInt32LE(0) !== MAGIC) return undefined;
  if (bytes.readUInt32LE(28) !== headerCrc(bytes, salt)) return undefined;
  return {
    length: bytes.readUInt32LE(4),
    sequence: readNumber(bytes, 8),
    chain: Buffer.from(bytes.subarray(16, 16 + CHAIN_BYTES)),
    crc: bytes.readUInt32LE(24),
  };
}

/** True when the bytes after the header are those that were written. */
export function isWholeBlock(header: BlockHeader, block: Buffer): boolean {
  return (
    block.length === blockBytes(header.length) && crc32(block.subarray(BLOCK_HEADER_BYTES)) === header.crc
  );
}

/** The records of a whole block; undefined when it was made with another key, or for another place. */
export function openBlock(block: Buffer, place: BlockPlace): LogRecord[] | undefined {
  const end = block.length - TAG_BYTES;
  const plain = unseal(place.key.secret, nonceOf(place.salt, place.counter), block.subarray(0, 24), {
    ciphertext: block.subarray(BLOCK_HEADER_BYTES, end),
    tag: block.subarray(end),
  });
  return plain && readRecords(plain);
}

/** The beginning of a block's tag: the chain of the next. */
export function chainOf(block: Buffer): Buffer {
  const start = block.length - TAG_BYTES;
  return Buffer.from(block.subarray(start, start + CHAIN_BYTES));
}

function readRecords(plain: Buffer): LogRecord[] {
  const records: LogRecord[] = [];
  let offset = 0;
  while (offset + RECORD_HEADER_BYTES <= plain.length && plain[offset] !== KIND_END) {
    const end = offset + RECORD_HEADER_BYTES + plain.readUInt32LE(offset + 4);
    // The tag fits: whoever wrote this wrote it wrongly.
    assert(end <= plain.length, 'a record longer than its block');
    records.push(readRecord(plain.subarray(offset, end)));
    offset = end;
  }
  return records;
}

function readRecord(record: Buffer): LogRecord {
  const index = readNumber(record, 8);
  const term = readNumber(record, 16);
  const payload = record.subarray(RECORD_HEADER_BYTES);
  if (record[0] === KIND_ENTRY) {
    const kind = defined(ENTRY_KINDS[record[1] ?? 0], 'an entry of no known kind');
    return { kind: 'entry', entry: { term, index, kind, payload } };
  }
  if (record[0] === KIND_HARD_STATE)
    return { kind: 'hard-state', hardState: { term, vote: index, commit: readNumber(payload, 0) } };
  assert(record[0] === KIND_MARK, `a record of kind ${record[0]}`);
  return { kind: 'mark', mark: { index, term } };
}

function headerCrc(header: Uint8Array, salt: Uint8Array): number {
  return crc32(header.subarray(0, 28), crc32(salt));
}

function align(bytes: number): number {
  return Math.ceil(bytes / ALIGNMENT) * ALIGNMENT;
}

function writeNumber(buffer: Buffer, value: number, offset: number): void {
  assert(Number.isSafeInteger(value) && value >= 0, () => `${value} is no index, term or id`);
  buffer.writeUInt32LE(value >>> 0, offset);
  buffer.writeUInt32LE(Math.floor(value / 2 ** 32), offset + 4);
}

function readNumber(buffer: Buffer, offset: number): number {
  return buffer.readUInt32LE(offset) + buffer.readUInt32LE(offset + 4) * 2 ** 32;
}
