// Certificates for nodes: a new node shows a join token, a member the certificate that it has.

import type { Clock } from '../../core/clock.ts';
import { SwarmError } from '../../core/errors.ts';
import { emptyMeta, emptyNodeDescription, type Node, type NodeRole } from '../../core/generated/objects.ts';
import { newId, type RandomBytes } from '../../core/ids.ts';
import type { IssueCertificateRequest, NodeCaService } from '../../proto/generated/membership.ts';
import type { Caller } from '../../rpc/caller.ts';
import { describeCertificate, verifyChain } from '../../rpc/certificates.ts';
import type { Handlers } from '../../rpc/server.ts';
import { caLog } from '../log.ts';
import type { Store } from '../store/store.ts';
import { issueCertificate, roleOfToken, theCluster, trustedRoots } from './authority.ts';
import type { CertificateTool } from './certificate-tool.ts';

export interface NodeCaOptions {
  readonly store: Store;
  readonly clock: Clock;
  readonly randomBytes: RandomBytes;
  readonly tool: CertificateTool;
}

/** For the leader; `getRoots`, and renewals of the manager's own node, any manager can answer. */
export function nodeCaHandlers(options: NodeCaOptions): Handlers<typeof NodeCaService> {
  const { store } = options;
  return {
    // A manager that has just come has none to show yet; that it answers is what the others want to know.
    getRoots: () => {
      const [cluster] = store.view.cluster.values();
      const certificates = cluster === undefined ? '' : trustedRoots(cluster.secrets);
      return { certificates, nowMs: options.clock.nowMs() };
    },
    issueCertificate: async (request, { caller }) => {
      const cluster = theCluster(store.view);
      const owner =
        request.token === '' ? member(options, caller) : newcomer(options, cluster.secrets, request.token);
      // Signed before the node is made: an authority that cannot be reached leaves no node behind that never came.
      const certificate = await issueCertificate(options, cluster, {
        requestPem: request.request,
        subject: { nodeId: owner.nodeId, role: owner.role, clusterId: cluster.id },
      });
      if (owner.isNew) await createNode(options, request, owner);
      return {
        nodeId: owner.nodeId,
        certificate,
        roots: trustedRoots(theCluster(store.view).secrets),
      };
    },
  };
}

interface Owner {
  readonly nodeId: string;
  readonly role: NodeRole;
  readonly isNew: boolean;
}

function newcomer(
  { randomBytes }: NodeCaOptions,
  secrets: Parameters<typeof roleOfToken>[0],
  token: string,
): Owner {
  return { nodeId: newId(randomBytes), role: roleOfToken(secrets, token), isNew: true };
}

/** Who has a certificate gets one for what the cluster has it for by now. */
function member(options: NodeCaOptions, caller: Caller): Owner {
  const nodeId = caller.expiredCertificate
    ? ownerOfExpired(options, caller.expiredCertificate)
    : caller.nodeId;
  const node = options.store.view.node.get(nodeId);
  if (nodeId === '' || node === undefined)
    throw new SwarmError('permission-denied', 'token: a node that is no member needs one to join', {
      hint: 'A manager prints it: tsswarm join-token worker|manager.',
    });
  return { nodeId, role: node.role, isNew: false };
}

/** An expired certificate proves who its owner is, but is taken for that only while an operator allows it. */
function ownerOfExpired({ store, clock }: NodeCaOptions, shown: Buffer): string {
  const { spec, secrets } = theCluster(store.view);
  const pem = shown.toString();
  const { nodeId, notAfterMs } = describeCertificate(pem);
  if (clock.nowMs() > spec.acceptExpiredUntilMs)
    throw new SwarmError('permission-denied', `the certificate of node ${nodeId} has expired`, {
      hint: 'On a manager, "tsswarm cluster update --accept-expired 1h" lets nodes renew expired certificates for an hour.',
    });
  // The connection says only that its time is over, and may have said so of a certificate of anybody.
  verifyChain(pem, trustedRoots(secrets), notAfterMs - 1);
  caLog.warn({ 'node.id': nodeId }, 'an expired certificate is renewed');
  return nodeId;
}

async function createNode(
  { store, clock }: NodeCaOptions,
  { availability, address, dataPathAddress, labels }: IssueCertificateRequest,
  { nodeId, role }: Owner,
): Promise<void> {
  const node: Node = {
    id: nodeId,
    meta: emptyMeta,
    spec: { name: '', labels, availability, desiredRole: role },
    description: emptyNodeDescription,
    status: { state: 'unknown', message: 'waiting for its agent', address, sinceMs: clock.nowMs() },
    role,
    roleMessage: '',
    renewalAskedAtMs: 0,
    dataPathAddress,
    tunnelAddress: '',
  };
  await store.update((tx) => tx.create('node', node));
  caLog.info({ 'node.id': nodeId, role, address }, 'node joined');
}
