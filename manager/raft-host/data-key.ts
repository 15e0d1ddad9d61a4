// Authenticated encryption of the log's files: AES-256-GCM under a data key. A nonce is the salt of a file and a counter
// within it. Every file has a salt of its own and is never appended to by a second process, so no nonce comes twice.

import { createCipheriv, createDecipheriv, type KeyObject } from 'node:crypto';
import { assert } from '../../core/assert.ts';
import { SwarmError } from '../../core/errors.ts';

const CIPHER = 'aes-256-gcm';
export const KEY_BYTES = 32;
// NIST SP 800-38D: 96-bit nonces, full-length tags.
export const NONCE_BYTES = 12;
export const TAG_BYTES = 16;
/** With 64 random bits, a thousand files a day meet by chance once in ten million years. */
export const SALT_BYTES = 8;
const COUNTER_MAX = 2 ** 32 - 1;

export interface DataKey {
  readonly id: number;
  /** An object of the crypto library: making one of bytes for every block costs more than to encrypt it. */
  readonly secret: KeyObject;
}

export type RandomBytes = (size: number) => Buffer;

export interface Sealed {
  readonly ciphertext: Buffer;
  readonly tag: Buffer;
}

export function nonceOf(salt: Uint8Array, counter: number): Buffer {
  assert(salt.length === SALT_BYTES && counter >= 0 && counter <= COUNTER_MAX, 'no such nonce');
  const nonce = Buffer.allocUnsafe(NONCE_BYTES);
  nonce.set(salt);
  nonce.writeUInt32LE(counter, SALT_BYTES);
  return nonce;
}

export function seal(secret: KeyObject, nonce: Buffer, associated: Uint8Array, plain: Uint8Array): Sealed {
  const cipher = createCipheriv(CIPHER, secret, nonce);
  cipher.setAAD(associated);
  const ciphertext = cipher.update(plain);
  // GCM is a stream cipher: `final` adds nothing.
  cipher.final();
  return { ciphertext, tag: cipher.getAuthTag() };
}

/** The plain bytes; undefined when key, nonce, associated data, ciphertext and tag do not belong together. */
export function unseal(
  secret: KeyObject,
  nonce: Buffer,
  associated: Uint8Array,
  { ciphertext, tag }: Sealed,
): Buffer | undefined {
  const decipher = createDecipheriv(CIPHER, secret, nonce, { authTagLength: TAG_BYTES });
  decipher.setAAD(associated);
  decipher.setAuthTag(tag);
  const plain = decipher.update(ciphertext);
  try {
    decipher.final();
    return plain;
  } catch {
    // The only thing that `final` says is that the tag does not fit.
    return undefined;
  }
}

/** The way out of every damage: nothing here can be mended without the other members. */
export function damaged(name: string, offset: number, problem: string): SwarmError {
  return new SwarmError('internal', `${name} is damaged at byte ${offset}: ${problem}`, {
    hint: 'Restore the directory from a backup, or remove it and join the cluster again as a new member.',
  });
}
