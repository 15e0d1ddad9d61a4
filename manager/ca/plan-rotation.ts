// How a cluster gets a new root: every node is asked for a certificate of it, a batch at a time, and the old root goes when
// all have one. Nodes that are down hold it up until they come back or are removed. Pure; what it has to remember stands
// with the nodes.

import type { NodeState } from '../../core/generated/objects.ts';

/** Swarm's: so many nodes at a time, */
export const ROTATION_BATCH_MAX = 30;
/** and so long between two batches. */
export const ROTATION_INTERVAL_MS = 3_000;
// A node renews within seconds. One that cannot does not keep the others waiting.
const RENEWAL_LIMIT_MS = 60_000;
// Of the nodes that hold it up so many are named.
const NAMES_MAX = 5;

export interface RotatingNode {
  readonly id: string;
  /** For people. */
  readonly name: string;
  readonly state: NodeState;
  /** Hexadecimal digest of the root whose key signed the certificate that the node uses, as it said last; empty: unknown. */
  readonly issuerDigest: string;
  /** It has said that it trusts the new root. */
  readonly trustsNewRoot: boolean;
  /** When it was asked to renew in this rotation; 0: not yet. */
  readonly askedAtMs: number;
}

export interface RotationPlan {
  /** Ids of the nodes to ask now; each is asked once, and goes on being asked until it has renewed. */
  readonly ask: readonly string[];
  /** Every node uses and trusts the new root: the old one may go, and join tokens be made anew. */
  readonly isFinished: boolean;
  readonly renewedCount: number;
  readonly totalCount: number;
  /** Names of nodes that are down and have not renewed. */
  readonly heldUpBy: readonly string[];
  /** "12 of 40 nodes", and what holds it up. */
  readonly progress: string;
  /** When to decide again although nothing has changed. */
  readonly wakeAtMs?: number;
}

/** Decides from all nodes of the cluster. */
export function planRotation(
  nodes: readonly RotatingNode[],
  { newRootDigest, nowMs }: { readonly newRootDigest: string; readonly nowMs: number },
): RotationPlan {
  const pending = nodes.filter((node) => node.issuerDigest !== newRootDigest || !node.trustsNewRoot);
  const heldUpBy = pending.filter(({ state }) => state === 'down').map(({ name }) => name);
  const renewedCount = nodes.length - pending.length;
  return {
    ...nextBatch(nodes, pending, nowMs),
    isFinished: pending.length === 0,
    renewedCount,
    totalCount: nodes.length,
    heldUpBy,
    progress: describeProgress(renewedCount, nodes.length, heldUpBy),
  };
}

function nextBatch(
  nodes: readonly RotatingNode[],
  pending: readonly RotatingNode[],
  nowMs: number,
): Pick<RotationPlan, 'ask' | 'wakeAtMs'> {
  const waiting = pending.filter(({ askedAtMs, state }) => askedAtMs === 0 && state !== 'down');
  if (waiting.length === 0) return { ask: [] };
  const nextAtMs = Math.max(0, ...nodes.map(({ askedAtMs }) => askedAtMs)) + ROTATION_INTERVAL_MS;
  if (nowMs < nextAtMs) return { ask: [], wakeAtMs: nextAtMs };
  const free = ROTATION_BATCH_MAX - pending.filter((node) => isRenewing(node, nowMs)).length;
  const ask = waiting.slice(0, Math.max(0, free)).map(({ id }) => id);
  return ask.length === waiting.length ? { ask } : { ask, wakeAtMs: nowMs + ROTATION_INTERVAL_MS };
}

/** Whether a node that has been asked counts against the batch: it may still be about to renew. */
export function isRenewing({ state, askedAtMs }: RotatingNode, nowMs: number): boolean {
  return askedAtMs !== 0 && state !== 'down' && nowMs - askedAtMs < RENEWAL_LIMIT_MS;
}

function describeProgress(renewed: number, total: number, heldUpBy: readonly string[]): string {
  const progress = `${renewed} of ${total} nodes`;
  if (heldUpBy.length === 0) return progress;
  const more = heldUpBy.length - NAMES_MAX;
  const names = heldUpBy.slice(0, NAMES_MAX).join(', ') + (more > 0 ? ` and ${more} more` : '');
  return `${progress}; down: ${names} (bring back or remove what is down)`;
}
