// Which tasks, revisions, and versions of secrets and configs nobody needs any more. Pure.

import type { FileReference, Payload, Revision, Task } from '../../core/generated/objects.ts';
import { compareTaskStates, isPlaced, isTerminal, isWanted } from '../../core/task-state.ts';
import { revisionId, type TablesView } from '../store/tables.ts';
import { FAILURES_PATIENT } from './plan-restarts.ts';
import { groupBySlot } from './slots.ts';

/** Versions that are there to go back to, the newest included. */
const PAYLOADS_KEPT = 5;

export interface ReapingLimits {
  /** Of a slot; negative: none. */
  readonly historyLimit: number;
  /** Of the restart policy. */
  readonly maxAttempts: number;
  readonly isKnownNode: (nodeId: string) => boolean;
  readonly hasRevision: (specVersion: number) => boolean;
}

/** Tasks of one service to delete: removed ones that have ended, and history beyond `historyLimit` per slot. */
export function planReaping(
  tasks: readonly Task[],
  { historyLimit, maxAttempts, isKnownNode, hasRevision }: ReapingLimits,
): Task[] {
  const hasLeftNode = (task: Task) => hasEnded(task) || !isKnownNode(task.nodeId);
  // Tasks go with their node when it is removed; one that came to it in the same moment is without anybody to tell of its end.
  // Without its revision an agent cannot be told about one; that it is to be nowhere it can.
  const isStranded = (task: Task) =>
    !isWanted(task) && !hasEnded(task) && !(isKnownNode(task.nodeId) && hasRevision(task.specVersion));
  const removed = tasks.filter(
    (task) => isStranded(task) || (task.desiredState === 'remove' && hasLeftNode(task)),
  );
  if (historyLimit < 0) return removed;
  // Counting restart attempts, and failures in a row, needs that many ended tasks.
  const keep = Math.max(historyLimit, maxAttempts + 1, FAILURES_PATIENT - 1);
  const surplus = groupBySlot(
    tasks.filter((task) => task.desiredState !== 'remove' && !isStranded(task)),
  ).flatMap((slot) =>
    slot.tasks
      .filter((task) => compareTaskStates(task.desiredState, 'running') > 0 && hasLeftNode(task))
      .slice(keep),
  );
  return [...removed, ...surplus];
}

/** Never assigned, or ended: no agent has anything of it. */
function hasEnded(task: Task): boolean {
  return task.nodeId === '' || !isPlaced(task.status.state) || isTerminal(task.status.state);
}

/** Revisions of a service that neither it nor any of its tasks refers to, beyond the newest `limit` that it keeps. */
export function planRevisionReaping(
  view: TablesView,
  serviceId: string,
  reaped: ReadonlySet<string>,
  limit: number,
): Revision[] {
  const service = view.service.get(serviceId);
  const used = new Set(
    view
      .tasksOfService(serviceId)
      .filter((task) => !reaped.has(task.id))
      .map((task) => revisionId(serviceId, task.specVersion)),
  );
  if (service !== undefined) {
    used.add(revisionId(serviceId, service.specVersion));
    used.add(revisionId(serviceId, service.previousSpecVersion));
  }
  const revisions = [...view.revisionsOfService(serviceId)].sort((a, b) => b.specVersion - a.specVersion);
  // What a service had is of no use when the service is gone.
  const history = service === undefined ? [] : revisions.slice(0, limit);
  for (const { id } of history) used.add(id);
  return revisions.filter(({ id }) => !used.has(id));
}

/** References to one version, which keep it. */
export function pinsOf({ spec }: Revision): FileReference[] {
  const { secrets, configs } = spec.task.container;
  return [...secrets, ...configs].filter(({ version }) => version !== 0);
}

/** Old versions of a secret or config that no revision of a service asks for: tasks have one, and previous specs. */
export function planPayloadReaping(view: TablesView, sourceId: string): Payload[] {
  // Credentials of a service go with its revisions.
  if (view.revisionsOfService(sourceId).length > 0) return [];
  const old = [...view.payloadsOf(sourceId)].sort((a, b) => b.version - a.version).slice(PAYLOADS_KEPT);
  if (old.length === 0) return [];
  const pinned = new Set<number>();
  for (const revision of view.revision.values())
    for (const reference of pinsOf(revision))
      if (reference.sourceId === sourceId) pinned.add(reference.version);
  return old.filter(({ version }) => !pinned.has(version));
}
