// A backup file: what a snapshot holds, with checksums, and encrypted with the unlock key when the cluster has one.
//
//   "TSSWARM-BACKUP-1\n" | frame(BackupHead) | frame(BackupFrame)… | frame()
//   frame: length u32 | crc32 of the bytes u32 | bytes        the empty one ends the file
//
// Encrypted frames are AES-256-GCM with the frame's number as nonce and the tag behind; the key is made for this file
// from the unlock key and the head's salt (HKDF), and the head is authenticated with every frame.

import { createCipheriv, createDecipheriv, hkdfSync } from 'node:crypto';
import { crc32 } from 'node:zlib';
import { SwarmError } from '../../core/errors.ts';
import { parseUnlockKey } from '../../core/unlock-key.ts';
import { BackupFrameCodec, type BackupHead, BackupHeadCodec } from '../../proto/generated/raft.ts';
import { decode, encode } from '../../proto/wire.ts';
import type { RandomBytes } from './data-key.ts';
import type { LogOnDisk, LogOptions } from './log-on-disk.ts';

const MAGIC = Buffer.from('TSSWARM-BACKUP-1\n');
const FRAME_HEAD_BYTES = 8;
// Far above what a snapshot's chunk has.
const FRAME_BYTES_MAX = 64 * 2 ** 20;
const SALT_BYTES = 32;
const KEY_BYTES = 32;
const NONCE_BYTES = 12;
const TAG_BYTES = 16;

export interface Backup {
  readonly head: BackupHead;
  readonly records: AsyncIterable<Uint8Array[]>;
}

/** The newest snapshot on the disk, as the bytes of a backup file. */
export async function* backupNewest(
  disk: LogOnDisk,
  { unlockKey, randomBytes }: LogOptions,
  createdAtMs: number,
): AsyncIterable<Uint8Array> {
  const snapshot = await disk.openSnapshot();
  if (snapshot === undefined) throw new SwarmError('unavailable', 'there is nothing to back up yet');
  try {
    const { index, term, configuration } = snapshot.mark;
    const members = [...configuration.members.map(({ id }) => id), ...configuration.removed];
    const { clusterId } = disk.member;
    const head = { clusterId, index, term, createdAtMs, rootHash: snapshot.rootHash, members };
    yield* writeBackup(head, snapshot.records(), { unlockKey, randomBytes });
  } finally {
    await snapshot.close();
  }
}

/** The bytes of the file. */
export async function* writeBackup(
  head: Omit<BackupHead, 'salt'>,
  records: AsyncIterable<Uint8Array[]>,
  { unlockKey, randomBytes }: { unlockKey: string | undefined; randomBytes: RandomBytes },
): AsyncIterable<Uint8Array> {
  const salt = unlockKey === undefined ? new Uint8Array(0) : randomBytes(SALT_BYTES);
  const headBytes = encode(BackupHeadCodec, { ...head, salt });
  const seal = sealerOf(unlockKey, headBytes, salt);
  yield MAGIC;
  yield frame(headBytes);
  for await (const chunk of records) yield frame(seal(encode(BackupFrameCodec, { records: chunk })));
  yield frame(Buffer.alloc(0));
}

/** Reads the file's head; its records follow as they are asked for. Everything is checked before it is handed out. */
export async function readBackup(
  bytes: AsyncIterable<Uint8Array>,
  unlockKey: string | undefined,
): Promise<Backup> {
  const reader = new FrameReader(bytes);
  if (!(await reader.take(MAGIC.length)).equals(MAGIC))
    throw new SwarmError('invalid-argument', 'the file is not a backup of a tsswarm cluster');
  const headBytes = await reader.frame();
  const head = decode(BackupHeadCodec, headBytes);
  const open = openerOf(unlockKey, headBytes, head.salt);
  async function* records(): AsyncIterable<Uint8Array[]> {
    for (let next = await reader.frame(); next.length > 0; next = await reader.frame())
      yield [...decode(BackupFrameCodec, open(next)).records];
  }
  return { head, records: records() };
}

function frame(bytes: Buffer): Buffer {
  const head = Buffer.alloc(FRAME_HEAD_BYTES);
  head.writeUInt32LE(bytes.length, 0);
  head.writeUInt32LE(crc32(bytes), 4);
  return Buffer.concat([head, bytes]);
}

class FrameReader {
  readonly #source: AsyncIterator<Uint8Array>;
  #buffer = Buffer.alloc(0);

  constructor(source: AsyncIterable<Uint8Array>) {
    this.#source = source[Symbol.asyncIterator]();
  }

  async take(count: number): Promise<Buffer> {
    const parts = [this.#buffer];
    let length = this.#buffer.length;
    while (length < count) {
      const next = await this.#source.next();
      if (next.done) throw damagedBackup('it ends too early');
      parts.push(Buffer.from(next.value));
      length += next.value.length;
    }
    const all = Buffer.concat(parts);
    this.#buffer = all.subarray(count);
    return all.subarray(0, count);
  }

  async frame(): Promise<Buffer> {
    const head = await this.take(FRAME_HEAD_BYTES);
    const length = head.readUInt32LE(0);
    if (length > FRAME_BYTES_MAX) throw damagedBackup('a length in it cannot be right');
    const bytes = await this.take(length);
    if (crc32(bytes) !== head.readUInt32LE(4)) throw damagedBackup('a checksum in it is wrong');
    return bytes;
  }
}

function sealerOf(unlockKey: string | undefined, head: Buffer, salt: Uint8Array): (plain: Buffer) => Buffer {
  if (unlockKey === undefined) return (plain) => plain;
  const key = fileKey(unlockKey, salt);
  let count = 0;
  return (plain) => {
    const cipher = createCipheriv('aes-256-gcm', key, nonceOf(count++)).setAAD(head);
    return Buffer.concat([cipher.update(plain), cipher.final(), cipher.getAuthTag()]);
  };
}

function openerOf(unlockKey: string | undefined, head: Buffer, salt: Uint8Array): (sealed: Buffer) => Buffer {
  if (salt.length === 0) return (plain) => plain;
  if (unlockKey === undefined)
    throw new SwarmError('failed-precondition', 'the backup is encrypted', {
      hint: 'Give the unlock key that the cluster had when it was made: --unlock-key.',
    });
  const key = fileKey(unlockKey, salt);
  let count = 0;
  return (sealed) => {
    const end = sealed.length - TAG_BYTES;
    const decipher = createDecipheriv('aes-256-gcm', key, nonceOf(count++)).setAAD(head);
    decipher.setAuthTag(sealed.subarray(end));
    try {
      return Buffer.concat([decipher.update(sealed.subarray(0, end)), decipher.final()]);
    } catch (error) {
      throw new SwarmError('permission-denied', 'the unlock key does not open this backup', { cause: error });
    }
  };
}

function fileKey(unlockKey: string, salt: Uint8Array): Buffer {
  return Buffer.from(hkdfSync('sha256', parseUnlockKey(unlockKey), salt, 'tsswarm backup', KEY_BYTES));
}

function nonceOf(count: number): Buffer {
  const nonce = Buffer.alloc(NONCE_BYTES);
  nonce.writeUInt32BE(count, NONCE_BYTES - 4);
  return nonce;
}

function damagedBackup(problem: string): SwarmError {
  return new SwarmError('invalid-argument', `the backup is damaged: ${problem}`, {
    hint: 'Use another copy of it.',
  });
}
