// Empties nodes that are to be drained. Waits and writes; planDrain decides, and the service loop replaces what is marked.

import type { Clock } from '../../core/clock.ts';
import type { Node, Task } from '../../core/generated/objects.ts';
import { earliest, runLoop } from '../loop.ts';
import type { Commit, Store } from '../store/store.ts';
import type { Transaction } from '../store/transaction.ts';
import { DRAIN_REASON, drainable, planDrain } from './plan-drain.ts';
import { isSameToPlanners } from './task-news.ts';

export interface DrainOptions {
  readonly store: Store;
  readonly clock: Clock;
  readonly onFailure?: (error: unknown) => void;
}

/** Runs until the signal aborts. */
export function runDrainLoop(options: DrainOptions, signal: AbortSignal): Promise<void> {
  const { store, clock } = options;
  /** Nodes that have something left. */
  const draining = new Set<string>();
  /** Services of what is left there, and of what has gone and whose successors may be coming. */
  const concerned = new Set<string>();
  for (const { id, spec } of store.view.node.values()) if (spec.availability === 'drain') draining.add(id);
  const pass = async () => {
    const nowMs = clock.nowMs();
    const evictions: ((tx: Transaction) => void)[] = [];
    let wakeAtMs: number | undefined;
    concerned.clear();
    for (const id of draining) {
      const node = store.view.node.get(id);
      if (node?.spec.availability !== 'drain' || drainable(store.view, id).length === 0) {
        draining.delete(id);
        continue;
      }
      for (const { serviceId } of store.view.tasksOnNode(id)) concerned.add(serviceId);
      const plan = planDrain(store.view, node, nowMs);
      for (const { task, leavesLast } of plan.evict) evictions.push((tx) => evict(tx, task, leavesLast));
      wakeAtMs = earliest(wakeAtMs, plan.wakeAtMs);
    }
    if (evictions.length > 0) await store.batch(evictions);
    return wakeAtMs;
  };
  const isRelevant = ({ events }: Commit) => {
    let isRelevant = false;
    for (const { kind, object, previous } of events) {
      if (kind === 'task' && isSameToPlanners(object as Task, previous as Task | undefined)) continue;
      const nodeId = kind === 'node' ? object.id : kind === 'task' ? (object as Task).nodeId : '';
      const isDrained = isToDrain(store.view.node.get(nodeId));
      // A scheduler that had not heard of it may have given it another task.
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

function evict(tx: Transaction, { id, nodeId }: Task, leavesLast: boolean): void {
  const task = tx.view.task.get(id);
  if (task === undefined || !isToDrain(tx.view.node.get(nodeId))) return;
  tx.update('task', { ...task, eviction: task.eviction ?? DRAIN_REASON, leavesLast });
}
