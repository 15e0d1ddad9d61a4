// Writes blocks to the segment in use, and begins the next one. A segment appears under its name with its header and its
// first block in it, durable; a process never writes to a segment that another one began.

import { assert } from '../../core/assert.ts';
import { BLOCK_HEADER_BYTES, type BlockBuilder, blockBytes, type LogPosition } from './block.ts';
import { type DataKey, type RandomBytes, SALT_BYTES } from './data-key.ts';
import { type Disk, type DiskFile, isNoSpace } from './disk.ts';
import { encodeSegmentHeader, type LogMember, SEGMENT_HEADER_BYTES, segmentName } from './segment-header.ts';
import type { FreshSegment, SegmentSupply } from './segment-supply.ts';

/** Where the log goes on. */
export interface WritePosition {
  /** Of the last segment; 0 when there is none. */
  readonly segment: number;
  /** Where its blocks end. */
  readonly end: number;
  readonly nextBlock: number;
  readonly chain: Buffer;
}

/** Any eight bytes that are not zero. */
const FIRST_CHAIN = Buffer.from('tsswarm1');
export const FIRST_POSITION: WritePosition = { segment: 0, end: 0, nextBlock: 1, chain: FIRST_CHAIN };

export interface SegmentWriterOptions {
  readonly disk: Disk;
  readonly supply: SegmentSupply;
  readonly member: LogMember;
  readonly randomBytes: RandomBytes;
}

interface OpenSegment {
  readonly file: DiskFile;
  readonly key: DataKey;
  readonly salt: Buffer;
  readonly capacity: number;
  counter: number;
}

export class SegmentWriter {
  readonly #options: SegmentWriterOptions;
  #position: WritePosition;
  #open: OpenSegment | undefined;

  constructor(options: SegmentWriterOptions, position: WritePosition) {
    this.#options = options;
    this.#position = position;
  }

  /** Sequence of the segment in use. */
  get segment(): number {
    return this.#position.segment;
  }

  /** What is written next comes after this place, in a new segment. */
  moveTo(position: WritePosition): void {
    assert(this.#open === undefined, 'a segment is in use');
    this.#position = position;
  }

  fits(recordBytes: number): boolean {
    return this.#open !== undefined && this.#position.end + blockBytes(recordBytes) <= this.#open.capacity;
  }

  /** Durable when it resolves with true; with false nothing is written and there is no room. */
  async write(builder: BlockBuilder): Promise<boolean> {
    const open = this.#open;
    assert(open !== undefined && this.fits(builder.recordBytes), 'a block that does not fit');
    const { key, salt } = open;
    const { end, nextBlock: sequence, chain } = this.#position;
    const sealed = builder.seal({ key, salt, counter: open.counter, sequence, chain });
    const block = sealed.bytes.subarray(SEGMENT_HEADER_BYTES);
    try {
      await open.file.write(block, end);
    } catch (error) {
      if (!isNoSpace(error)) throw error;
      // Zeros do not hold the room on every file system. What was written is behind the end of this segment.
      await this.#closeFile();
      return false;
    }
    this.#advance(block.length, sealed.chain);
    open.counter++;
    this.#options.supply.pace(this.#position.end, open.capacity);
    return true;
  }

  /**
   * The same with a new segment, whose blocks come after entry `last`. `beforeWrite` runs when there is room for it.
   */
  async begin(
    builder: BlockBuilder,
    { key, last, beforeWrite }: { key: DataKey; last: LogPosition; beforeWrite?: () => Promise<void> },
  ): Promise<boolean> {
    const { supply, randomBytes } = this.#options;
    const fresh = await supply.take(SEGMENT_HEADER_BYTES + blockBytes(builder.recordBytes));
    if (fresh === undefined) return false;
    await beforeWrite?.();
    const salt = randomBytes(SALT_BYTES);
    const { nextBlock: sequence, chain } = this.#position;
    const sealed = builder.seal({ key, salt, counter: 1, sequence, chain });
    sealed.bytes.set(this.#header(fresh, { key, salt, last }));
    const name = segmentName(this.#position.segment + 1);
    await fresh.file.write(sealed.bytes, 0);
    await this.#options.disk.rename(fresh.name, name);
    await this.#options.disk.syncDirectory();
    await this.#closeFile();
    this.#open = { file: fresh.file, key, salt, capacity: fresh.capacity, counter: 2 };
    this.#position = { ...this.#position, segment: this.#position.segment + 1, end: 0 };
    this.#advance(sealed.bytes.length, sealed.chain);
    supply.review();
    return true;
  }

  close(): Promise<void> {
    return this.#closeFile();
  }

  #header(
    fresh: FreshSegment,
    { key, salt, last }: { key: DataKey; salt: Buffer; last: LogPosition },
  ): Buffer {
    const { segment, end, nextBlock, chain } = this.#position;
    return encodeSegmentHeader(
      {
        member: this.#options.member,
        keyId: key.id,
        salt,
        sequence: segment + 1,
        firstIndex: last.index + 1,
        previousTerm: last.term,
        firstBlock: nextBlock,
        chain,
        previousEnd: end,
        capacity: fresh.capacity,
      },
      key,
    );
  }

  #advance(bytes: number, chain: Buffer): void {
    assert(bytes > BLOCK_HEADER_BYTES, 'a block without a header');
    const { segment, end, nextBlock } = this.#position;
    this.#position = { segment, end: end + bytes, nextBlock: nextBlock + 1, chain };
  }

  async #closeFile(): Promise<void> {
    const open = this.#open;
    this.#open = undefined;
    await open?.file.close();
  }
}
