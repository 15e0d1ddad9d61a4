// Tasks that are to be placed, in groups that are decided together: those that have not been looked at since something
// changed for them, and those that found no room.

import type { Task } from '../../core/generated/objects.ts';
import { isWanted } from '../../core/task-state.ts';

export interface WaitingGroup {
  readonly serviceId: string;
  readonly specVersion: number;
  /** The only node that may have the tasks; empty: any. */
  readonly nodeId: string;
  readonly taskIds: Set<string>;
}

export function isWaiting(task: Task): boolean {
  return task.status.state === 'pending' && isWanted(task);
}

export class WaitingTasks {
  readonly #groups = new Map<string, WaitingGroup>();
  readonly #groupOf = new Map<string, WaitingGroup>();
  /** Those to look at, what is bound to a node first: others have a choice. */
  readonly #bound = new Set<WaitingGroup>();
  readonly #fresh = new Set<WaitingGroup>();

  /** undefined: it is no more. True when there is something new to look at. */
  note(id: string, task: Task | undefined): boolean {
    const known = this.#groupOf.get(id);
    if (task === undefined || !isWaiting(task)) {
      if (known !== undefined) this.#forget(id, known);
      return false;
    }
    const key = `${task.serviceId}.${task.specVersion}.${task.nodeId}`;
    const group = this.#groups.get(key);
    // Its own refusal is no news.
    if (known !== undefined && known === group) return false;
    if (known !== undefined) this.#forget(id, known);
    const { serviceId, specVersion, nodeId } = task;
    const joined = group ?? { serviceId, specVersion, nodeId, taskIds: new Set() };
    this.#groups.set(key, joined);
    this.#groupOf.set(id, joined);
    joined.taskIds.add(id);
    this.lookAt(joined);
    return true;
  }

  /** There may be room now. True when somebody waits for it. */
  lookAtAll(): boolean {
    for (const group of this.#groups.values()) this.lookAt(group);
    return this.#groups.size > 0;
  }

  lookAtTask(id: string): void {
    const group = this.#groupOf.get(id);
    if (group !== undefined) this.lookAt(group);
  }

  lookAt(group: WaitingGroup): void {
    (group.nodeId === '' ? this.#fresh : this.#bound).add(group);
  }

  /** The next one to look at. */
  next(): WaitingGroup | undefined {
    for (const set of [this.#bound, this.#fresh])
      for (const group of set) {
        set.delete(group);
        return group;
      }
    return undefined;
  }

  get hasNext(): boolean {
    return this.#bound.size + this.#fresh.size > 0;
  }

  #forget(id: string, group: WaitingGroup): void {
    this.#groupOf.delete(id);
    group.taskIds.delete(id);
    if (group.taskIds.size > 0) return;
    this.#groups.delete(`${group.serviceId}.${group.specVersion}.${group.nodeId}`);
    this.#bound.delete(group);
    this.#fresh.delete(group);
  }
}
