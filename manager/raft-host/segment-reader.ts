// Reads the blocks of one segment and judges what follows the last whole one. One write is in flight at a time and is
// one block, into a file that was zero before. So a torn write leaves sectors of zeros in the last block of the last
// segment, and nothing behind it. Anything else is damage: acknowledged blocks may be among what cannot be read.

import { assert } from '../../core/assert.ts';
import {
  ALIGNMENT,
  BLOCK_BYTES_MAX,
  BLOCK_HEADER_BYTES,
  blockBytes,
  chainOf,
  isWholeBlock,
  type LogRecord,
  openBlock,
  readBlockHeader,
} from './block.ts';
import { type DataKey, damaged } from './data-key.ts';
import type { DiskFile } from './disk.ts';
import { keyOf, SEGMENT_HEADER_BYTES, type SegmentHeader } from './segment-header.ts';

// What every disk writes whole or not at all.
const SECTOR_BYTES = 512;
// One read; larger blocks are read by themselves.
const WINDOW_BYTES = 1 << 20;
const ZEROS = Buffer.alloc(64 * 1024);

export interface ReadBlock {
  readonly offset: number;
  readonly bytes: number;
  readonly sequence: number;
  /** Of the block before. */
  readonly chain: Buffer;
  readonly records: readonly LogRecord[];
}

export interface SegmentTail {
  /** Behind the last whole block. */
  readonly end: number;
  readonly nextSequence: number;
  readonly chain: Buffer;
  /** There is a piece of a block behind it that never was whole. */
  readonly isTorn: boolean;
}

export interface SegmentSource {
  readonly name: string;
  readonly file: DiskFile;
  readonly header: SegmentHeader;
  readonly keys: readonly DataKey[];
  /** Where the next segment says that this one ends; undefined for the last. */
  readonly end?: number;
}

/** Calls back for every block, in order. */
export async function readSegment(
  source: SegmentSource,
  onBlock: (block: ReadBlock) => void,
): Promise<SegmentTail> {
  const { name, file, header } = source;
  const key = keyOf(name, header.keyId, source.keys);
  const limit = source.end ?? header.capacity;
  if (limit > header.capacity) throw damaged(name, header.capacity, 'the next segment expects more of it');
  if ((await file.size()) < header.capacity)
    throw damaged(
      name,
      await file.size(),
      `it is shorter than the ${header.capacity} bytes it was made with`,
    );
  const window = new Window(file, limit);
  let offset = SEGMENT_HEADER_BYTES;
  let sequence = header.firstBlock;
  let { chain } = header;
  for (let counter = 1; ; counter++) {
    const block = await readBlock(window, offset, header.salt);
    if (block === undefined) break;
    const found = readBlockHeader(block, header.salt);
    assert(found !== undefined, 'a block without a header');
    if (found.sequence !== sequence || !found.chain.equals(chain))
      throw damaged(name, offset, `block ${found.sequence} does not continue block ${sequence - 1}`);
    const records = openBlock(block, { key, salt: header.salt, counter, sequence, chain });
    if (records === undefined) throw damaged(name, offset, 'a block cannot be decrypted');
    onBlock({ offset, bytes: block.length, sequence, chain, records });
    offset += block.length;
    chain = chainOf(block);
    sequence++;
  }
  if (source.end !== undefined && offset !== source.end)
    throw damaged(name, offset, `its blocks end here, the next segment expects them to end at ${source.end}`);
  const isTorn = source.end === undefined && (await judgeTail(source, window, offset));
  return { end: offset, nextSequence: sequence, chain, isTorn };
}

/** The whole block at this place, or undefined. */
async function readBlock(window: Window, offset: number, salt: Buffer): Promise<Buffer | undefined> {
  const header = readBlockHeader(await window.read(offset, BLOCK_HEADER_BYTES), salt);
  if (header === undefined || header.length > BLOCK_BYTES_MAX) return undefined;
  const block = await window.read(offset, blockBytes(header.length));
  return isWholeBlock(header, block) ? block : undefined;
}

/** False when only zeros follow, true for a torn write; throws for damage. */
async function judgeTail({ name, header }: SegmentSource, window: Window, start: number): Promise<boolean> {
  const dataEnd = await endOfData(window, start, header.capacity);
  if (dataEnd <= start) return false;
  for (let offset = start + ALIGNMENT; offset < dataEnd; offset += ALIGNMENT) {
    const bytes = window.peek(offset, BLOCK_HEADER_BYTES) ?? (await window.read(offset, BLOCK_HEADER_BYTES));
    if (readBlockHeader(bytes, header.salt) !== undefined)
      throw damaged(name, start, `a block cannot be read, and there is a good one behind it, at ${offset}`);
  }
  const torn = readBlockHeader(await window.read(start, BLOCK_HEADER_BYTES), header.salt);
  const tornEnd = start + (torn === undefined ? BLOCK_HEADER_BYTES : blockBytes(torn.length));
  if (torn !== undefined && dataEnd > tornEnd)
    throw damaged(name, tornEnd, 'there is something behind the last block');
  if (!(await hasZeroSector(window, start, Math.min(tornEnd, header.capacity))))
    throw damaged(name, start, 'the last block cannot be read, and all of it was written');
  return true;
}

/** Behind the last byte that is not zero. */
async function endOfData(window: Window, start: number, capacity: number): Promise<number> {
  let end = start;
  for (let offset = start; offset < capacity; offset += ZEROS.length) {
    const bytes = await window.read(offset, Math.min(ZEROS.length, capacity - offset));
    if (bytes.equals(ZEROS.subarray(0, bytes.length))) continue;
    const last = bytes.findLastIndex((byte) => byte !== 0);
    end = offset + last + 1;
  }
  return end;
}

async function hasZeroSector(window: Window, start: number, end: number): Promise<boolean> {
  for (let offset = start; offset < end; ) {
    const next = Math.min(end, (Math.floor(offset / SECTOR_BYTES) + 1) * SECTOR_BYTES);
    const bytes = await window.read(offset, next - offset);
    if (bytes.equals(ZEROS.subarray(0, bytes.length))) return true;
    offset = next;
  }
  return false;
}

/** Reads a file in large pieces, forwards. What it returns belongs to the caller's records and is not overwritten. */
class Window {
  readonly #file: DiskFile;
  readonly #limit: number;
  #start = 0;
  #bytes: Buffer = Buffer.alloc(0);

  constructor(file: DiskFile, limit: number) {
    this.#file = file;
    this.#limit = limit;
  }

  /** Fewer bytes at the limit. */
  async read(offset: number, length: number): Promise<Buffer> {
    const bytes = this.peek(offset, length);
    if (bytes !== undefined) return bytes;
    const wanted = Math.min(Math.max(length, WINDOW_BYTES), this.#limit - offset);
    this.#bytes = wanted > 0 ? await this.#file.read(offset, wanted) : Buffer.alloc(0);
    this.#start = offset;
    return this.#bytes.subarray(0, Math.min(length, this.#bytes.length));
  }

  peek(offset: number, length: number): Buffer | undefined {
    const start = offset - this.#start;
    if (start < 0 || start + length > this.#bytes.length) return undefined;
    return this.#bytes.subarray(start, start + length);
  }
}
