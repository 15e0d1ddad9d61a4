// The last commits, so that a watcher whose connection broke goes on where it was. Most of what happens happens to tasks: they
// are kept as rows, since thousands of objects that stay a little longer than others are what collecting garbage costs most.

import type { Task } from '../../core/generated/objects.ts';
import type { StoreEvent } from './apply-entry.ts';
import type { Commit } from './store.ts';
import {
  ERROR,
  type Extra,
  extraOf,
  MESSAGE,
  NODE,
  ROW_NUMBERS,
  readRow,
  SERVICE,
  type TaskRows,
  writeNumbers,
} from './task-row.ts';

// At a hundred commits a second, ten seconds: a reconnect, not an absence.
const KEPT_MAX = 1_000;
// And so many changes, of which each has an object as it was and as it came to be: some two megabytes of tasks.
const CHANGES_KEPT_MAX = 5_000;

export class RecentCommits {
  #commits: PackedCommit[] = [];
  #changes = 0;
  /** Commits up to this index are not here. */
  forgottenIndex = 0;

  push(commit: Commit): void {
    this.#commits.push(new PackedCommit(commit));
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
  /** Of those, each as it came to be, and before it what it was if it was updated. */
  readonly #tasks: PackedTasks;

  constructor({ index, events }: Commit) {
    this.index = index;
    this.#tasks = new PackedTasks(events.reduce((count, event) => count + tasksOf(event), 0));
    this.#events = events.map((event) => {
      if (event.kind !== 'task') return event;
      if (event.previous !== undefined) this.#tasks.add(event.previous as Task);
      this.#tasks.add(event.object as Task);
      return event.action;
    });
  }

  get size(): number {
    return this.#events.length;
  }

  unpack(): Commit {
    const tasks = this.#tasks.values();
    const events = this.#events.map((event): StoreEvent => {
      if (typeof event !== 'string') return event;
      const before = event === 'updated' ? { previous: tasks.next().value as Task } : undefined;
      return { kind: 'task', action: event, object: tasks.next().value as Task, ...before };
    });
    return { index: this.index, events };
  }
}

function tasksOf({ kind, previous }: StoreEvent): number {
  if (kind !== 'task') return 0;
  return previous === undefined ? 1 : 2;
}

// Of a task: those of the columns that `add` names.
const TEXTS = 4;

const noExtras = new Map<number, Extra>();

class PackedTasks implements TaskRows {
  readonly numbers: Float64Array;
  readonly ids: string[];
  extras = noExtras;
  readonly #texts: string[];
  #count = 0;
  #textCount = 0;

  constructor(count: number) {
    this.ids = new Array(count);
    this.#texts = new Array(count * TEXTS);
    this.numbers = new Float64Array(count * ROW_NUMBERS);
  }

  add(task: Task): void {
    const at = this.#count++;
    const start = at * ROW_NUMBERS;
    this.ids[at] = task.id;
    writeNumbers(this.numbers, start, task);
    this.#addText(start + SERVICE, task.serviceId);
    this.#addText(start + NODE, task.nodeId);
    this.#addText(start + MESSAGE, task.status.message);
    this.#addText(start + ERROR, task.status.error);
    const extra = extraOf(task);
    if (extra === undefined) return;
    if (this.extras === noExtras) this.extras = new Map();
    this.extras.set(at, extra);
  }

  *values(): Generator<Task | undefined, undefined> {
    const texts = { get: (number: number) => this.#texts[number] ?? '' };
    for (let at = 0; at < this.ids.length; at++) yield readRow(this, at, texts);
  }

  #addText(position: number, text: string): void {
    this.numbers[position] = this.#textCount;
    this.#texts[this.#textCount++] = text;
  }
}
