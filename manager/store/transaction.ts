// A write in the making: reads see the store as it was when it began plus its own writes; the result is a list of
// guarded changes. Nothing is stored until the log has committed them.

import { assert } from '../../core/assert.ts';
import { SwarmError } from '../../core/errors.ts';
import type { Task, TaskStatus } from '../../core/generated/objects.ts';
import type { Change, Guard } from '../../proto/generated/log.ts';
import type { Kind, Kinds, TablesView } from './tables.ts';
import type { TaskReport } from './task-table.ts';

interface Write {
  readonly kind: Kind;
  readonly id: string;
  /** Of what was stored; 0: there was no such object. */
  readonly expectedVersion: number;
  /** As it was; unread while only a status is new. */
  stored: Kinds[Kind] | undefined;
  /** Undefined: it is to go; or only its status is new. */
  object: Kinds[Kind] | undefined;
  /** Of a task that is otherwise as it was. */
  status?: TaskStatus | undefined;
}

export class Transaction {
  /** The store without this transaction's own writes. */
  readonly view: TablesView;
  /** In the order of their first writes. */
  readonly #writes: Write[] = [];
  readonly #writeOf = new Map<Kind, Map<string, Write>>();
  readonly #guards = new Map<string, Guard>();
  /** What was read last: it is what is written next, most of the time. */
  #last: { readonly kind: Kind; readonly id: string; readonly stored: Kinds[Kind] | undefined } | undefined;
  #lastReport: { readonly id: string; readonly report: TaskReport | undefined } | undefined;

  constructor(view: TablesView) {
    this.view = view;
  }

  get<K extends Kind>(kind: K, id: string): Kinds[K] | undefined {
    const write = this.#writeOf.get(kind)?.get(id);
    if (write === undefined) return this.#stored(kind, id) as Kinds[K] | undefined;
    const { object, status } = write;
    if (status === undefined) return object as Kinds[K] | undefined;
    return { ...(this.#stored('task', id) as Task), status } as Kinds[K];
  }

  /** Of a task no more than where it is and how it is there. */
  taskReport(id: string): TaskReport | undefined {
    const write = this.#writeOf.get('task')?.get(id);
    if (write === undefined) return this.#report(id);
    const { nodeId, status } = this.get('task', id) ?? {};
    return nodeId === undefined || status === undefined
      ? undefined
      : { version: write.expectedVersion, nodeId, status };
  }

  /** Throws `already-exists` for a known id. */
  create<K extends Kind>(kind: K, object: Kinds[K]): void {
    if (this.get(kind, object.id) !== undefined)
      throw new SwarmError('already-exists', `${kind} ${object.id} already exists`);
    this.#put(kind, object);
  }

  /** Replaces an object. With `version`, only if that is still its version: else `out-of-sequence`. */
  update<K extends Kind>(kind: K, object: Kinds[K], version?: number): void {
    const stored = this.get(kind, object.id);
    if (stored === undefined) throw new SwarmError('not-found', `${kind} ${object.id} not found`);
    if (version !== undefined && stored.meta.version !== version)
      throw new SwarmError(
        'out-of-sequence',
        `${kind} ${object.id}: update out of sequence, it is at version ${stored.meta.version}, not ${version}`,
        { hint: 'It was changed meanwhile: look at it again and repeat the change.' },
      );
    this.#put(kind, object);
  }

  /** The same as to update a task with it, for a fraction of the work: most writes are of it. */
  updateStatus(id: string, status: TaskStatus): void {
    const report = this.taskReport(id);
    if (report === undefined) throw new SwarmError('not-found', `task ${id} not found`);
    const write = this.#writeOf.get('task')?.get(id);
    if (write === undefined)
      this.#add({
        kind: 'task',
        id,
        expectedVersion: report.version,
        stored: undefined,
        object: undefined,
        status,
      });
    else if (write.object === undefined) write.status = status;
    else write.object = { ...(write.object as Task), status };
  }

  delete(kind: Kind, id: string): void {
    if (this.get(kind, id) === undefined) throw new SwarmError('not-found', `${kind} ${id} not found`);
    this.#put(kind, { id, object: undefined });
  }

  /** An object that is there: what is written here is only stored if it still is, and nobody has changed it meanwhile. */
  expect(kind: Kind, id: string): void {
    const expectedVersion = this.#stored(kind, id)?.meta.version;
    assert(expectedVersion !== undefined, () => `${kind} ${id} is not there`);
    this.#guards.set(`${kind}/${id}`, { kind, id, expectedVersion });
  }

  get size(): number {
    return this.#writes.length;
  }

  /** What the log has to carry. An object created and deleted again leaves nothing. */
  changes(): Change[] {
    return this.#writes
      .filter(({ object, expectedVersion }) => object !== undefined || expectedVersion > 0)
      .map(({ kind, id, expectedVersion, stored, object, status }) =>
        status === undefined
          ? { kind, id, expectedVersion, ...contentOf(kind, stored, object) }
          : { kind, id, expectedVersion, taskStatus: status },
      );
  }

  /** What has to be as it was, beside the objects that are written. */
  guards(): Guard[] {
    return [...this.#guards.values()].filter(
      ({ kind, id }) => this.#writeOf.get(kind as Kind)?.has(id) !== true,
    );
  }

  #put(kind: Kind, target: Kinds[Kind] | { id: string; object: undefined }): void {
    const { id } = target;
    assert(id !== '', () => `a ${kind} without id`);
    const object = 'object' in target ? undefined : target;
    const earlier = this.#writeOf.get(kind)?.get(id);
    if (earlier === undefined) {
      const stored = this.#stored(kind, id);
      this.#add({ kind, id, expectedVersion: stored?.meta.version ?? 0, stored, object });
      return;
    }
    earlier.object = object;
    if (earlier.status === undefined) return;
    earlier.stored = this.#stored(kind, id);
    earlier.status = undefined;
  }

  #add(write: Write): void {
    let writes = this.#writeOf.get(write.kind);
    if (writes === undefined) {
      writes = new Map();
      this.#writeOf.set(write.kind, writes);
    }
    writes.set(write.id, write);
    this.#writes.push(write);
  }

  #stored(kind: Kind, id: string): Kinds[Kind] | undefined {
    if (this.#last?.id === id && this.#last.kind === kind) return this.#last.stored;
    const stored = this.view[kind].get(id);
    this.#last = { kind, id, stored };
    return stored;
  }

  #report(id: string): TaskReport | undefined {
    if (this.#lastReport?.id === id) return this.#lastReport.report;
    const report = this.view.taskReport(id);
    this.#lastReport = { id, report };
    return report;
  }
}

/** The object, or of a task no more than its status if nothing else is new; nothing of one that is to go. */
function contentOf(
  kind: Kind,
  stored: Kinds[Kind] | undefined,
  object: Kinds[Kind] | undefined,
): Partial<Change> {
  if (object === undefined) return {};
  if (kind === 'task' && stored !== undefined && isSameButStatus(object as Task, stored as Task))
    return { taskStatus: (object as Task).status };
  return { [kind]: object };
}

function isSameButStatus(task: Task, stored: Task): boolean {
  return (
    task.serviceId === stored.serviceId &&
    task.specVersion === stored.specVersion &&
    task.slot === stored.slot &&
    task.nodeId === stored.nodeId &&
    task.desiredState === stored.desiredState &&
    task.notBeforeMs === stored.notBeforeMs &&
    task.attachments === stored.attachments &&
    task.eviction === stored.eviction &&
    task.genericResources === stored.genericResources &&
    task.leavesLast === stored.leavesLast
  );
}
