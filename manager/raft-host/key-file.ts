// The file of the data keys: one file, replaced atomically. It holds the key in use and, while keys are rotated, the ones
// before it, until no file needs them. With an unlock key they are wrapped; without one they stand there plainly, and
// the file's mode is all that protects them.

import { createHash, createSecretKey, type KeyObject } from 'node:crypto';
import { crc32 } from 'node:zlib';
import { SwarmError } from '../../core/errors.ts';
import { parseUnlockKey } from '../../core/unlock-key.ts';
import { type DataKey, damaged, KEY_BYTES, NONCE_BYTES, type RandomBytes, seal, unseal } from './data-key.ts';
import type { Disk } from './disk.ts';

export const KEY_FILE = 'keys.json';
const TEMPORARY = 'keys.tmp';
const FORMAT_VERSION = 1;

export interface KeyRing {
  /** Oldest first. New blocks use the last; the others are only read with. */
  readonly keys: readonly DataKey[];
}

interface StoredKey {
  readonly id: number;
  /** base64: plain, or the wrapped bytes when there is a nonce. */
  readonly key: string;
  readonly nonce?: string;
  readonly tag?: string;
}

export function newDataKey(ring: KeyRing | undefined, randomBytes: RandomBytes): DataKey {
  return { id: (ring?.keys.at(-1)?.id ?? 0) + 1, secret: createSecretKey(randomBytes(KEY_BYTES)) };
}

/** Undefined when there is no such file. Refuses with words that tell a missing unlock key from a wrong one. */
export async function loadKeyFile(disk: Disk, unlockKey: string | undefined): Promise<KeyRing | undefined> {
  if (!(await disk.list()).includes(KEY_FILE)) return undefined;
  const stored = parseKeyFile(await disk.read(KEY_FILE));
  const isLocked = stored.some(({ nonce }) => nonce !== undefined);
  if (isLocked && unlockKey === undefined)
    throw new SwarmError('failed-precondition', 'the manager is locked: its log is encrypted', {
      hint: 'Unlock it with the unlock key of the cluster.',
    });
  const wrapping = isLocked ? parseUnlockKey(unlockKey ?? '') : undefined;
  return { keys: stored.map((key) => readKey(key, wrapping)) };
}

/** Replaces the file; what it held before is gone when this resolves, and what it holds now is durable. */
export async function storeKeyFile(
  disk: Disk,
  ring: KeyRing,
  { unlockKey, randomBytes }: { unlockKey: string | undefined; randomBytes: RandomBytes },
): Promise<void> {
  const wrapping = unlockKey === undefined ? undefined : parseUnlockKey(unlockKey);
  const keys = ring.keys.map((key) => storedKey(key, wrapping, randomBytes));
  const content = JSON.stringify({ version: FORMAT_VERSION, keys, crc: crcOf(keys) });
  const file = await disk.open(TEMPORARY, { create: true });
  try {
    await file.truncate(0);
    await file.write(Buffer.from(`${content}\n`), 0);
    await file.sync();
  } finally {
    await file.close();
  }
  await disk.rename(TEMPORARY, KEY_FILE);
  await disk.syncDirectory();
}

function parseKeyFile(bytes: Buffer): readonly StoredKey[] {
  let content: { version: number; keys: readonly StoredKey[]; crc: number };
  try {
    content = JSON.parse(bytes.toString());
  } catch (error) {
    throw damaged(KEY_FILE, 0, `it is no JSON (${error instanceof Error ? error.message : error})`);
  }
  if (content.version > FORMAT_VERSION)
    throw new SwarmError('failed-precondition', `${KEY_FILE} has format ${content.version}`, {
      hint: 'Start the version of tsswarm that wrote it, or a newer one.',
    });
  if (!Array.isArray(content.keys) || content.keys.length === 0 || content.crc !== crcOf(content.keys))
    throw damaged(KEY_FILE, 0, 'its checksum does not fit');
  return content.keys;
}

function crcOf(keys: readonly StoredKey[]): number {
  return crc32(JSON.stringify(keys));
}

function storedKey(key: DataKey, wrapping: Uint8Array | undefined, randomBytes: RandomBytes): StoredKey {
  if (wrapping === undefined) return { id: key.id, key: key.secret.export().toString('base64') };
  const nonce = randomBytes(NONCE_BYTES);
  const { ciphertext, tag } = seal(wrappingKey(wrapping), nonce, associatedOf(key.id), key.secret.export());
  return {
    id: key.id,
    key: ciphertext.toString('base64'),
    nonce: nonce.toString('base64'),
    tag: tag.toString('base64'),
  };
}

function readKey(stored: StoredKey, wrapping: Uint8Array | undefined): DataKey {
  const bytes = Buffer.from(stored.key, 'base64');
  if (wrapping === undefined || stored.nonce === undefined)
    return { id: stored.id, secret: createSecretKey(bytes) };
  const secret = unseal(wrappingKey(wrapping), Buffer.from(stored.nonce, 'base64'), associatedOf(stored.id), {
    ciphertext: bytes,
    tag: Buffer.from(stored.tag ?? '', 'base64'),
  });
  if (secret === undefined)
    throw new SwarmError('permission-denied', 'this is not the unlock key of this manager', {
      hint: 'A manager that was down while the key was changed still has the one before.',
    });
  return { id: stored.id, secret: createSecretKey(secret) };
}

function associatedOf(keyId: number): Buffer {
  return Buffer.from(`tsswarm data key ${keyId}`);
}

// The unlock key may serve other purposes; what wraps data keys is derived from it.
function wrappingKey(unlockKey: Uint8Array): KeyObject {
  return createSecretKey(createHash('sha256').update('tsswarm data keys\0').update(unlockKey).digest());
}
