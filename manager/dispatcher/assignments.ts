// What one agent knows of its tasks, and the differences it still has to hear. A task goes out when it is new to the
// node, or its desired state or its revision changed; a revision goes out once, with the first task that needs it.

import { isDeepStrictEqual } from 'node:util';
import type { Revision, Task } from '../../core/generated/objects.ts';
import { isPlaced } from '../../core/task-state.ts';
import { type Assignments, emptyAssignments } from '../../proto/generated/dispatcher.ts';
import type { StoreEvent } from '../store/apply-entry.ts';
import { revisionId, type TablesView } from '../store/tables.ts';
import { type DirectoryChanges, type NetworkDirectory, takesPart } from './network-directory.ts';
import { isNoNews, type NetworkNews, SessionNetworks } from './session-networks.ts';
import { SessionPayloads } from './session-payloads.ts';

type Differences = Pick<Assignments, 'revisions' | 'tasks' | 'removedTaskIds' | 'removedRevisionIds'>;

export class AssignmentTracker {
  readonly #nodeId: string;
  /**
   * Tasks that the agent may have something to hear of, as it knows them; undefined: not at all. All others it knows as the
   * store has them: a leader has a million, and nothing of them is held here.
   */
  readonly #dirty = new Map<string, Task | undefined>();
  /** Those that the agent has: revision id → how many of its tasks need it. */
  readonly #revisions = new Map<string, number>();
  readonly #networks: SessionNetworks;
  /** To be sent before the assignments of the same moment. */
  readonly payloads: SessionPayloads;
  #sequence = 0;

  constructor(nodeId: string) {
    this.#nodeId = nodeId;
    this.#networks = new SessionNetworks(nodeId);
    this.payloads = new SessionPayloads(nodeId);
  }

  /**
   * To be called for every change of a task since `complete`; cheap for those of other nodes. True when the agent may have
   * something to hear: most changes are what agents have told themselves.
   */
  note({ action, object, previous }: StoreEvent<'task'>): boolean {
    const before = action === 'removed' ? object : previous;
    if (object.nodeId !== this.#nodeId && before?.nodeId !== this.#nodeId) return false;
    if (previous !== undefined && isSameToAgent(object, previous)) return false;
    if (!this.#dirty.has(object.id))
      this.#dirty.set(object.id, before !== undefined && this.#isToDo(before) ? before : undefined);
    this.#networks.note(object);
    if (previous !== undefined) this.#networks.note(previous);
    return true;
  }

  /** Everything the node has to do; the first message of a session. */
  complete(view: TablesView, directory: NetworkDirectory): Assignments {
    const news = this.#networks.catchUp(view, directory);
    this.#dirty.clear();
    this.#revisions.clear();
    for (const task of view.tasksOnNode(this.#nodeId))
      if (this.#isToDo(task)) this.#dirty.set(task.id, undefined);
    return this.#message(this.#differences(view), news, true);
  }

  /** The differences since the last message, or undefined when there are none. */
  incremental(view: TablesView, directory: NetworkDirectory): Assignments | undefined {
    const news = this.#networks.catchUp(view, directory);
    const differences = this.#differences(view);
    const { tasks, removedTaskIds } = differences;
    if (tasks.length + removedTaskIds.length === 0 && isNoNews(news)) return undefined;
    return this.#message(differences, news);
  }

  /** What changed in networks that the node takes part in, or undefined when nothing did. */
  networkChanges(changes: DirectoryChanges): Assignments | undefined {
    const news = this.#networks.select(changes);
    return isNoNews(news) ? undefined : this.#message({}, news);
  }

  #message(differences: Partial<Differences>, news: NetworkNews, complete = false): Assignments {
    return { ...emptyAssignments, ...differences, ...news, complete, sequence: ++this.#sequence };
  }

  #differences(view: TablesView): Differences {
    const tasks: Task[] = [];
    const removedTaskIds: string[] = [];
    const revisions: Revision[] = [];
    const released: Task[] = [];
    const unsent: [string, Task | undefined][] = [];
    for (const [id, known] of this.#dirty) {
      const task = view.task.get(id);
      if (task === undefined || !this.#isToDo(task)) {
        if (known === undefined) continue;
        removedTaskIds.push(id);
        released.push(known);
      } else if (isNews(task, known)) {
        const revision = view.revisionOf(task);
        // One without the spec that its agent needs would end the session again and again.
        if (revision === undefined) unsent.push([id, known]);
        else {
          tasks.push(task);
          if (this.#count(revision.id, 1) === 1) revisions.push(revision);
          if (known !== undefined) released.push(known);
        }
      }
    }
    this.#dirty.clear();
    for (const [id, known] of unsent) this.#dirty.set(id, known);
    const removedRevisionIds = released
      .map(({ serviceId, specVersion }) => revisionId(serviceId, specVersion))
      .filter((id) => this.#count(id, -1) === 0);
    return { revisions, tasks, removedTaskIds, removedRevisionIds };
  }

  #isToDo({ nodeId, status }: Task): boolean {
    return nodeId === this.#nodeId && isPlaced(status.state);
  }

  #count(revisionId: string, by: 1 | -1): number {
    const count = (this.#revisions.get(revisionId) ?? 0) + by;
    if (count === 0) this.#revisions.delete(revisionId);
    else this.#revisions.set(revisionId, count);
    return count;
  }
}

function isNews({ desiredState, specVersion }: Task, known: Task | undefined): boolean {
  return known?.desiredState !== desiredState || known.specVersion !== specVersion;
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
