// What stands in certificates, and whether to believe it. Every process has this loaded, so it reads with Node's own
// crypto and makes nothing; certificates are made in manager/ca/x509.ts.

import { createHash, createPrivateKey, type KeyObject, X509Certificate } from 'node:crypto';
import type { Random } from '../core/clock.ts';
import { messageOf, SwarmError } from '../core/errors.ts';
import type { NodeRole } from '../core/generated/objects.ts';

/** Certificates begin to be valid this long before they are issued, for nodes whose clocks are behind (Swarm's value). */
export const BACKDATED_MS = 3_600_000;

// Leaf, the root cross-signed by the one before, and one more for operators whose root has an intermediate.
const CHAIN_LENGTH_MAX = 4;
// Swarm renews between these parts of a certificate's life: never all nodes at once, and with time left to try again.
const RENEWAL_EARLIEST = 0.5;
const RENEWAL_LATEST = 0.8;
const ROLES: readonly NodeRole[] = ['worker', 'manager'];
const CERTIFICATE = /-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----/g;

export interface CertificateDescription {
  /** The subject's common name; empty when there is none, or more than one. */
  readonly nodeId: string;
  /** From the subject's organizational unit; undefined when it is no role, as in a root. */
  readonly role: NodeRole | undefined;
  /** The subject's organization; empty when there is none, or more than one. */
  readonly clusterId: string;
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
  /** In hexadecimal. */
  readonly serial: string;
  /** DER (SubjectPublicKeyInfo). */
  readonly publicKey: Uint8Array;
}

/** What a subject's organizational unit says of this role; also the name under which servers of the role are verified. */
export function unitOf(role: NodeRole): string {
  return `swarm-${role}`;
}

/** Reads the first certificate of a PEM text, and believes nothing of it. Throws `invalid-argument` when there is none. */
export function describeCertificate(pem: string): CertificateDescription {
  const certificate = readCertificate(pem);
  // Of an attribute that is there twice the array is no string.
  const subject: Record<string, unknown> = { ...certificate.toLegacyObject().subject };
  const attribute = (name: string) => (typeof subject[name] === 'string' ? subject[name] : '');
  return {
    nodeId: attribute('CN'),
    role: ROLES.find((role) => unitOf(role) === attribute('OU')),
    clusterId: attribute('O'),
    notBeforeMs: certificate.validFromDate.getTime(),
    notAfterMs: certificate.validToDate.getTime(),
    serial: certificate.serialNumber.toLowerCase(),
    publicKey: certificate.publicKey.export({ type: 'spki', format: 'der' }),
  };
}

/** SHA-256 of the DER of the first certificate of a PEM text: what a join token pins. */
export function rootDigest(pem: string): Uint8Array {
  return new Uint8Array(createHash('sha256').update(readCertificate(pem).raw).digest());
}

/** The certificates of a PEM text, one by one; what stands around them is left out. */
export function splitPem(bundle: string): string[] {
  return (bundle.match(CERTIFICATE) ?? []).map((pem) => `${pem}\n`);
}

/**
 * Returns when the first certificate of `certificatePem` chains, through the others of it, to one of `rootsPem`, all of
 * them being valid at `nowMs`. Else throws `permission-denied` that says what is wrong with which.
 */
export function verifyChain(certificatePem: string, rootsPem: string, nowMs: number): void {
  const [leaf, ...intermediates] = readAll('certificate', certificatePem);
  const roots = readAll('roots', rootsPem);
  if (leaf.ca) throw notBelieved(leaf, 'is that of an authority, not of a node');
  let current: X509Certificate = leaf;
  for (let length = 1; length <= CHAIN_LENGTH_MAX; length++) {
    requireValid(current, nowMs);
    const issued = current;
    const root = roots.find((candidate) => hasIssued(candidate, issued));
    if (root !== undefined) {
      requireValid(root, nowMs);
      return;
    }
    const next = intermediates.find((candidate) => hasIssued(candidate, issued));
    if (next === undefined) throw notBelieved(leaf, 'is not of an authority of this cluster');
    current = next;
  }
  throw notBelieved(leaf, `has a chain of more than ${CHAIN_LENGTH_MAX} certificates`);
}

