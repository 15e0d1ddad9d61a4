// Moves tasks of services that want it to nodes that have come later or again. Waits and writes; planRebalance decides,
// and the service loop replaces what is marked.

import type { Clock } from '../../core/clock.ts';
import { defaultClusterSpec } from '../../core/defaults.ts';
import type { Service, Task } from '../../core/generated/objects.ts';
import { DOWN_PERIODS_AT_START } from '../../core/node-silence.ts';
import { earliest, runLoop } from '../loop.ts';
import type { Commit, Store } from '../store/store.ts';
import type { Transaction } from '../store/transaction.ts';
import { isRebalanced, planRebalance, REBALANCE_REASON } from './plan-rebalance.ts';

export interface RebalanceOptions {
  readonly store: Store;
  readonly clock: Clock;
  readonly onFailure?: (error: unknown) => void;
}

/** Runs until the signal aborts. */
export function runRebalanceLoop(options: RebalanceOptions, signal: AbortSignal): Promise<void> {
  const { store, clock } = options;
  const rebalanced = new Set<string>();
  for (const service of store.view.service.values()) if (isRebalanced(service)) rebalanced.add(service.id);
  const pass = async () => {
    const nowMs = clock.nowMs();
    const [cluster] = store.view.cluster.values();
    const { heartbeatPeriodMs } = cluster?.spec ?? defaultClusterSpec;
    const moment = { nowMs, calmMs: DOWN_PERIODS_AT_START * heartbeatPeriodMs };
    const moves: ((tx: Transaction) => void)[] = [];
    let wakeAtMs: number | undefined;
    for (const id of rebalanced) {
      const service = store.view.service.get(id);
      if (service === undefined || !isRebalanced(service)) {
        rebalanced.delete(id);
        continue;
      }
      const plan = planRebalance(store.view, service, moment);
      for (const task of plan.move) moves.push((tx) => move(tx, task));
      wakeAtMs = earliest(wakeAtMs, plan.wakeAtMs);
    }
    if (moves.length > 0) await store.batch(moves);
    return wakeAtMs;
  };
  const isRelevant = ({ events }: Commit) => {
    let isRelevant = false;
    for (const { kind, action, object } of events) {
      if (kind === 'service' && action !== 'removed' && isRebalanced(object as Service))
        rebalanced.add(object.id);
      isRelevant ||=
        (kind === 'node' && rebalanced.size > 0) ||
        rebalanced.has(kind === 'task' ? (object as Task).serviceId : object.id);
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
