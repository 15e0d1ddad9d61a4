// A snapshot on disk: written beside, renamed when all of it is durable, never changed afterwards.
//
//   header (one sector) | frame with the mark | frames of records | frame of totals and root hash
//   frame: length u32 | crc u32 | ciphertext | tag 16
//
// The root hash is that of all records with their lengths, in order: a peer's snapshot is checked against it.

import { createHash, type Hash } from 'node:crypto';
import { crc32 } from 'node:zlib';
import { assert } from '../../core/assert.ts';
import { SwarmError } from '../../core/errors.ts';
import { type SnapshotMark, SnapshotMarkCodec } from '../../proto/generated/raft.ts';
import { decode, encode } from '../../proto/wire.ts';
import {
  type DataKey,
  damaged,
  nonceOf,
  type RandomBytes,
  SALT_BYTES,
  seal,
  TAG_BYTES,
  unseal,
} from './data-key.ts';
import type { Disk, DiskFile } from './disk.ts';
import { checkVersion, keyOf, type LogMember } from './segment-header.ts';

const MAGIC = Buffer.from('TSWARMSN');
const FORMAT_VERSION = 1;
const HEADER_BYTES = 512;
const CLUSTER_ID_START = 40;
const CLUSTER_ID_BYTES_MAX = 128;
const HEADER_CRC_START = HEADER_BYTES - 4;
const FRAME_HEADER_BYTES = 8;
const MARK_COUNTER = 0;
// Above every frame of records.
const TOTALS_COUNTER = 2 ** 32 - 1;
const ROOT_HASH_BYTES = 32;
const TOTALS_BYTES = 24 + ROOT_HASH_BYTES;
const TOTALS_FRAME_BYTES = FRAME_HEADER_BYTES + TOTALS_BYTES + TAG_BYTES;
/** Records of one frame; a larger record has one to itself. */
export const CHUNK_BYTES = 256 * 1024;
const LENGTH_BYTES = 4;
// Written data that waits for the disk: a sync of everything at the end would hold up the log for long.
const UNSYNCED_BYTES_MAX = 4 * 2 ** 20;
const SNAPSHOT_NAME = /^state-(\d{16})\.snap$/;

export interface SnapshotTotals {
  readonly records: number;
  /** Of all records, without their lengths. */
  readonly bytes: number;
  readonly chunks: number;
  readonly rootHash: Buffer;
}

export interface SnapshotOwner {
  readonly disk: Disk;
  readonly member: LogMember;
  readonly key: DataKey;
  readonly randomBytes: RandomBytes;
}

/** How the making of a snapshot leaves room for everything else: a pause after so many records. */
export interface Pacing {
  readonly every: number;
  /** Rejects to give up. */
  readonly pause: () => Promise<void>;
}

const UNPACED: Pacing = { every: Number.POSITIVE_INFINITY, pause: async () => {} };

export function snapshotName(index: number): string {
  return `state-${String(index).padStart(16, '0')}.snap`;
}

/** The index of the snapshot of this name; undefined when it is the name of something else. */
export function snapshotIndex(name: string): number | undefined {
  const digits = SNAPSHOT_NAME.exec(name)?.[1];
  return digits === undefined ? undefined : Number(digits);
}

/** Collects records into a temporary file until `finish` names it. */
export class SnapshotWriter {
  readonly #owner: SnapshotOwner;
  readonly #file: DiskFile;
  readonly #temporary: string;
  readonly #mark: SnapshotMark;
  readonly #salt: Buffer;
  readonly #header: Buffer;
  readonly #hash: Hash = createHash('sha256');
  #offset = HEADER_BYTES;
  #unsyncedBytes = 0;
  // One frame in the making, encrypted in place: records that were kept as objects would grow old, and a full garbage
  // collection stops a large manager for longer than everything else here.
  #frame = Buffer.allocUnsafe(FRAME_HEADER_BYTES + CHUNK_BYTES + TAG_BYTES);
  #chunkBytes = 0;
  #records = 0;
  #bytes = 0;
  #chunks = 0;

