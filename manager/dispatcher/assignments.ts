// What one agent knows of its tasks, and the differences it still has to hear. A task goes out when it is new to the
// node, or its desired state or its revision changed; a revision goes out once, with the first task that needs it.

import { isDeepStrictEqual } from 'node:util';
import type { Revision, Task, TaskState } from '../../core/generated/objects.ts';
import { compareTaskStates } from '../../core/task-state.ts';
import { type Assignments, emptyAssignments } from '../../proto/generated/dispatcher.ts';
import { revisionId, type TablesView } from '../store/tables.ts';
import { type DirectoryChanges, type NetworkDirectory, takesPart } from './network-directory.ts';
import { isNoNews, noNetworkNews, SessionNetworks } from './session-networks.ts';
import { SessionPayloads } from './session-payloads.ts';

interface Sent {
  readonly desiredState: TaskState;
  readonly revisionId: string;
}

/** The same for all tasks of a revision with the same desired state, on all nodes: a leader holds one for each task. */
const sentOfRevisions = new WeakMap<Revision, Map<TaskState, Sent>>();

function sentOf(revision: Revision, desiredState: TaskState): Sent {
  const known = sentOfRevisions.get(revision) ?? new Map<TaskState, Sent>();
  sentOfRevisions.set(revision, known);
  const sent = known.get(desiredState) ?? { desiredState, revisionId: revision.id };
  known.set(desiredState, sent);
  return sent;
}

export class AssignmentTracker {
  readonly #nodeId: string;
  /** What was sent: task id → its desired state and revision. */
  readonly #sent = new Map<string, Sent>();
  readonly #revisions = new Map<string, number>();
  readonly #dirty = new Set<string>();
  readonly #networks: SessionNetworks;
  /** To be sent before the assignments of the same moment. */
  readonly payloads: SessionPayloads;
  #sequence = 0;

  constructor(nodeId: string) {
    this.#nodeId = nodeId;
    this.#networks = new SessionNetworks(nodeId);
    this.payloads = new SessionPayloads(nodeId);
  }

  get isDirty(): boolean {
    return this.#dirty.size > 0;
  }

  /**
   * To be called for every changed or removed task; cheap for those of other nodes. `previous` is what it was before the
   * change. True when the agent may have something to hear: most changes are what agents have told themselves.
   */
  note(task: Task, previous?: Task): boolean {
    if (task.nodeId !== this.#nodeId && !this.#sent.has(task.id)) return false;
    if (previous !== undefined && isSameToAgent(task, previous)) return false;
    this.#dirty.add(task.id);
    this.#networks.note(task);
    if (previous !== undefined) this.#networks.note(previous);
    return true;
  }

  /** Everything the node has to do; the first message of a session. */
  complete(view: TablesView, directory: NetworkDirectory | undefined): Assignments {
    this.#dirty.clear();
    const tasks = view.tasksOnNode(this.#nodeId).filter((task) => isSendable(view, task));
    const news = directory === undefined ? noNetworkNews : this.#networks.catchUp(view, directory);
    return { ...this.#message(view, tasks, []), ...news, complete: true };
  }

  /** The differences since the last message, or undefined when there are none. */
  incremental(view: TablesView, directory: NetworkDirectory): Assignments | undefined {
    const news = this.#networks.catchUp(view, directory);
    const changed: Task[] = [];
    const removed: string[] = [];
    for (const id of this.#dirty) {
      const task = view.task.get(id);
      const sent = this.#sent.get(id);
      if (task === undefined || task.nodeId !== this.#nodeId) {
        if (sent !== undefined) removed.push(id);
      } else if (isNews(task, sent) && isSendable(view, task)) changed.push(task);
    }
    this.#dirty.clear();
    if (changed.length + removed.length === 0 && isNoNews(news)) return undefined;
    return { ...this.#message(view, changed, removed), ...news };
  }

  /** What changed in networks that the node takes part in, or undefined when nothing did. */
  networkChanges(changes: DirectoryChanges): Assignments | undefined {
    const news = this.#networks.select(changes);
    return isNoNews(news) ? undefined : { ...emptyAssignments, ...news, sequence: ++this.#sequence };
  }

  #message(view: TablesView, tasks: readonly Task[], removedTaskIds: string[]): Assignments {
    const revisions: Revision[] = [];
    const removedRevisionIds: string[] = [];
    for (const task of tasks) {
      const revision = view.revisionOf(task);
      if (revision === undefined) continue;
      const before = this.#sent.get(task.id)?.revisionId;
      if (before !== revision.id && this.#count(revision.id, 1) === 1) revisions.push(revision);
      if (before !== undefined && before !== revision.id && this.#count(before, -1) === 0)
        removedRevisionIds.push(before);
      this.#sent.set(task.id, sentOf(revision, task.desiredState));
    }
    for (const id of removedTaskIds) {
      const sent = this.#sent.get(id);
      this.#sent.delete(id);
      if (sent !== undefined && this.#count(sent.revisionId, -1) === 0)
        removedRevisionIds.push(sent.revisionId);
    }
    return {
      ...emptyAssignments,
      sequence: ++this.#sequence,
      revisions,
      tasks,
      removedTaskIds,
      removedRevisionIds,
    };
  }

  #count(revisionId: string, by: 1 | -1): number {
    const count = (this.#revisions.get(revisionId) ?? 0) + by;
    if (count === 0) this.#revisions.delete(revisionId);
    else this.#revisions.set(revisionId, count);
    return count;
  }
}

function isNews({ desiredState, serviceId, specVersion }: Task, sent: Sent | undefined): boolean {
  return sent?.desiredState !== desiredState || sent.revisionId !== revisionId(serviceId, specVersion);
}

/** Neither its orders nor its part in networks, nor what it needs of secrets, can be others. */
function isSameToAgent(task: Task, previous: Task): boolean {
  return (
    task.nodeId === previous.nodeId &&
    task.desiredState === previous.desiredState &&
    task.specVersion === previous.specVersion &&
    takesPart(task) === takesPart(previous) &&
    isDeepStrictEqual(task.attachments, previous.attachments)
  );
}

/** Assigned, and with the spec that an agent needs: one without would end its session again and again. */
function isSendable(view: TablesView, task: Task): boolean {
  return compareTaskStates(task.status.state, 'assigned') >= 0 && view.revisionOf(task) !== undefined;
}
