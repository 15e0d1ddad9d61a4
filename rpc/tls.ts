// Mutual TLS between nodes. Who a peer is stands in its certificate, in Swarm's way: the common name is the node's id, the
// organizational unit its role, the organization its cluster. Nothing else of it is looked at, since nodes move.

import { createSecureContext, type PeerCertificate, type SecureContextOptions } from 'node:tls';
import { ChannelCredentials } from '@grpc/grpc-js';

/** PEM: what a node shows (its certificate and what leads to an older root), with which key, and whom it believes. */
export interface TlsIdentity {
  readonly certificate: string;
  readonly key: string;
  readonly roots: string;
}

export type NodeRole = 'worker' | 'manager';

/** What a certificate says of its owner. */
export interface CertificateSubject {
  readonly nodeId: string;
  readonly role: NodeRole | undefined;
  readonly clusterId: string;
}

const ROLE_UNITS: Readonly<Record<string, NodeRole>> = {
  'swarm-worker': 'worker',
  'swarm-manager': 'manager',
};

/** Of TLS in both directions. Every node of ours speaks 1.3, so nothing older is offered. */
export function secureContextOptions({ certificate, key, roots }: TlsIdentity): SecureContextOptions {
  return { cert: certificate, key, ca: roots, minVersion: 'TLSv1.3' };
}

/** For a connection to a manager of the cluster, or to that very one: anybody else is refused. */
export function clientCredentials(
  identity: TlsIdentity,
  expected: { readonly clusterId: string; readonly nodeId?: string },
): ChannelCredentials {
  return ChannelCredentials.createFromSecureContext(createSecureContext(secureContextOptions(identity)), {
    checkServerIdentity: (_host, shown) => refusalOf(subjectOf(shown), expected),
  });
}

/** For a machine that is in no cluster yet and believes these roots: any manager of theirs will do. */
export function anonymousCredentials(roots: string): ChannelCredentials {
  const context = createSecureContext({ ca: roots, minVersion: 'TLSv1.3' });
  return ChannelCredentials.createFromSecureContext(context, {
    checkServerIdentity: (_host, shown) => refusalOf(subjectOf(shown), {}),
  });
}

/** For the one call that is made before there is anybody to believe: what it brings has to be verified. */
export function unverifiedCredentials(): ChannelCredentials {
  return ChannelCredentials.createFromSecureContext(createSecureContext({ minVersion: 'TLSv1.3' }), {
    rejectUnauthorized: false,
  });
}

/** The owner of a certificate, as a connection shows it. */
export function subjectOf({ subject }: PeerCertificate): CertificateSubject {
  return {
    nodeId: String(subject?.CN ?? ''),
    role: ROLE_UNITS[String(subject?.OU ?? '')],
    clusterId: String(subject?.O ?? ''),
  };
}

function refusalOf(
  { nodeId, role, clusterId }: CertificateSubject,
  expected: { readonly clusterId?: string; readonly nodeId?: string },
): Error | undefined {
  if (role !== 'manager') return new Error(`node ${nodeId} answers, which is no manager`);
  if (expected.clusterId !== undefined && expected.clusterId !== clusterId)
    return new Error(`a manager of cluster ${clusterId} answers, expected one of ${expected.clusterId}`);
  if (expected.nodeId !== undefined && expected.nodeId !== nodeId)
    return new Error(`expected node ${expected.nodeId}, but node ${nodeId} answers`);
  return undefined;
}
