// The node's certificate, its key and the roots it believes, on the disk. Certificate and key are one file and change
// together. On a locked manager the key is encrypted under the unlock key.

import { createPrivateKey } from 'node:crypto';
import { existsSync, readFileSync, rmSync } from 'node:fs';
import path from 'node:path';
import { SwarmError } from '../core/errors.ts';
import type { NodeTrust } from '../core/generated/objects.ts';
import { describeCertificate, issuerDigest, rootDigest, splitPem } from '../rpc/certificates.ts';
import type { TlsIdentity } from '../rpc/tls.ts';
import { writeWhole } from './identity.ts';

const FOLDER = 'certificates';
const NODE_FILE = 'node.pem';
const ROOTS_FILE = 'roots.pem';
const KEY = /-----BEGIN (?:ENCRYPTED )?PRIVATE KEY-----[^-]*-----END (?:ENCRYPTED )?PRIVATE KEY-----\n?/;

/** Why there is no certificate to be had: there is none, or its key needs the unlock key (or another one). */
export type Missing = 'none' | 'locked' | 'wrong-key';

export class CertificateFiles {
  readonly #nodeFile: string;
  readonly #rootsFile: string;

  constructor(dataRoot: string) {
    this.#nodeFile = path.join(dataRoot, FOLDER, NODE_FILE);
    this.#rootsFile = path.join(dataRoot, FOLDER, ROOTS_FILE);
  }

  /** Throws `internal` for a file that cannot be read. */
  read(unlockKey: string | undefined): TlsIdentity | Missing {
    if (!existsSync(this.#nodeFile)) return 'none';
    const content = readFileSync(this.#nodeFile, 'utf8');
    const stored = KEY.exec(content)?.[0];
    const certificate = splitPem(content).join('');
    if (stored === undefined || certificate === '')
      throw new SwarmError('internal', `${this.#nodeFile} has no certificate and key`, {
        hint: 'Restore it from a backup, or leave the cluster and join it again.',
      });
    const roots = readFileSync(this.#rootsFile, 'utf8');
    if (!stored.includes('ENCRYPTED')) return { certificate, key: stored, roots };
    if (unlockKey === undefined) return 'locked';
    const key = decrypted(stored, unlockKey);
    return key === undefined ? 'wrong-key' : { certificate, key, roots };
  }

  /** With an unlock key the key is readable only with that. */
  write({ certificate, key, roots }: TlsIdentity, unlockKey: string): void {
    writeWhole(this.#rootsFile, roots);
    writeWhole(this.#nodeFile, certificate + (unlockKey === '' ? key : encrypted(key, unlockKey)));
  }

  delete(): void {
    rmSync(path.dirname(this.#nodeFile), { recursive: true, force: true });
  }
}

function encrypted(key: string, unlockKey: string): string {
  return createPrivateKey(key)
    .export({ type: 'pkcs8', format: 'pem', cipher: 'aes-256-cbc', passphrase: unlockKey })
    .toString();
}

function decrypted(key: string, unlockKey: string): string | undefined {
  try {
    const object = createPrivateKey({ key, passphrase: unlockKey });
    return object.export({ type: 'pkcs8', format: 'pem' }).toString();
  } catch {
    // OpenSSL says "bad decrypt" in several ways; a key that was written here fails for no other reason.
    return undefined;
  }
}

/** What the managers are told of it. */
export function trustOf({ certificate, roots }: TlsIdentity): NodeTrust {
  const { notAfterMs, role = 'worker' } = describeCertificate(certificate);
  const hex = (digest: Uint8Array | undefined) => Buffer.from(digest ?? []).toString('hex');
  return {
    issuer: hex(issuerDigest(certificate, roots)),
    roots: splitPem(roots).map((root) => hex(rootDigest(root))),
    expiresAtMs: notAfterMs,
    role,
  };
}
