// Places PENDING tasks. Waits and writes; planPlacement decides. A task that fits nowhere keeps its state and gets
// the reason; it is looked at again whenever something changes that could make room.

import type { Clock } from '../../core/clock.ts';
import type { Task } from '../../core/generated/objects.ts';
import { isTerminal, isWanted } from '../../core/task-state.ts';
import { runLoop } from '../loop.ts';
import type { Commit, Store } from '../store/store.ts';
import type { Transaction } from '../store/transaction.ts';
import { collectNodeInfos } from './node-info.ts';
import { type PlacementGroup, planPlacement } from './plan-placement.ts';

export interface SchedulerOptions {
  readonly store: Store;
  readonly clock: Clock;
  readonly onFailure?: (error: unknown) => void;
  /** Told of every placed task: milliseconds from its creation. */
  readonly onScheduled?: (delayMs: number) => void;
}

/** Runs until the signal aborts. */
export function runSchedulerLoop(options: SchedulerOptions, signal: AbortSignal): Promise<void> {
  const { store, clock } = options;
  const pending = new Set<string>();
  for (const task of store.view.task.values()) if (isPending(task)) pending.add(task.id);

  const pass = async () => {
    for (const id of pending) if (!isPending(store.view.task.get(id))) pending.delete(id);
    if (pending.size === 0) return undefined;
    const nowMs = clock.nowMs();
    const plan = planPlacement(groupPending(pending, store), collectNodeInfos(store.view, nowMs));
    await store.batch([
      ...plan.assign.map(
        ({ task, nodeId }) =>
          (tx: Transaction) =>
            assign(tx, task, nodeId, nowMs),
      ),
      ...plan.refuse.map(
        ({ task, reason }) =>
          (tx: Transaction) =>
            refuse(tx, task, reason),
      ),
    ]);
    for (const { task } of plan.assign) options.onScheduled?.(clock.nowMs() - task.meta.createdAtMs);
    return undefined;
  };
  const isRelevant = (commit: Commit) => noteChanges(commit, pending);
  return runLoop({ name: 'scheduler', isRelevant, pass, ...options }, signal);
}

function isPending(task: Task | undefined): boolean {
  return task !== undefined && task.status.state === 'pending' && isWanted(task);
}

/** Collects new pending tasks; true when there are some, or when waiting ones may find room now. */
function noteChanges(commit: Commit, pending: Set<string>): boolean {
  let mayFit = false;
  for (const { kind, action, object, previous } of commit.events) {
    if (kind === 'node') mayFit = true;
    if (kind !== 'task') continue;
    const task = object as Task;
    if (isPending(task)) {
      // Its own refusal is no news.
      if (!isPending(previous as Task | undefined) || !pending.has(task.id)) mayFit = true;
      pending.add(task.id);
    } else if (action === 'removed' || isTerminal(task.status.state)) mayFit = true;
  }
  return mayFit && pending.size > 0;
}

function groupPending(pending: ReadonlySet<string>, store: Store): PlacementGroup[] {
  const groups = new Map<string, { group: Omit<PlacementGroup, 'tasks'>; tasks: Task[] }>();
  for (const id of pending) {
    const task = store.view.task.get(id);
    const spec = task && store.view.revisionOf(task)?.spec;
    if (task === undefined || spec === undefined) continue;
    // One that is bound to a node is checked against that node alone.
    const key = `${task.serviceId}.${task.specVersion}.${task.nodeId}`;
    const entry = groups.get(key);
    if (entry !== undefined) entry.tasks.push(task);
    else
      groups.set(key, {
        group: { serviceId: task.serviceId, specVersion: task.specVersion, spec, nodeId: task.nodeId },
        tasks: [task],
      });
  }
  return [...groups.values()].map(({ group, tasks }) => ({ ...group, tasks }));
}

function assign(tx: Transaction, planned: Task, nodeId: string, nowMs: number): void {
  const task = tx.view.task.get(planned.id);
  const node = tx.view.node.get(nodeId);
  // Decided on an older state: what is no longer so is planned anew.
  if (!isPending(task) || task === undefined || node?.status.state !== 'ready') return;
  const status = {
    ...task.status,
    state: 'assigned' as const,
    timestampMs: nowMs,
    message: 'scheduler assigned task to node',
    error: '',
  };
  tx.update('task', { ...task, nodeId, status });
}

function refuse(tx: Transaction, planned: Task, reason: string): void {
  const task = tx.view.task.get(planned.id);
  if (!isPending(task) || task === undefined || task.status.error === reason) return;
  tx.update('task', { ...task, status: { ...task.status, error: reason } });
}
