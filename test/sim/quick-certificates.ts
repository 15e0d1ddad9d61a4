// Certificates for a simulation: real X.509, that all that reads and verifies certificates takes for what they are, made
// at once and the same for the same seed. Ed25519 instead of P-256, since its keys come from bytes and its signatures have
// no chance in them; x509.ts takes milliseconds of real time in threads, which a simulated second cannot wait for.

import { createPrivateKey, createPublicKey, type KeyObject, sign } from 'node:crypto';
import type { CertificateTool, Root } from '../../manager/ca/certificate-tool.ts';
import { BACKDATED_MS, describeCertificate, unitOf } from '../../rpc/certificates.ts';

const ED25519 = der(0x30, Buffer.from('06032b6570', 'hex'));
const PKCS8_HEAD = Buffer.from('302e020100300506032b657004220420', 'hex');
const ORGANIZATION = '55040a';
const UNIT = '55040b';
const COMMON_NAME = '550403';
const CERT_SIGN = Buffer.from('03020106', 'hex');
const DIGITAL_SIGNATURE = Buffer.from('03020780', 'hex');
const ROOT_LIFE_MS = 10 * 365 * 24 * 3_600_000;

type Name = readonly (readonly [oid: string, value: string])[];

interface Content {
  readonly issuer: Name;
  readonly subject: Name;
  readonly publicKey: KeyObject;
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
  readonly isAuthority: boolean;
}

/** A certificate's hour is shorter here: its life is divided by `hurry`. */
export function quickCertificates(
  randomBytes: (count: number) => Buffer,
  { hurry }: { readonly hurry: number },
): CertificateTool {
  const write = (content: Content, key: KeyObject) => certificateOf(content, key, randomBytes(8));
  return {
    async createRoot({ clusterId, nowMs, lifeMs = ROOT_LIFE_MS }) {
      const key = newKey(randomBytes);
      const name = rootName(clusterId);
      const content = { ...validity(nowMs, nowMs + lifeMs), isAuthority: true };
      const publicKey = createPublicKey(key);
      const certificatePem = write({ ...content, issuer: name, subject: name, publicKey }, key);
      return { certificatePem, keyPem: pemOfKey(key) };
    },
    async createKeyAndRequest() {
      const key = newKey(randomBytes);
      const requestPem = createPublicKey(key).export({ type: 'spki', format: 'pem' }).toString();
      return { keyPem: pemOfKey(key), requestPem };
    },
    async issue({ requestPem, root, subject: { nodeId, role, clusterId }, nowMs, lifeMs }) {
      const content = {
        issuer: nameOf(root),
        subject: [
          [ORGANIZATION, clusterId],
          [UNIT, unitOf(role)],
          [COMMON_NAME, nodeId],
        ] as const,
        publicKey: createPublicKey(requestPem),
        ...validity(nowMs, nowMs + lifeMs / hurry),
        isAuthority: false,
      };
      return write(content, createPrivateKey(root.keyPem));
    },
    async crossSign({ newRootPem, oldRoot, nowMs }) {
      const { publicKey, clusterId } = describeCertificate(newRootPem);
      const content = {
        issuer: nameOf(oldRoot),
        subject: rootName(clusterId),
        publicKey: createPublicKey({ key: Buffer.from(publicKey), type: 'spki', format: 'der' }),
        ...validity(nowMs, nowMs + ROOT_LIFE_MS),
        isAuthority: true,
      };
      return write(content, createPrivateKey(oldRoot.keyPem));
    },
  };
}

function rootName(clusterId: string): Name {
  return [
    [ORGANIZATION, clusterId],
    [COMMON_NAME, 'swarm-ca'],
  ];
}

function nameOf({ certificatePem }: Root): Name {
  return rootName(describeCertificate(certificatePem).clusterId);
}

function newKey(randomBytes: (count: number) => Buffer): KeyObject {
  return createPrivateKey({
    key: Buffer.concat([PKCS8_HEAD, randomBytes(32)]),
    type: 'pkcs8',
    format: 'der',
  });
}

function pemOfKey(key: KeyObject): string {
  return key.export({ type: 'pkcs8', format: 'pem' }).toString();
}

function validity(issuedMs: number, endMs: number): Pick<Content, 'notBeforeMs' | 'notAfterMs'> {
  return { notBeforeMs: issuedMs - BACKDATED_MS, notAfterMs: endMs };
}

/** RFC 5280 §4.1, with as little as OpenSSL wants to see. */
function certificateOf(content: Content, key: KeyObject, serial: Buffer): string {
  const { issuer, subject, publicKey, notBeforeMs, notAfterMs, isAuthority } = content;
  const body = der(
    0x30,
    der(0xa0, der(0x02, Buffer.from([2]))),
    der(0x02, Buffer.concat([Buffer.from([0x10]), serial])),
    ED25519,
    derName(issuer),
    der(0x30, derTime(notBeforeMs), derTime(notAfterMs)),
    derName(subject),
    publicKey.export({ type: 'spki', format: 'der' }),
    der(
      0xa3,
      der(
        0x30,
        extension('551d13', der(0x30, ...(isAuthority ? [der(0x01, Buffer.from([0xff]))] : []))),
        extension('551d0f', isAuthority ? CERT_SIGN : DIGITAL_SIGNATURE),
      ),
    ),
  );
  const signature = der(0x03, Buffer.from([0]), sign(null, body, key));
  const text = der(0x30, body, ED25519, signature).toString('base64');
  const lines = text.match(/.{1,64}/g) ?? [];
  return ['-----BEGIN CERTIFICATE-----', ...lines, '-----END CERTIFICATE-----', ''].join('\n');
}

function extension(oid: string, value: Buffer): Buffer {
  return der(0x30, derOid(oid), der(0x01, Buffer.from([0xff])), der(0x04, value));
}

function derName(name: Name): Buffer {
  const parts = name.map(([oid, value]) => der(0x31, der(0x30, derOid(oid), der(0x0c, Buffer.from(value)))));
  return der(0x30, ...parts);
}

function derOid(hex: string): Buffer {
  return der(0x06, Buffer.from(hex, 'hex'));
}

/** UTCTime: until 2049. */
function derTime(ms: number): Buffer {
  const digits = new Date(ms).toISOString().replace(/\.\d+|[-:T]/g, '');
  return der(0x17, Buffer.from(digits.slice(2)));
}

function der(tag: number, ...parts: readonly Buffer[]): Buffer {
  const content = Buffer.concat(parts);
  const { length } = content;
  const size =
    length < 0x80 ? [length] : length < 0x100 ? [0x81, length] : [0x82, length >> 8, length & 0xff];
  return Buffer.concat([Buffer.from([tag, ...size]), content]);
}
