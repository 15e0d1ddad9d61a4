// Empties nodes that are to be drained, and lets stay what has not gone when a drain is taken back. Waits and writes; planDrain
// decides, and the service loop replaces what is marked.

import type { Clock } from '../../core/clock.ts';
import type { Node, Task } from '../../core/generated/objects.ts';
import { earliest, runLoop } from '../loop.ts';
import type { FreshCommit, Store } from '../store/store.ts';
import type { Transaction } from '../store/transaction.ts';
import { DRAIN_REASON, drainable, isSpared, planDrain } from './plan-drain.ts';
import { isSameToPlanners } from './task-news.ts';

export interface DrainOptions {
  readonly store: Store;
  readonly clock: Clock;
  readonly onFailure?: (error: unknown) => void;
}

/** Runs until the signal aborts. */
export function runDrainLoop(options: DrainOptions, signal: AbortSignal): Promise<void> {
  const { store, clock } = options;
  /** Nodes that have something left, and those whose drain was taken back, maybe under another leader. */
  const draining = new Set<string>([...store.view.node.values()].map(({ id }) => id));
  /** Services of what is left there, and of what has gone and whose successors may be coming. */
  const concerned = new Set<string>();
  const pass = async () => {
    const nowMs = clock.nowMs();
    const steps: ((tx: Transaction) => void)[] = [];
    const done: string[] = [];
    let wakeAtMs: number | undefined;
    concerned.clear();
    for (const id of draining) {
      const node = store.view.node.get(id);
      if (node?.spec.availability !== 'drain' || drainable(store.view, id).length === 0) {
        steps.push((tx) => spare(tx, id));
        done.push(id);
        continue;
      }
      for (const { serviceId } of store.view.tasksOnNode(id)) concerned.add(serviceId);
      const plan = planDrain(store.view, node, nowMs);
      for (const { task, leavesLast } of plan.evict) steps.push((tx) => evict(tx, task, leavesLast));
      wakeAtMs = earliest(wakeAtMs, plan.wakeAtMs);
    }
    for (const id of done) draining.delete(id);
    try {
      await store.batch(steps);
    } catch (error) {
      for (const id of done) draining.add(id);
      throw error;
    }
    return wakeAtMs;
  };
  const isRelevant = ({ decisive }: FreshCommit) => {
    let isRelevant = false;
    for (const { kind, object, previous } of decisive) {
      if (kind === 'task' && isSameToPlanners(object as Task, previous as Task | undefined)) continue;
      const nodeId = kind === 'node' ? object.id : kind === 'task' ? (object as Task).nodeId : '';
      const wasDrained = kind === 'node' && isToDrain(previous as Node | undefined);
      // A scheduler that had not heard of it may have given it another task.
      const isDrained = wasDrained || isToDrain(store.view.node.get(nodeId));
      if (isDrained) draining.add(nodeId);
      isRelevant ||= isDrained || (kind === 'task' && concerned.has((object as Task).serviceId));
    }
    return isRelevant;
  };
  return runLoop({ name: 'drain', isRelevant, pass, ...options }, signal);
}

function isToDrain(node: Node | undefined): boolean {
  return node?.spec.availability === 'drain';
}

/** A step for each node: a new leader looks at all of them, and its other work goes on in between. */
function spare(tx: Transaction, nodeId: string): void {
  const node = tx.view.node.get(nodeId);
  if (node === undefined || isToDrain(node)) return;
  for (const task of tx.view.tasksOnNode(nodeId)) {
    if (!isSpared(task, node)) continue;
    const { eviction: _, leavesLast: __, ...rest } = task;
    tx.update('task', rest);
  }
}

function evict(tx: Transaction, { id, nodeId }: Task, leavesLast: boolean): void {
  const task = tx.view.task.get(id);
  if (task === undefined || !isToDrain(tx.view.node.get(nodeId))) return;
  tx.update('task', { ...task, eviction: task.eviction ?? DRAIN_REASON, leavesLast });
}
