// Moves tasks of services that want it to nodes that have come later or again. Waits and writes; planRebalance decides,
// and the service loop replaces what is marked.

import type { Clock } from '../../core/clock.ts';
import { defaultClusterSpec } from '../../core/defaults.ts';
import type { Service, Task } from '../../core/generated/objects.ts';
import { DOWN_PERIODS_AT_START } from '../../core/node-silence.ts';
import { earliest, runLoop } from '../loop.ts';
import { ClusterBook } from '../placement/cluster-book.ts';
import type { FreshCommit, Store } from '../store/store.ts';
import type { Transaction } from '../store/transaction.ts';
import { isRebalanced, planRebalance, REBALANCE_REASON } from './plan-rebalance.ts';
import { isSameToPlanners } from './task-news.ts';

export interface RebalanceOptions {
  readonly store: Store;
  readonly clock: Clock;
  readonly onFailure?: (error: unknown) => void;
}

/** Runs until the signal aborts. */
export function runRebalanceLoop(options: RebalanceOptions, signal: AbortSignal): Promise<void> {
  const { store, clock } = options;
  /** Services that want it, and when each is to be looked at next (Unix ms). */
  const dueAtMs = new Map<string, number>();
  const look = (id: string) => dueAtMs.set(id, 0);
  for (const service of store.view.service.values()) if (isRebalanced(service)) look(service.id);
  const pass = async () => {
    const nowMs = clock.nowMs();
    const [cluster] = store.view.cluster.values();
    const { heartbeatPeriodMs } = cluster?.spec ?? defaultClusterSpec;
    let counted: ClusterBook | undefined;
    const book = () => {
      counted ??= ClusterBook.of(store.view);
      return counted;
    };
    const moment = { nowMs, calmMs: DOWN_PERIODS_AT_START * heartbeatPeriodMs, book };
    const moves: Task[] = [];
    for (const [id, atMs] of dueAtMs) {
      if (nowMs < atMs) continue;
      const service = store.view.service.get(id);
      if (service === undefined || !isRebalanced(service)) {
        dueAtMs.delete(id);
        continue;
      }
      const plan = planRebalance(store.view, service, moment);
      moves.push(...plan.move);
      dueAtMs.set(id, plan.wakeAtMs ?? Number.POSITIVE_INFINITY);
    }
    let nextMs: number | undefined;
    for (const atMs of dueAtMs.values()) if (atMs < Number.POSITIVE_INFINITY) nextMs = earliest(nextMs, atMs);
    try {
      await store.batch(moves.map((task) => (tx: Transaction) => move(tx, task)));
    } catch (error) {
      for (const { serviceId } of moves) look(serviceId);
      throw error;
    }
    return nextMs;
  };
  const isRelevant = ({ decisive }: FreshCommit) => {
    let isRelevant = false;
    for (const { kind, action, object, previous } of decisive) {
      if (kind === 'task' && isSameToPlanners(object as Task, previous as Task | undefined)) continue;
      const id = kind === 'task' ? (object as Task).serviceId : object.id;
      if (kind === 'service' && action !== 'removed' && isRebalanced(object as Service)) look(id);
      else if (kind === 'node') for (const service of dueAtMs.keys()) look(service);
      else if (dueAtMs.has(id)) look(id);
      else continue;
      isRelevant ||= dueAtMs.size > 0;
    }
    return isRelevant;
  };
  return runLoop({ name: 'rebalance', isRelevant, pass, ...options }, signal);
}

function move(tx: Transaction, planned: Task): void {
  const task = tx.view.task.get(planned.id);
  // Decided on an older state: what is no longer so is planned anew.
  if (task?.meta.version !== planned.meta.version) return;
  tx.update('task', { ...task, eviction: REBALANCE_REASON, leavesLast: true });
}
