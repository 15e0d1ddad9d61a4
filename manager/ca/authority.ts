// The cluster's authority, as the store has it: which roots are believed, which one signs, and what join tokens say.

import type { Clock } from '../../core/clock.ts';
import { SwarmError } from '../../core/errors.ts';
import type { Cluster, ClusterSecrets, NodeRole, RootAuthority } from '../../core/generated/objects.ts';
import type { RandomBytes } from '../../core/ids.ts';
import { formatJoinToken, newJoinSecret, parseJoinToken, secretsEqual } from '../../core/join-token.ts';
import { newUnlockKey } from '../../core/unlock-key.ts';
import { rootDigest, splitPem } from '../../rpc/certificates.ts';
import type { TablesView } from '../store/tables.ts';
import type { CertificateSubject, CertificateTool } from './certificate-tool.ts';
import { issueExternally } from './external-ca.ts';

/** Throws `unavailable` while the cluster is being created. */
export function theCluster(view: TablesView): Cluster {
  const [cluster] = view.cluster.values();
  if (cluster === undefined) throw new SwarmError('unavailable', 'the cluster is still being created');
  return cluster;
}

/** The secrets of a new cluster. */
export async function newSecrets(
  tool: CertificateTool,
  {
    clusterId,
    autolock,
    nowMs,
    randomBytes,
  }: { clusterId: string; autolock: boolean; nowMs: number; randomBytes: RandomBytes },
): Promise<ClusterSecrets> {
  const { certificatePem, keyPem } = await tool.createRoot({ clusterId, nowMs });
  return {
    root: { certificate: certificatePem, key: keyPem },
    workerSecret: newJoinSecret(randomBytes),
    managerSecret: newJoinSecret(randomBytes),
    unlockKey: autolock ? newUnlockKey(randomBytes) : '',
  };
}

/** PEM of everybody who is believed: the root, and during a rotation the one that follows it. */
export function trustedRoots({ root, rotation }: ClusterSecrets): string {
  return [root.certificate, rotation?.next.certificate ?? ''].join('');
}

/** Who signs now. */
export function signingRoot({ root, rotation }: ClusterSecrets): RootAuthority {
  return rotation?.next ?? root;
}

/** In hexadecimal: how a root is named in what nodes report. */
export function digestOf(certificatePem: string): string {
  return Buffer.from(rootDigest(certificatePem)).toString('hex');
}

/** The token for nodes of this role. */
export function joinToken({ root, workerSecret, managerSecret }: ClusterSecrets, role: NodeRole): string {
  const secret = role === 'manager' ? managerSecret : workerSecret;
  return formatJoinToken({ rootDigest: rootDigest(root.certificate), secret });
}

/** As what the token lets a node join. Throws `permission-denied` for a token of another cluster or an old one. */
export function roleOfToken(secrets: ClusterSecrets, text: string): NodeRole {
  const { rootDigest: given, secret } = parseJoinToken(text);
  const isOurs = splitPem(trustedRoots(secrets)).some(
    (root) => Buffer.compare(rootDigest(root), given) === 0,
  );
  if (!isOurs) throw new SwarmError('permission-denied', 'token: it belongs to another cluster');
  // Both are always compared: how long it takes tells nothing.
  const isManager = secretsEqual(secret, secrets.managerSecret);
  const isWorker = secretsEqual(secret, secrets.workerSecret);
  if (!isManager && !isWorker)
    throw new SwarmError('permission-denied', 'token: it is not valid any more', {
      hint: 'Ask a manager for the current one: tsswarm join-token worker|manager.',
    });
  return isManager ? 'manager' : 'worker';
}

/** A certificate for the key of the request, followed by what leads from it to an older root. */
export async function issueCertificate(
  { tool, clock }: { readonly tool: CertificateTool; readonly clock: Clock },
  { secrets, spec }: Cluster,
  { requestPem, subject }: { requestPem: string; subject: CertificateSubject },
): Promise<string> {
  const { certificate, key } = signingRoot(secrets);
  const asked = { requestPem, subject, lifeMs: spec.certificateLifeMs };
  const leaf =
    key === ''
      ? await issueExternally(
          spec.externalCas.map(({ url, caCertificate, options }) => ({
            url,
            caCertPem: caCertificate,
            options,
          })),
          { ...asked, rootsPem: certificate },
          clock,
        )
      : await tool.issue({
          ...asked,
          root: { certificatePem: certificate, keyPem: key },
          nowMs: clock.nowMs(),
        });
  return leaf + (secrets.rotation?.crossCertificate ?? '');
}
