// Join tokens, in Swarm's form: SWMTKN-1-<digest>-<secret>. The digest pins the certificate of the cluster's root, which a
// newcomer fetches from somebody it does not know yet; the secret says that it may join, and as what.

import { SwarmError } from './errors.ts';
import type { RandomBytes } from './ids.ts';

export interface JoinToken {
  /** SHA-256 of the root certificate's DER: 32 bytes. */
  readonly rootDigest: Uint8Array;
  /** 25 characters of base 36. */
  readonly secret: string;
}

const PREFIX = 'SWMTKN';
const VERSION = '1';
// Swarm's second form belongs to clusters in FIPS mode, whose managers speak with other ciphers.
const FIPS_VERSION = '2';
const DIGEST_BYTES = 32;
// As many characters of base 36 as the largest value of 32 and of 16 bytes has.
const DIGEST_LENGTH = 50;
const SECRET_BYTES = 16;
const SECRET_LENGTH = 25;
const BASE36 = /^[0-9a-z]*$/;

/** A secret for `formatJoinToken`: 128 bits of chance. */
export function newJoinSecret(randomBytes: RandomBytes): string {
  return toBase36(randomBytes(SECRET_BYTES), SECRET_LENGTH);
}

/** The text that operators paste. Throws `invalid-argument` for a digest or secret of another size. */
export function formatJoinToken({ rootDigest, secret }: JoinToken): string {
  if (rootDigest.length !== DIGEST_BYTES)
    throw invalidToken(`the root's digest has ${rootDigest.length} bytes, not ${DIGEST_BYTES}`);
  requireBase36('secret', secret, SECRET_LENGTH);
  return [PREFIX, VERSION, toBase36(rootDigest, DIGEST_LENGTH), secret].join('-');
}

/** Throws `invalid-argument` that names the part which is wrong. */
export function parseJoinToken(text: string): JoinToken {
  const [prefix, version, digest = '', secret = '', ...rest] = text.split('-');
  if (prefix !== PREFIX) throw invalidToken(`it does not begin with ${PREFIX}-${VERSION}-`);
  if (version === FIPS_VERSION) throw invalidToken('it is of a cluster in FIPS mode, which tsswarm has not');
  if (version !== VERSION) throw invalidToken(`its version is "${version ?? ''}", not ${VERSION}`);
  requireBase36('digest', digest, DIGEST_LENGTH);
  requireBase36('secret', secret, SECRET_LENGTH);
  if (rest.length > 0) throw invalidToken('something follows its secret');
  return { rootDigest: digestOf(digest), secret };
}

/** Compares in a time that does not tell how much of a guess was right. */
export function secretsEqual(one: string, other: string): boolean {
  if (one.length !== other.length) return false;
  let difference = 0;
  for (let index = 0; index < one.length; index++)
    difference |= one.charCodeAt(index) ^ other.charCodeAt(index);
  return difference === 0;
}

function requireBase36(part: string, text: string, length: number): void {
  if (text.length !== length) throw invalidToken(`its ${part} has ${text.length} characters, not ${length}`);
  if (!BASE36.test(text)) throw invalidToken(`its ${part} has other characters than 0-9 and a-z`);
}

function digestOf(text: string): Uint8Array {
  let value = 0n;
  for (const character of text) value = value * 36n + BigInt(Number.parseInt(character, 36));
  const digest = new Uint8Array(DIGEST_BYTES);
  for (let index = DIGEST_BYTES - 1; index >= 0; index--, value >>= 8n) digest[index] = Number(value & 255n);
  if (value !== 0n) throw invalidToken('its digest is larger than a SHA-256 can be');
  return digest;
}

function toBase36(bytes: Uint8Array, length: number): string {
  let value = 0n;
  for (const byte of bytes) value = (value << 8n) | BigInt(byte);
  return value.toString(36).padStart(length, '0');
}

// The token itself is never part of a message: messages end up in logs.
function invalidToken(problem: string): SwarmError {
  return new SwarmError('invalid-argument', `this is no join token: ${problem}`, {
    hint: 'Copy the whole token that "tsswarm join-token" prints on a manager.',
  });
}
