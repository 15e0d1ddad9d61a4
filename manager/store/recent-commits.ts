// The last commits, so that a watcher whose connection broke goes on where it was. Most of what happens happens to tasks: they
// are kept as rows, since thousands of objects that stay a little longer than others are what collecting garbage costs most.

import type { StoreEvent } from './apply-entry.ts';
import type { Commit } from './store.ts';
import { type PackedTasks, rowsOf, TaskEvent } from './task-events.ts';

// At a hundred commits a second, ten seconds: a reconnect, not an absence.
const KEPT_MAX = 1_000;
// And so many changes, of which each has an object as it was and as it came to be: some two megabytes of tasks.
const CHANGES_KEPT_MAX = 5_000;

export class RecentCommits {
  #commits: PackedCommit[] = [];
  #changes = 0;
  /** Commits up to this index are not here. */
  forgottenIndex = 0;

  /** `tasks` are those of its events. */
  push(commit: Commit, tasks: PackedTasks): void {
    this.#commits.push(new PackedCommit(commit, tasks));
    this.#changes += commit.events.length;
    if (this.#commits.length < 2 * KEPT_MAX && this.#changes < 2 * CHANGES_KEPT_MAX) return;
    let forgotten = 0;
    while (this.#commits.length - forgotten > KEPT_MAX || this.#changes > CHANGES_KEPT_MAX) {
      const oldest = this.#commits[forgotten++];
      this.#changes -= oldest?.size ?? 0;
      this.forgottenIndex = oldest?.index ?? commit.index;
    }
    this.#commits = this.#commits.slice(forgotten);
  }

  after(index: number): readonly Commit[] {
    const first = this.#commits.findIndex((commit) => commit.index > index);
    return first < 0 ? [] : this.#commits.slice(first).map((commit) => commit.unpack());
  }

  /** A snapshot took the place of everything up to `index`. */
  clear(index: number): void {
    this.#commits = [];
    this.#changes = 0;
    this.forgottenIndex = index;
  }
}

class PackedCommit {
  readonly index: number;
  /** In order; of one of a task only the action. */
  readonly #events: readonly (StoreEvent | StoreEvent['action'])[];
  readonly #tasks: PackedTasks;

  constructor({ index, events }: Commit, tasks: PackedTasks) {
    this.index = index;
    this.#events = events.map((event) => (event.kind === 'task' ? event.action : event));
    this.#tasks = tasks;
  }

  get size(): number {
    return this.#events.length;
  }

  unpack(): Commit {
    let rows = 0;
    const events = this.#events.map((event) => {
      if (typeof event !== 'string') return event;
      rows += rowsOf(event);
      return new TaskEvent(event, this.#tasks, rows - 1);
    });
    return { index: this.index, events };
  }
}
