// Gives nodes up that are down. Waits and writes; planLostNodes decides, and the service loop replaces their tasks.

import type { Clock } from '../../core/clock.ts';
import { defaultClusterSpec } from '../../core/defaults.ts';
import type { Node, NodeStatus, Task } from '../../core/generated/objects.ts';
import { isTerminal, isWanted } from '../../core/task-state.ts';
import { loopLog } from '../log.ts';
import { runLoop } from '../loop.ts';
import type { FreshCommit, Store } from '../store/store.ts';
import type { Transaction } from '../store/transaction.ts';
import { planLostNodes } from './plan-lost-nodes.ts';

export interface LostNodesOptions {
  readonly store: Store;
  readonly clock: Clock;
  readonly onFailure?: (error: unknown) => void;
}

/** Runs until the signal aborts. */
export function runLostNodesLoop(options: LostNodesOptions, signal: AbortSignal): Promise<void> {
  const { store, clock } = options;
  const ledSinceMs = clock.nowMs();
  const pass = async () => {
    const nowMs = clock.nowMs();
    const [cluster] = store.view.cluster.values();
    const plan = planLostNodes(store.view, cluster?.spec ?? defaultClusterSpec, nowMs, ledSinceMs);
    await store.batch([
      ...plan.giveUp.map(
        ({ node, isCounted }) =>
          (tx: Transaction) =>
            putStatus(tx, node, { held: false, ...(isCounted && { givenUpAtMs: nowMs }) }),
      ),
      ...plan.hold.map(
        ({ node, message }) =>
          (tx: Transaction) =>
            putStatus(tx, node, { message }),
      ),
      ...plan.orphan.map((task) => (tx: Transaction) => orphan(tx, task, nowMs)),
    ]);
    return plan.wakeAtMs;
  };
  const isRelevant = ({ decisive }: FreshCommit) =>
    decisive.some(({ kind, object, previous }) =>
      kind === 'node' ? isChanged(object as Node, previous as Node | undefined) : kind === 'cluster',
    );
  return runLoop({ name: 'lost-nodes', isRelevant, pass, ...options }, signal);
}

/** Its own giving up as well: from then on the time runs after which the tasks are orphaned. */
function isChanged({ status }: Node, previous: Node | undefined): boolean {
  return status.state !== previous?.status.state || status.held !== previous.status.held;
}

/** Of a node that is down still. */
function putStatus(tx: Transaction, { id }: Node, change: Partial<NodeStatus>): void {
  const node = tx.view.node.get(id);
  if (node === undefined || node.status.state !== 'down' || node.status.held !== true) return;
  if (change.message === node.status.message) return;
  if (change.message !== undefined)
    loopLog.warn({ 'node.id': id, reason: change.message }, 'node is held by the brake');
  else loopLog.info({ 'node.id': id }, 'node is given up');
  tx.update('node', { ...node, status: { ...node.status, ...change } });
}

/** Nobody will hear of it again: what it had is free, and its node is to end it should it come back. */
function orphan(tx: Transaction, { id, nodeId }: Task, nowMs: number): void {
  const task = tx.view.task.get(id);
  if (task === undefined || isTerminal(task.status.state)) return;
  if (tx.view.node.get(nodeId)?.status.state !== 'down') return;
  const status = {
    ...task.status,
    state: 'orphaned' as const,
    timestampMs: nowMs,
    error: 'its node has been down for too long',
  };
  tx.update('task', { ...task, status, ...(isWanted(task) && { desiredState: 'shutdown' as const }) });
}
