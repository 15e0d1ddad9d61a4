// Makes keys, requests and certificates. The one file that knows @peculiar/x509. Its first use keeps 8 MB of memory:
// daemons load it only in the process of node/certificate-process.ts.

import 'reflect-metadata';
import { webcrypto } from 'node:crypto';
import * as x509 from '@peculiar/x509';
import { messageOf, SwarmError } from '../../core/errors.ts';
import { BACKDATED_MS, readPrivateKey, requireRoot, unitOf } from '../../rpc/certificates.ts';
import type { CertificateTool, Root } from './certificate-tool.ts';

const NODE_KEY = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' };
const ROOT_NAME = 'swarm-ca';
// Swarm's, by the Gregorian mean year.
const ROOT_LIFE_MS = 20 * 365.2425 * 24 * 3_600_000;
// Ten times what a request of a node has.
const REQUEST_LENGTH_MAX = 8_192;
const ROOT_USAGES = x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign;

/** Keys of operators' own roots, by what Node says of them. Ours are P-256. */
const ROOT_KEYS: Readonly<Record<string, { name: string; namedCurve?: string; hash: string }>> = {
  prime256v1: NODE_KEY,
  secp384r1: { name: 'ECDSA', namedCurve: 'P-384', hash: 'SHA-384' },
  secp521r1: { name: 'ECDSA', namedCurve: 'P-521', hash: 'SHA-512' },
  rsa: { name: 'RSASSA-PKCS1-v1_5', hash: 'SHA-256' },
};

/** In this process. */
export const x509Tool: CertificateTool = {
  async createRoot({ clusterId, nowMs, lifeMs = ROOT_LIFE_MS }) {
    const keys = await newKeys();
    const certificate = await x509.X509CertificateGenerator.createSelfSigned({
      name: [{ O: [clusterId] }, { CN: [ROOT_NAME] }],
      keys,
      ...validity(nowMs, nowMs + lifeMs),
      signingAlgorithm: NODE_KEY,
      extensions: [
        new x509.BasicConstraintsExtension(true, undefined, true),
        new x509.KeyUsagesExtension(ROOT_USAGES, true),
        await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
      ],
    });
    return { certificatePem: pemOf(certificate), keyPem: await privatePemOf(keys) };
  },

  async createKeyAndRequest({ nodeId } = {}) {
    const keys = await newKeys();
    const request = await x509.Pkcs10CertificateRequestGenerator.create({
      ...(nodeId === undefined ? undefined : { name: [{ CN: [nodeId] }] }),
      keys,
      signingAlgorithm: NODE_KEY,
    });
    return { keyPem: await privatePemOf(keys), requestPem: pemOf(request) };
  },

  async issue({ requestPem, root, subject: { nodeId, role, clusterId }, nowMs, lifeMs }) {
    const publicKey = await requestedKey(requestPem);
    const issuer = await openRoot(root, nowMs);
    const unit = unitOf(role);
    const certificate = await x509.X509CertificateGenerator.create({
      subject: [{ O: [clusterId] }, { OU: [unit] }, { CN: [nodeId] }],
      issuer: issuer.certificate.subjectName,
      publicKey,
      signingKey: issuer.key,
      ...validity(nowMs, Math.min(nowMs + lifeMs, issuer.certificate.notAfter.getTime())),
      signingAlgorithm: issuer.algorithm,
      extensions: [
        new x509.BasicConstraintsExtension(false, undefined, true),
        new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
        new x509.ExtendedKeyUsageExtension([
          x509.ExtendedKeyUsage.serverAuth,
          x509.ExtendedKeyUsage.clientAuth,
        ]),
        new x509.SubjectAlternativeNameExtension([
          { type: 'dns', value: unit },
          { type: 'dns', value: nodeId },
        ]),
        await x509.SubjectKeyIdentifierExtension.create(publicKey),
        new x509.AuthorityKeyIdentifierExtension(await keyIdOf(issuer.certificate)),
      ],
    });
    return pemOf(certificate);
  },

  async crossSign({ newRootPem, oldRoot, nowMs }) {
    requireRoot({ certificatePem: newRootPem }, nowMs);
    const next = new x509.X509Certificate(newRootPem);
    const issuer = await openRoot(oldRoot, nowMs);
    const certificate = await x509.X509CertificateGenerator.create({
      subject: next.subjectName,
      issuer: issuer.certificate.subjectName,
      publicKey: next.publicKey,
      signingKey: issuer.key,
      ...validity(nowMs, Math.min(next.notAfter.getTime(), issuer.certificate.notAfter.getTime())),
      signingAlgorithm: issuer.algorithm,
      extensions: [
        new x509.BasicConstraintsExtension(true, undefined, true),
        new x509.KeyUsagesExtension(ROOT_USAGES, true),
        new x509.SubjectKeyIdentifierExtension(await keyIdOf(next)),
        new x509.AuthorityKeyIdentifierExtension(await keyIdOf(issuer.certificate)),
      ],
    });
    return pemOf(certificate);
  },
};

