// Mutual TLS between nodes. Who a peer is stands in its certificate: the common name is the node's id. Nothing else of
// it (host names, addresses) is looked at, since nodes move.

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
    checkServerIdentity: (_host, shown: PeerCertificate) =>
      nodeIdOf(shown) === nodeId
        ? undefined
        : new Error(`expected node ${nodeId}, but node ${nodeIdOf(shown)} answers`),
  });
}

/** For a server that talks only to nodes with a certificate of the authority. */
export function serverCredentials({ authority, key, certificate }: TlsIdentity): ServerCredentials {
  return ServerCredentials.createSsl(authority, [{ private_key: key, cert_chain: certificate }], true);
}

/** The node id in a certificate, as a connection shows it; empty when it has none. */
export function nodeIdOf({ subject }: PeerCertificate): string {
  return String(subject?.CN ?? '');
}