/** The digest of the one of these roots whose key has signed the first certificate of a PEM text. */
export function issuerDigest(certificatePem: string, rootsPem: string): Uint8Array | undefined {
  const certificate = readCertificate(certificatePem);
  const issuer = splitPem(rootsPem).find((root) => hasIssued(readCertificate(root), certificate));
  return issuer === undefined ? undefined : rootDigest(issuer);
}

/**
 * Returns when this can be a cluster's root: one certificate of an authority, signed by itself, valid at `nowMs`, and the key,
 * if there is one, belongs to it. Else throws `invalid-argument` with the field and the problem.
 */
export function requireRoot(
  { certificatePem, keyPem }: { readonly certificatePem: string; readonly keyPem?: string },
  nowMs: number,
): void {
  const [root, ...others] = readAll('root certificate', certificatePem);
  const problem =
    (others.length > 0 && `it has ${others.length + 1} certificates, not one`) ||
    (!root.ca && 'it may not sign certificates (basicConstraints, keyUsage)') ||
    (!hasIssued(root, root) && 'it is not signed by itself') ||
    (root.validFromDate.getTime() > nowMs && `it is valid only from ${root.validFrom}`) ||
    (root.validToDate.getTime() < nowMs && `it has expired at ${root.validTo}`);
  if (problem) throw new SwarmError('invalid-argument', `root certificate: ${problem}`);
  if (keyPem !== undefined && !root.checkPrivateKey(readPrivateKey(keyPem)))
    throw new SwarmError('invalid-argument', 'root key: it does not belong to the root certificate');
}

/** Throws `invalid-argument` for what is no private key in PEM, and for one that wants a passphrase. */
export function readPrivateKey(keyPem: string): KeyObject {
  try {
    return createPrivateKey(keyPem);
  } catch (error) {
    throw new SwarmError('invalid-argument', `key: it is no private key in PEM (${messageOf(error)})`, {
      cause: error,
    });
  }
}

/** When to ask for the next certificate: by chance, between half and four fifths of the life that began when it was issued. */
export function renewalAt({
  notBeforeMs,
  notAfterMs,
  random,
}: {
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
  readonly random: Random;
}): number {
  const issuedMs = Math.min(notBeforeMs + BACKDATED_MS, notAfterMs);
  const part = RENEWAL_EARLIEST + (RENEWAL_LATEST - RENEWAL_EARLIEST) * random();
  return Math.round(issuedMs + (notAfterMs - issuedMs) * part);
}

function readCertificate(pem: string): X509Certificate {
  return readAll('certificate', pem)[0];
}

function readAll(field: string, pem: string): [X509Certificate, ...X509Certificate[]] {
  const [first, ...others] = splitPem(pem);
  if (first === undefined)
    throw new SwarmError('invalid-argument', `${field}: there is no certificate in PEM`);
  try {
    return [new X509Certificate(first), ...others.map((other) => new X509Certificate(other))];
  } catch (error) {
    throw new SwarmError('invalid-argument', `${field}: it cannot be read (${messageOf(error)})`, {
      cause: error,
    });
  }
}

function hasIssued(issuer: X509Certificate, certificate: X509Certificate): boolean {
  return issuer.ca && certificate.checkIssued(issuer) && certificate.verify(issuer.publicKey);
}

function requireValid(certificate: X509Certificate, nowMs: number): void {
  if (certificate.validFromDate.getTime() > nowMs)
    throw notBelieved(certificate, `is valid only from ${certificate.validFrom}`, {
      hint: 'Compare the clocks of the two machines.',
    });
  if (certificate.validToDate.getTime() < nowMs)
    throw notBelieved(certificate, `has expired at ${certificate.validTo}`);
}

function notBelieved(
  { subject }: X509Certificate,
  problem: string,
  detail: { hint?: string } = {},
): SwarmError {
  const name = (subject ?? '').split('\n').join(', ');
  return new SwarmError('permission-denied', `the certificate of ${name || 'nobody'} ${problem}`, detail);
}