/** The request's key, once its owner has proved with the signature to have it. */
async function requestedKey(requestPem: string): Promise<x509.PublicKey> {
  const invalid = (problem: string, cause?: unknown) =>
    new SwarmError('invalid-argument', `certificate request: ${problem}`, { cause });
  if (requestPem.length > REQUEST_LENGTH_MAX)
    throw invalid(`it has ${requestPem.length} characters; ${REQUEST_LENGTH_MAX} are the most`);
  const verified = async () => {
    const request = new x509.Pkcs10CertificateRequest(requestPem);
    return { publicKey: request.publicKey, isSigned: await request.verify() };
  };
  const { publicKey, isSigned } = await verified().catch((error: unknown) => {
    throw invalid(`it cannot be read (${messageOf(error)})`, error);
  });
  const { name, namedCurve } = publicKey.algorithm as { name: string; namedCurve?: string };
  if (name !== NODE_KEY.name || namedCurve !== NODE_KEY.namedCurve)
    throw invalid(`its key is ${namedCurve ?? name}; nodes have ECDSA P-256`);
  if (!isSigned) throw invalid('its signature is not that of its key');
  return publicKey;
}

async function openRoot(root: Root, nowMs: number) {
  requireRoot(root, nowMs);
  const key = readPrivateKey(root.keyPem);
  const algorithm = ROOT_KEYS[key.asymmetricKeyDetails?.namedCurve ?? key.asymmetricKeyType ?? ''];
  if (algorithm === undefined)
    throw new SwarmError('invalid-argument', `root key: ${key.asymmetricKeyType} is not supported`, {
      hint: 'Use ECDSA with P-256, P-384 or P-521, or RSA.',
    });
  return {
    certificate: new x509.X509Certificate(root.certificatePem),
    key: key.toCryptoKey(algorithm, false, ['sign']),
    algorithm,
  };
}

/** The key's identifier in the certificate; one that has none is found by the one that it would have. */
async function keyIdOf(certificate: x509.X509Certificate): Promise<string> {
  const own = certificate.getExtension(x509.SubjectKeyIdentifierExtension);
  return (own ?? (await x509.SubjectKeyIdentifierExtension.create(certificate.publicKey))).keyId;
}

// Certificates have no parts of seconds (RFC 5280 §4.1.2.5).
function validity(issuedMs: number, endMs: number): { notBefore: Date; notAfter: Date } {
  const whole = (ms: number) => new Date(Math.floor(ms / 1000) * 1000);
  return { notBefore: whole(issuedMs - BACKDATED_MS), notAfter: whole(endMs) };
}

function newKeys(): Promise<webcrypto.CryptoKeyPair> {
  return webcrypto.subtle.generateKey(NODE_KEY, true, ['sign', 'verify']) as Promise<webcrypto.CryptoKeyPair>;
}

async function privatePemOf({ privateKey }: webcrypto.CryptoKeyPair): Promise<string> {
  const der = await webcrypto.subtle.exportKey('pkcs8', privateKey);
  return `${x509.PemConverter.encode(der, x509.PemConverter.PrivateKeyTag)}\n`;
}

function pemOf(data: x509.X509Certificate | x509.Pkcs10CertificateRequest): string {
  return `${data.toString('pem')}\n`;
}
