// Gives tasks what the whole cluster has to agree on before they are placed. The node-local network needs nothing of
// that kind, so a NEW task becomes PENDING as it is.

import type { Clock } from '../../core/clock.ts';
import { runLoop } from '../loop.ts';
import type { Commit, Store } from '../store/store.ts';
import type { Transaction } from '../store/transaction.ts';

export interface AllocatorOptions {
  readonly store: Store;
  readonly clock: Clock;
  readonly onFailure?: (error: unknown) => void;
}

/** Runs until the signal aborts. */
export function runAllocatorLoop(options: AllocatorOptions, signal: AbortSignal): Promise<void> {
  const { store, clock } = options;
  const fresh = new Set<string>();
  for (const task of store.view.task.values()) if (task.status.state === 'new') fresh.add(task.id);

  const pass = async () => {
    const ids = [...fresh];
    fresh.clear();
    try {
      await store.batch(ids.map((id) => (tx: Transaction) => allocate(tx, id, clock.nowMs())));
    } catch (error) {
      for (const id of ids) fresh.add(id);
      throw error;
    }
    return undefined;
  };
  const isRelevant = (commit: Commit) => {
    const before = fresh.size;
    for (const { kind, action, object } of commit.events)
      if (kind === 'task' && action === 'created') fresh.add(object.id);
    return fresh.size > before;
  };
  return runLoop({ name: 'allocator', isRelevant, pass, ...options }, signal);
}

function allocate(tx: Transaction, taskId: string, nowMs: number): void {
  const task = tx.view.task.get(taskId);
  if (task === undefined || task.status.state !== 'new') return;
  const status = {
    ...task.status,
    state: 'pending' as const,
    timestampMs: nowMs,
    message: 'pending task scheduling',
  };
  tx.update('task', { ...task, status });
}
