// What the certificates of nodes look like from the cluster's side, in Docker's words. Pure.

import { X509Certificate } from 'node:crypto';
import type { Node } from '../../core/generated/objects.ts';
import type { GetAuthorityResponse } from '../../proto/generated/control.ts';
import { rootDigest, splitPem } from '../../rpc/certificates.ts';

/** The roots of the cluster in PEM by their digest, as nodes name them; the last is the one that all nodes shall have. */
export type ClusterRoots = ReadonlyMap<string, string>;

export type TlsStatus = 'Ready' | 'Needs Rotation' | 'Unknown';

export function clusterRoots({ certificate, rotation }: GetAuthorityResponse): ClusterRoots {
  const roots = [certificate, rotation?.nextCertificate ?? ''].flatMap(splitPem);
  return new Map(roots.map((pem) => [Buffer.from(rootDigest(pem)).toString('hex'), pem]));
}

/** Unknown: the node has not said what it has. */
export function tlsStatus({ description: { trust } }: Node, roots: ClusterRoots, nowMs: number): TlsStatus {
  const wanted = [...roots.keys()].at(-1);
  if (trust.issuer === '' || wanted === undefined) return 'Unknown';
  const isExpired = trust.expiresAtMs > 0 && trust.expiresAtMs < nowMs;
  return trust.issuer === wanted && trust.roots.includes(wanted) && !isExpired ? 'Ready' : 'Needs Rotation';
}

/** Docker's `TLSInfo`; undefined when the node shows nothing that the cluster knows. */
export function tlsInfo({ description: { trust } }: Node, roots: ClusterRoots): TlsInfo | undefined {
  const issuer = roots.get(trust.issuer);
  if (issuer === undefined) return undefined;
  const { publicKey, raw } = new X509Certificate(issuer);
  return {
    TrustRoot: trust.roots.map((digest) => roots.get(digest) ?? '').join(''),
    CertIssuerSubject: Buffer.from(subjectOf(raw)).toString('base64'),
    CertIssuerPublicKey: publicKey.export({ type: 'spki', format: 'der' }).toString('base64'),
  };
}

export interface TlsInfo {
  /** PEM. */
  readonly TrustRoot: string;
  /** DER in base64, as the next. */
  readonly CertIssuerSubject: string;
  readonly CertIssuerPublicKey: string;
}

// RFC 5280, 4.1: the certificate's first part has version, serial, algorithm, issuer, validity, subject, in this order.
const SUBJECT = 5;
const CONSTRUCTED = 0x20;
const LONG_FORM = 0x80;

/** The subject of a certificate in DER as it stands there: Node's crypto has it as text only. */
function subjectOf(certificate: Uint8Array): Uint8Array {
  let rest = contentOf(contentOf(certificate));
  for (let field = 0; field < SUBJECT; field++) rest = rest.subarray(elementLength(rest).whole);
  return rest.subarray(0, elementLength(rest).whole);
}

function contentOf(element: Uint8Array): Uint8Array {
  if (((element[0] ?? 0) & CONSTRUCTED) === 0) return element.subarray(0, 0);
  const { header, whole } = elementLength(element);
  return element.subarray(header, whole);
}

function elementLength(bytes: Uint8Array): { readonly header: number; readonly whole: number } {
  const first = bytes[1] ?? 0;
  const count = first >= LONG_FORM ? first - LONG_FORM : 0;
  const length =
    count === 0 ? first : bytes.subarray(2, 2 + count).reduce((sum, byte) => sum * 256 + byte, 0);
  return { header: 2 + count, whole: 2 + count + length };
}
