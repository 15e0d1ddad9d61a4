// Deletes tasks, revisions, and versions of secrets and configs that nobody needs, so that nothing grows without bound.

import type { Clock } from '../../core/clock.ts';
import { DEFAULT_SPEC_HISTORY_LIMIT, defaultClusterSpec } from '../../core/defaults.ts';
import type { Cluster, Payload, Revision, Task } from '../../core/generated/objects.ts';
import { compareTaskStates } from '../../core/task-state.ts';
import { runLoop } from '../loop.ts';
import type { StoreEvent } from '../store/apply-entry.ts';
import type { FreshCommit, Store } from '../store/store.ts';
import { revisionId } from '../store/tables.ts';
import type { Transaction } from '../store/transaction.ts';
import { pinsOf, planPayloadReaping, planReaping, planRevisionReaping } from './plan-reaping.ts';

export interface ReaperOptions {
  readonly store: Store;
  readonly clock: Clock;
  readonly onFailure?: (error: unknown) => void;
}

/** Runs until the signal aborts. */
export function runReaperLoop(options: ReaperOptions, signal: AbortSignal): Promise<void> {
  const { store } = options;
  const dirty = new Set<string>();
  const sources = new Set<string>(
    [...store.view.secret.values(), ...store.view.config.values()].map(({ id }) => id),
  );
  for (const task of store.view.task.values()) dirty.add(task.serviceId);
  for (const revision of store.view.revision.values()) dirty.add(revision.serviceId);

  const pass = async () => {
    const ids = [...dirty];
    const sourceIds = [...sources];
    dirty.clear();
    sources.clear();
    try {
      await store.batch([
        ...ids.map((id) => (tx: Transaction) => reap(tx, id)),
        ...sourceIds.map((id) => (tx: Transaction) => reapPayloads(tx, id)),
      ]);
    } catch (error) {
      for (const id of ids) dirty.add(id);
      for (const id of sourceIds) sources.add(id);
      throw error;
    }
    return undefined;
  };
  const isRelevant = (commit: FreshCommit) => {
    const before = dirty.size + sources.size;
    for (const { kind, action, object, previous } of commit.decisive) {
      if (kind === 'task' && mayBeReaped(object as Task, action, previous as Task | undefined))
        dirty.add((object as Task).serviceId);
      if (kind === 'service' && action !== 'created') dirty.add(object.id);
      if (kind === 'cluster' && hasOtherLimits(object as Cluster, previous as Cluster | undefined))
        for (const { id } of store.view.service.values()) dirty.add(id);
      if (kind === 'node' && action === 'removed')
        for (const task of store.view.tasksOnNode(object.id)) dirty.add(task.serviceId);
      if (kind === 'revision' && action === 'created') dirty.add((object as Revision).serviceId);
      if (kind === 'revision' && action === 'removed')
        for (const { sourceId } of pinsOf(object as Revision)) sources.add(sourceId);
      if (kind === 'payload' && action === 'created') sources.add((object as Payload).sourceId);
    }
    return dirty.size + sources.size > before;
  };
  return runLoop({ name: 'reaper', isRelevant, pass, ...options }, signal);
}

function hasOtherLimits({ spec }: Cluster, previous: Cluster | undefined): boolean {
  return (
    spec.taskHistoryLimit !== previous?.spec.taskHistoryLimit ||
    spec.specHistoryLimit !== previous.spec.specHistoryLimit
  );
}

/** The task, or a revision that nobody else needs. Tasks that go on as they should are most of what happens. */
function mayBeReaped(task: Task, action: StoreEvent['action'], previous: Task | undefined): boolean {
  if (action === 'created') return false;
  if (action === 'removed' || task.specVersion !== previous?.specVersion) return true;
  return compareTaskStates(task.desiredState, 'running') > 0;
}

function reap(tx: Transaction, serviceId: string): void {
  const [cluster] = tx.view.cluster.values();
  const { taskHistoryLimit: historyLimit, specHistoryLimit } = cluster?.spec ?? defaultClusterSpec;
  const maxAttempts = tx.view.service.get(serviceId)?.spec.task.restart.maxAttempts ?? 0;
  const isKnownNode = (nodeId: string) => tx.view.node.get(nodeId) !== undefined;
  const hasRevision = (specVersion: number) =>
    tx.view.revision.get(revisionId(serviceId, specVersion)) !== undefined;
  const limits = { historyLimit, maxAttempts, isKnownNode, hasRevision };
  const tasks = planReaping(tx.view.tasksOfService(serviceId), limits);
  for (const task of tasks) tx.delete('task', task.id);
  const reaped = new Set(tasks.map((task) => task.id));
  for (const { id } of planRevisionReaping(
    tx.view,
    serviceId,
    reaped,
    specHistoryLimit || DEFAULT_SPEC_HISTORY_LIMIT,
  )) {
    tx.delete('revision', id);
    // What its image was pulled with.
    if (tx.view.payload.get(id) !== undefined) tx.delete('payload', id);
  }
}

function reapPayloads(tx: Transaction, sourceId: string): void {
  for (const { id } of planPayloadReaping(tx.view, sourceId)) tx.delete('payload', id);
}
