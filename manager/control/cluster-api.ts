// The cluster itself, as operators look at it and change it: settings, join tokens, unlock key, authority.

import { SwarmError } from '../../core/errors.ts';
import {
  type Cluster,
  type ClusterSpec,
  emptyClusterSecrets,
  type RootAuthority,
  type RootRotation,
} from '../../core/generated/objects.ts';
import { newJoinSecret } from '../../core/join-token.ts';
import { newUnlockKey } from '../../core/unlock-key.ts';
import { validateClusterSpec } from '../../core/validate-cluster.ts';
import type {
  GetAuthorityResponse,
  GetClusterResponse,
  GetJoinTokensResponse,
  RotateAuthorityRequest,
  RotateAuthorityResponse,
  UpdateClusterRequest,
  UpdateClusterResponse,
} from '../../proto/generated/control.ts';
import { requireRoot } from '../../rpc/certificates.ts';
import { digestOf, joinToken, theCluster } from '../ca/authority.ts';
import type { TablesView } from '../store/tables.ts';
import type { Transaction } from '../store/transaction.ts';
import type { ControlOptions } from './control-api.ts';

export function getCluster(view: TablesView): GetClusterResponse {
  const nodes = [...view.node.values()];
  return {
    cluster: withoutSecrets(theCluster(view)),
    nodes: nodes.length,
    managers: nodes.filter((node) => node.role === 'manager').length,
  };
}

export async function updateCluster(
  { store, randomBytes }: ControlOptions,
  request: UpdateClusterRequest,
): Promise<UpdateClusterResponse> {
  if (request.spec !== undefined) validateClusterSpec(request.spec);
  const { rotateWorkerToken, rotateManagerToken, rotateUnlockKey } = request;
  await store.update((tx) => {
    const cluster = theCluster(tx.view);
    const spec = request.spec ?? cluster.spec;
    const { secrets } = cluster;
    if (rotateUnlockKey && !spec.autolock)
      throw new SwarmError('failed-precondition', 'unlock-key: the managers are not locked', {
        hint: 'Turn it on with "tsswarm cluster update --autolock=true".',
      });
    const unlockKey = !spec.autolock
      ? ''
      : rotateUnlockKey || secrets.unlockKey === ''
        ? newUnlockKey(randomBytes)
        : secrets.unlockKey;
    const next: Cluster = {
      ...cluster,
      spec,
      secrets: {
        ...secrets,
        ...(rotateWorkerToken && { workerSecret: newJoinSecret(randomBytes) }),
        ...(rotateManagerToken && { managerSecret: newJoinSecret(randomBytes) }),
        unlockKey,
      },
    };
    tx.update('cluster', next, request.spec === undefined ? undefined : request.version);
  });
  return { cluster: withoutSecrets(theCluster(store.view)) };
}

export function getJoinTokens(view: TablesView, leaderAddress: string | undefined): GetJoinTokensResponse {
  const { secrets } = theCluster(view);
  const addresses = [...view.node.values()]
    .map(({ managerStatus }) => managerStatus?.address ?? '')
    .filter((address) => address !== '')
    .sort((a, b) => Number(b === leaderAddress) - Number(a === leaderAddress));
  return { worker: joinToken(secrets, 'worker'), manager: joinToken(secrets, 'manager'), addresses };
}

/** How far a rotation is: a node is done when it shows a certificate of the next root and believes that root. */
export function getAuthority(view: TablesView): GetAuthorityResponse {
  const { root, rotation } = theCluster(view).secrets;
  if (rotation === undefined) return { certificate: root.certificate };
  const next = digestOf(rotation.next.certificate);
  const nodes = [...view.node.values()];
  const waiting = nodes.filter(
    ({ description: { trust } }) => trust.issuer !== next || !trust.roots.includes(next),
  );
  return {
    certificate: root.certificate,
    rotation: {
      nextCertificate: rotation.next.certificate,
      nodes: nodes.length,
      nodesDone: nodes.length - waiting.length,
      waitingFor: waiting.map(
        ({ id, description: { hostname }, status: { state } }) => `${hostname || id} (${state})`,
      ),
    },
  };
}

/** Begins, or begins anew with another root. Nodes are led over by the rotation loop. */
export async function rotateAuthority(
  { store, clock, tool }: ControlOptions,
  { certificate, key, externalCas, certificateLifeMs }: RotateAuthorityRequest,
): Promise<RotateAuthorityResponse> {
  const nowMs = clock.nowMs();
  if (certificate === '' && key !== '')
    throw new SwarmError('invalid-argument', 'ca-key: it needs --ca-cert with the certificate of the key');
  if (certificate !== '')
    requireRoot({ certificatePem: certificate, ...(key !== '' && { keyPem: key }) }, nowMs);
  const cluster = theCluster(store.view);
  const changes = {
    ...(externalCas.length > 0 && { externalCas }),
    ...(certificateLifeMs > 0 && { certificateLifeMs }),
  };
  const spec = { ...cluster.spec, ...changes };
  validateClusterSpec(spec);
  if (certificate !== '' && key === '' && spec.externalCas.length === 0)
    throw new SwarmError(
      'invalid-argument',
      'ca-key: without it an --external-ca has to sign for the certificate',
    );
  const made =
    certificate === ''
      ? await tool.createRoot({ clusterId: cluster.id, nowMs })
      : { certificatePem: certificate, keyPem: key };
  for (;;) {
    const { root } = theCluster(store.view).secrets;
    requireKey(root);
    const crossCertificate = await tool.crossSign({
      newRootPem: made.certificatePem,
      oldRoot: { certificatePem: root.certificate, keyPem: root.key },
      nowMs,
    });
    const next = { certificate: made.certificatePem, key: made.keyPem };
    const isBegun = await store.update((tx) =>
      beginRotation(tx, root, changes, { next, crossCertificate, startedAtMs: nowMs }),
    );
    if (isBegun) return { certificate: made.certificatePem };
  }
}

/** False when another root signs by now, the rotation before having ended: nobody would believe what the old one has signed. */
function beginRotation(
  tx: Transaction,
  root: RootAuthority,
  changes: Partial<ClusterSpec>,
  rotation: RootRotation,
): boolean {
  const { spec, secrets, ...current } = theCluster(tx.view);
  if (secrets.root.certificate !== root.certificate) return false;
  tx.update('cluster', { ...current, spec: { ...spec, ...changes }, secrets: { ...secrets, rotation } });
  for (const node of tx.view.node.values())
    if (node.renewalAskedAtMs !== 0) tx.update('node', { ...node, renewalAskedAtMs: 0 });
  return true;
}

function requireKey({ key }: RootAuthority): void {
  if (key === '')
    throw new SwarmError(
      'failed-precondition',
      'the key of the current root is with an external CA: only that can sign the next root',
      { hint: 'Let nodes join again with a new token, or give the root a key first.' },
    );
}

function withoutSecrets(cluster: Cluster): Cluster {
  return { ...cluster, secrets: emptyClusterSecrets };
}
