// Mutual TLS between nodes. Who a peer is stands in its certificate: the common name is the node's id. Nothing else of
// it (host names, addresses) is looked at, since nodes move.

import { X509Certificate } from 'node:crypto';
import type { PeerCertificate } from 'node:tls';
import { ChannelCredentials, ServerCredentials } from '@grpc/grpc-js';

/** PEM: what a node shows, and whom it believes. */
export interface TlsIdentity {
  readonly certificate: Buffer;
  readonly key: Buffer;
  readonly authority: Buffer;
}

/** For a connection to the node of this id: anybody else of the same authority is refused. */
export function clientCredentials(identity: TlsIdentity, nodeId: string): ChannelCredentials {
  const { authority, key, certificate } = identity;
  return ChannelCredentials.createSsl(authority, key, certificate, {
    checkServerIdentity: (_host, { subject }: PeerCertificate) =>
      subject.CN === nodeId
        ? undefined
        : new Error(`expected node ${nodeId}, but node ${subject.CN} answers`),
  });
}

/** For a server that talks only to nodes with a certificate of the authority. */
export function serverCredentials({ authority, key, certificate }: TlsIdentity): ServerCredentials {
  return ServerCredentials.createSsl(authority, [{ private_key: key, cert_chain: certificate }], true);
}

/** The node id in a certificate, as PEM or as a connection shows it. */
export function nodeIdOf(certificate: PeerCertificate | Buffer): string {
  if (!Buffer.isBuffer(certificate)) return String(certificate.subject?.CN ?? '');
  return /^CN=(.+)$/m.exec(new X509Certificate(certificate).subject)?.[1] ?? '';
}