  private constructor(owner: SnapshotOwner, file: DiskFile, temporary: string, mark: SnapshotMark) {
    this.#owner = owner;
    this.#file = file;
    this.#temporary = temporary;
    this.#mark = mark;
    this.#salt = owner.randomBytes(SALT_BYTES);
    this.#header = encodeHeader(owner, this.#salt);
  }

  /** `label` tells apart files that are written at the same time. */
  static async begin(owner: SnapshotOwner, mark: SnapshotMark, label: string): Promise<SnapshotWriter> {
    const temporary = `${label}.tmp`;
    const file = await owner.disk.open(temporary, { create: true });
    const writer = new SnapshotWriter(owner, file, temporary, mark);
    try {
      await file.truncate(0);
      await file.write(writer.#header, 0);
      await writer.#writeBytes(MARK_COUNTER, encode(SnapshotMarkCodec, mark));
      return writer;
    } catch (error) {
      await writer.abort();
      throw error;
    }
  }

  async add(records: Iterable<Uint8Array>, { every, pause }: Pacing = UNPACED): Promise<void> {
    let count = 0;
    for (const record of records) {
      const hasRoom = this.#chunkBytes + LENGTH_BYTES + record.length <= CHUNK_BYTES;
      if (!hasRoom) await this.#flush();
      this.#push(record);
      if (++count % every === 0) await pause();
    }
  }

  #push(record: Uint8Array): void {
    const start = FRAME_HEADER_BYTES + this.#chunkBytes;
    const end = start + LENGTH_BYTES + record.length;
    // A record that is larger than a chunk comes alone.
    if (end + TAG_BYTES > this.#frame.length) this.#frame = Buffer.allocUnsafe(end + TAG_BYTES);
    this.#frame.writeUInt32LE(record.length, start);
    this.#frame.set(record, start + LENGTH_BYTES);
    this.#chunkBytes += LENGTH_BYTES + record.length;
    this.#records++;
    this.#bytes += record.length;
  }

  async #flush(): Promise<void> {
    if (this.#chunkBytes === 0) return;
    const length = this.#chunkBytes;
    this.#chunkBytes = 0;
    this.#hash.update(this.#frame.subarray(FRAME_HEADER_BYTES, FRAME_HEADER_BYTES + length));
    await this.#writeFrame(++this.#chunks, length);
  }

  /** Everything is durable and checked; the caller makes it a snapshot with `publish`. */
  async finish(expectedRootHash?: Uint8Array): Promise<SnapshotTotals> {
    await this.#flush();
    const rootHash = this.#hash.digest();
    if (expectedRootHash !== undefined && !rootHash.equals(expectedRootHash))
      throw new SwarmError('internal', 'the snapshot that arrived is not the one that was sent', {
        hint: 'It is asked for again; when this repeats, check the memory of both machines.',
      });
    const totals: SnapshotTotals = {
      records: this.#records,
      bytes: this.#bytes,
      chunks: this.#chunks,
      rootHash,
    };
    await this.#writeBytes(TOTALS_COUNTER, encodeTotals(totals));
    await this.#file.sync();
    await this.#file.close();
    return totals;
  }

  /** It is the snapshot of this index when this resolves. A failure leaves open whether it is. */
  async publish(): Promise<string> {
    const name = snapshotName(this.#mark.index);
    await this.#owner.disk.rename(this.#temporary, name);
    await this.#owner.disk.syncDirectory();
    return name;
  }

  async abort(): Promise<void> {
    await this.#file.close().catch(() => {});
    await this.#owner.disk.unlink(this.#temporary).catch(() => {});
  }

  async #writeBytes(counter: number, plain: Buffer): Promise<void> {
    const bytes = FRAME_HEADER_BYTES + plain.length + TAG_BYTES;
    if (bytes > this.#frame.length) this.#frame = Buffer.allocUnsafe(bytes);
    this.#frame.set(plain, FRAME_HEADER_BYTES);
    await this.#writeFrame(counter, plain.length);
  }

  /** Encrypts so many bytes behind the frame's header, and writes it. */
  async #writeFrame(counter: number, length: number): Promise<void> {
    const end = FRAME_HEADER_BYTES + length;
    const frame = this.#frame.subarray(0, end + TAG_BYTES);
    const nonce = nonceOf(this.#salt, counter);
    const plain = frame.subarray(FRAME_HEADER_BYTES, end);
    const { ciphertext, tag } = seal(this.#owner.key.secret, nonce, this.#header, plain);
    frame.set(ciphertext, FRAME_HEADER_BYTES);
    frame.set(tag, end);
    frame.writeUInt32LE(length, 0);
    frame.writeUInt32LE(crc32(frame.subarray(FRAME_HEADER_BYTES)), 4);
    await this.#file.write(frame, this.#offset);
    this.#offset += frame.length;
    this.#unsyncedBytes += frame.length;
    if (this.#unsyncedBytes < UNSYNCED_BYTES_MAX) return;
    this.#unsyncedBytes = 0;
    await this.#file.sync();
  }
}

/** An open snapshot. It stays readable when its file is replaced or deleted, until `close`. */
export class SnapshotReader {
  readonly mark: SnapshotMark;
  readonly totals: SnapshotTotals;
  readonly #opened: OpenedHeader;
  readonly #start: number;

  private constructor(opened: OpenedHeader, mark: SnapshotMark, start: number, totals: SnapshotTotals) {
    this.#opened = opened;
    this.mark = mark;
    this.#start = start;
    this.totals = totals;
  }

  /** Reads what stands at both ends; what is between is checked as it is read. */
  static async open(disk: Disk, name: string, keys: readonly DataKey[]): Promise<SnapshotReader> {
    const file = await disk.open(name);
    try {
      const opened = readHeader(name, file, await file.read(0, HEADER_BYTES), keys);
      const markFrame = await readFrame(opened, MARK_COUNTER, HEADER_BYTES);
      const totalsStart = (await file.size()) - TOTALS_FRAME_BYTES;
      const totalsFrame = await readFrame(opened, TOTALS_COUNTER, totalsStart);
      const mark = decode(SnapshotMarkCodec, markFrame.plain);
      if (mark.index !== snapshotIndex(name)) throw damaged(name, 0, `it is the snapshot of ${mark.index}`);
      return new SnapshotReader(opened, mark, markFrame.end, decodeTotals(totalsFrame.plain));
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  get name(): string {
    return this.#opened.name;
  }

  get member(): LogMember {
    return this.#opened.member;
  }

  get keyId(): number {
    return this.#opened.key.id;
  }

  /** The records, a chunk of at most 256 KiB at a time. Throws at the first damaged byte, before anything of its chunk. */
  async *records(): AsyncGenerator<Uint8Array[]> {
    const hash = createHash('sha256');
    let offset = this.#start;
    for (let chunk = 1; chunk <= this.totals.chunks; chunk++) {
      const { plain, end } = await readFrame(this.#opened, chunk, offset);
      hash.update(plain);
      yield splitRecords(plain);
      offset = end;
    }
    if (!hash.digest().equals(this.totals.rootHash))
      throw damaged(this.name, offset, 'its root hash differs');
  }

  close(): Promise<void> {
    return this.#opened.file.close();
  }
}

interface OpenedHeader {
  readonly name: string;
  readonly file: DiskFile;
  readonly member: LogMember;
  readonly key: DataKey;
  readonly salt: Buffer;
  /** Every frame is bound to it. */
  readonly bytes: Buffer;
}

function encodeHeader({ member, key }: SnapshotOwner, salt: Buffer): Buffer {
  const clusterId = Buffer.from(member.clusterId);
  assert(clusterId.length <= CLUSTER_ID_BYTES_MAX, 'the id of the cluster is too long');
  const header = Buffer.alloc(HEADER_BYTES);
  header.set(MAGIC);
  header.writeUInt32LE(FORMAT_VERSION, 8);
  header.writeUInt32LE(key.id, 12);
  header.set(salt, 16);
  header.writeBigUInt64LE(BigInt(member.memberId), 24);
  header.writeUInt32LE(clusterId.length, 32);
  header.set(clusterId, CLUSTER_ID_START);
  header.writeUInt32LE(crc32(header.subarray(0, HEADER_CRC_START)), HEADER_CRC_START);
  return header;
}

function readHeader(name: string, file: DiskFile, bytes: Buffer, keys: readonly DataKey[]): OpenedHeader {
  if (bytes.length < HEADER_BYTES || !bytes.subarray(0, MAGIC.length).equals(MAGIC))
    throw damaged(name, 0, 'it does not begin as a snapshot does');
  if (bytes.readUInt32LE(HEADER_CRC_START) !== crc32(bytes.subarray(0, HEADER_CRC_START)))
    throw damaged(name, 0, 'the checksum of its header does not fit');
  checkVersion(name, bytes.readUInt32LE(8));
  const clusterIdEnd = CLUSTER_ID_START + bytes.readUInt32LE(32);
  return {
    name,
    file,
    bytes,
    key: keyOf(name, bytes.readUInt32LE(12), keys),
    salt: Buffer.from(bytes.subarray(16, 16 + SALT_BYTES)),
    member: {
      memberId: Number(bytes.readBigUInt64LE(24)),
      clusterId: bytes.toString('utf8', CLUSTER_ID_START, clusterIdEnd),
    },
  };
}

async function readFrame(
  { name, file, key, salt, bytes: associated }: OpenedHeader,
  counter: number,
  offset: number,
): Promise<{ plain: Buffer; end: number }> {
  if (offset < HEADER_BYTES) throw damaged(name, 0, 'it is too short');
  const header = await file.read(offset, FRAME_HEADER_BYTES);
  if (header.length < FRAME_HEADER_BYTES) throw damaged(name, offset, 'it ends too early');
  const length = header.readUInt32LE(0);
  if (length + TAG_BYTES > (await file.size()) - offset)
    throw damaged(name, offset, 'a piece is longer than the rest of the file');
  const sealed = await file.read(offset + FRAME_HEADER_BYTES, length + TAG_BYTES);
  if (sealed.length < length + TAG_BYTES || crc32(sealed) !== header.readUInt32LE(4))
    throw damaged(name, offset, 'the checksum of a piece does not fit');
  const parts = { ciphertext: sealed.subarray(0, length), tag: sealed.subarray(length) };
  const plain = unseal(key.secret, nonceOf(salt, counter), associated, parts);
  if (plain === undefined) throw damaged(name, offset, 'a piece cannot be decrypted');
  return { plain, end: offset + FRAME_HEADER_BYTES + sealed.length };
}

function splitRecords(plain: Buffer): Uint8Array[] {
  const records: Uint8Array[] = [];
  for (let offset = 0; offset < plain.length; ) {
    const start = offset + LENGTH_BYTES;
    offset = start + plain.readUInt32LE(offset);
    records.push(plain.subarray(start, offset));
  }
  return records;
}

function encodeTotals({ records, bytes, chunks, rootHash }: SnapshotTotals): Buffer {
  const totals = Buffer.alloc(TOTALS_BYTES);
  totals.writeBigUInt64LE(BigInt(records), 0);
  totals.writeBigUInt64LE(BigInt(bytes), 8);
  totals.writeBigUInt64LE(BigInt(chunks), 16);
  totals.set(rootHash, 24);
  return totals;
}

function decodeTotals(totals: Buffer): SnapshotTotals {
  const number = (offset: number) => Number(totals.readBigUInt64LE(offset));
  return { records: number(0), bytes: number(8), chunks: number(16), rootHash: totals.subarray(24) };
}
