// The node's WireGuard key: 32 bytes for X25519, as base64. It lives as long as the machine is up.

import { createPrivateKey, createPublicKey, generateKeyPairSync } from 'node:crypto';
import { readFileSync, renameSync, writeFileSync } from 'node:fs';

/** What precedes the 32 bytes of an X25519 private key in PKCS#8 (RFC 8410). */
const PKCS8_PREFIX = Buffer.from('302e020100300506032b656e04220420', 'hex');
const KEY_BYTES = 32;

export interface TunnelKey {
  readonly privateKey: string;
  readonly publicKey: string;
}

/** undefined when there is none, or none that can be read. */
export function readTunnelKey(file: string): TunnelKey | undefined {
  try {
    const privateKey = readFileSync(file, 'utf8').trim();
    return { privateKey, publicKey: publicKeyOf(privateKey) };
  } catch {
    // Absent after a start of the machine; anything else is replaced by a new one as well.
    return undefined;
  }
}

/** Makes a new key and keeps it. */
export function renewTunnelKey(file: string): TunnelKey {
  const { privateKey: key } = generateKeyPairSync('x25519');
  const privateKey = key.export({ format: 'der', type: 'pkcs8' }).subarray(-KEY_BYTES).toString('base64');
  writeFileSync(`${file}.new`, `${privateKey}\n`, { mode: 0o600 });
  renameSync(`${file}.new`, file);
  return { privateKey, publicKey: publicKeyOf(privateKey) };
}

function publicKeyOf(privateKey: string): string {
  const der = Buffer.concat([PKCS8_PREFIX, Buffer.from(privateKey, 'base64')]);
  const key = createPublicKey(createPrivateKey({ key: der, format: 'der', type: 'pkcs8' }));
  return key.export({ format: 'der', type: 'spki' }).subarray(-KEY_BYTES).toString('base64');
}
