// Leads the nodes over to a new root: carries out what plan-rotation.ts says, and ends the rotation when all are there.

import type { Clock } from '../../core/clock.ts';
import type { Node } from '../../core/generated/objects.ts';
import type { RandomBytes } from '../../core/ids.ts';
import { newJoinSecret } from '../../core/join-token.ts';
import { caLog } from '../log.ts';
import { runLoop } from '../loop.ts';
import type { Store } from '../store/store.ts';
import type { Transaction } from '../store/transaction.ts';
import { digestOf, theCluster } from './authority.ts';
import { planRotation, type RotatingNode } from './plan-rotation.ts';

export interface RotationLoopOptions {
  readonly store: Store;
  readonly clock: Clock;
  readonly randomBytes: RandomBytes;
  readonly onFailure?: (error: unknown) => void;
}

/** Runs until the signal aborts. */
export function runRotationLoop(options: RotationLoopOptions, signal: AbortSignal): Promise<void> {
  const { store, clock } = options;
  const pass = async () => {
    const { rotation } = theCluster(store.view).secrets;
    if (rotation === undefined) return undefined;
    const nowMs = clock.nowMs();
    const newRootDigest = digestOf(rotation.next.certificate);
    const nodes = [...store.view.node.values()].map((node) => rotatingNode(node, newRootDigest));
    const plan = planRotation(nodes, { newRootDigest, nowMs });
    if (plan.isFinished) await finish(options, newRootDigest);
    else await ask(store, plan.ask, nowMs);
    caLog.info({ progress: plan.progress }, plan.isFinished ? 'root rotated' : 'root rotation');
    return plan.wakeAtMs;
  };
  const isRelevant: Parameters<typeof runLoop>[0]['isRelevant'] = ({ decisive }) =>
    decisive.some(
      ({ kind, action, object, previous }) =>
        kind === 'cluster' ||
        (kind === 'node' && (action === 'removed' || isNews(object as Node, previous as Node | undefined))),
    );
  return runLoop({ name: 'rotation', isRelevant, pass, ...options }, signal);
}

function isNews(node: Node, previous: Node | undefined): boolean {
  return (
    previous?.description.trust !== node.description.trust || previous.status.state !== node.status.state
  );
}

function rotatingNode({ id, description, status, renewalAskedAtMs }: Node, newRoot: string): RotatingNode {
  const { trust, hostname } = description;
  return {
    id,
    name: hostname || id,
    state: status.state,
    issuerDigest: trust.issuer,
    trustsNewRoot: trust.roots.includes(newRoot),
    askedAtMs: renewalAskedAtMs,
  };
}

async function ask(store: Store, nodeIds: readonly string[], nowMs: number): Promise<void> {
  await store.batch(
    nodeIds.map((id) => (tx: Transaction) => {
      const node = tx.get('node', id);
      if (node !== undefined) tx.update('node', { ...node, renewalAskedAtMs: nowMs });
    }),
  );
}

/** The old root goes, and with it the tokens that name it. */
async function finish({ store, randomBytes }: RotationLoopOptions, newRootDigest: string): Promise<void> {
  await store.update((tx) => {
    const cluster = theCluster(tx.view);
    const { rotation } = cluster.secrets;
    // Another rotation may have begun in the meantime.
    if (rotation === undefined || digestOf(rotation.next.certificate) !== newRootDigest) return;
    tx.update('cluster', {
      ...cluster,
      secrets: {
        root: rotation.next,
        unlockKey: cluster.secrets.unlockKey,
        workerSecret: newJoinSecret(randomBytes),
        managerSecret: newJoinSecret(randomBytes),
      },
    });
  });
}
