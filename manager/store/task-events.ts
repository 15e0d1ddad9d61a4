// What an entry of the log did to tasks, as rows. Objects are made when somebody asks: on a manager that does not lead hardly
// anybody does, and thousands of objects that stay a little longer than others are what collecting garbage costs most.

import { isDeepStrictEqual } from 'node:util';
import { assert } from '../../core/assert.ts';
import type { Meta, Task } from '../../core/generated/objects.ts';
import type { StoreEvent } from './apply-entry.ts';
import {
  ERROR,
  type Extra,
  extraOf,
  goesOn,
  MESSAGE,
  metaAt,
  NODE,
  RowNumbers,
  readRow,
  SERVICE,
  type TaskRows,
  type TextsView,
  writeNumbers,
} from './task-row.ts';

const textColumns = [SERVICE, NODE, MESSAGE, ERROR] as const;

const noExtras = new Map<number, Extra>();

/** Tasks as they were when they were added, each under its position. */
export class PackedTasks implements TaskRows {
  readonly numbers: RowNumbers;
  readonly ids: string[];
  extras = noExtras;
  readonly #texts: string[];
  #count = 0;

  /** Room for so many. */
  constructor(count: number) {
    this.ids = new Array(count);
    this.#texts = new Array(count * textColumns.length);
    this.numbers = RowNumbers.of(count);
  }

  add(task: Task): number {
    const at = this.#count++;
    this.ids[at] = task.id;
    writeNumbers(this.numbers, at, task);
    this.#setTexts(at, task.serviceId, task.nodeId, task.status.message, task.status.error);
    const extra = extraOf(task);
    if (extra !== undefined) this.#setExtra(at, extra);
    return at;
  }

  /** A row of other ones. */
  addRow({ ids, numbers, extras }: TaskRows, from: number, texts: TextsView): number {
    const at = this.#count++;
    const id = ids[from];
    assert(id !== undefined, 'a row without a task');
    this.ids[at] = id;
    this.numbers.take(at, numbers, from);
    const textAt = (column: number): string => texts.get(numbers.int(from, column));
    this.#setTexts(at, textAt(SERVICE), textAt(NODE), textAt(MESSAGE), textAt(ERROR));
    const extra = extras.size === 0 ? undefined : extras.get(from);
    if (extra !== undefined) this.#setExtra(at, extra);
    return at;
  }

  get(number: number): string {
    return this.#texts[number] ?? '';
  }

  read(at: number): Task {
    const task = readRow(this, at, this);
    assert(task !== undefined, 'no task was added there');
    return task;
  }

  metaAt(at: number): Meta {
    return metaAt(this.numbers, at);
  }

  serviceIdAt(at: number): string {
    return this.get(this.numbers.int(at, SERVICE));
  }

  /** Whether the task goes on in this row as in the one before, with no more than another word of its agent. */
  isRemark(at: number): boolean {
    const { numbers, extras } = this;
    const before = at - 1;
    return (
      goesOn(numbers, before, at) &&
      this.#isSameText(SERVICE, before, at) &&
      this.#isSameText(NODE, before, at) &&
      this.#isSameText(ERROR, before, at) &&
      (extras.size === 0 || isDeepStrictEqual(extras.get(before), extras.get(at)))
    );
  }

  #isSameText(column: number, before: number, at: number): boolean {
    return this.get(this.numbers.int(before, column)) === this.get(this.numbers.int(at, column));
  }

  #setTexts(at: number, service: string, node: string, message: string, error: string): void {
    const first = at * textColumns.length;
    const texts = this.#texts;
    texts[first] = service;
    texts[first + 1] = node;
    texts[first + 2] = message;
    texts[first + 3] = error;
    for (let text = 0; text < textColumns.length; text++)
      this.numbers.setInt(at, textColumns[text]!, first + text);
  }

  #setExtra(at: number, extra: Extra): void {
    if (this.extras === noExtras) this.extras = new Map();
    this.extras.set(at, extra);
  }
}

/** How many rows of `PackedTasks` an event has. */
export function rowsOf(action: StoreEvent['action']): number {
  return action === 'updated' ? 2 : 1;
}

/** One task's change. Each object is made once. */
export class TaskEvent implements StoreEvent<'task'> {
  readonly kind = 'task';
  readonly action: StoreEvent['action'];
  readonly #tasks: PackedTasks;
  readonly #at: number;
  #object: Task | undefined;
  #previous: Task | undefined;

  /** `at`: of the object, which may be there already; of one that was updated, what it was is before it. */
  constructor(action: StoreEvent['action'], tasks: PackedTasks, at: number, object?: Task) {
    this.action = action;
    this.#tasks = tasks;
    this.#at = at;
    this.#object = object;
  }

  get object(): Task {
    this.#object ??= this.#tasks.read(this.#at);
    return this.#object;
  }

  get previous(): Task | undefined {
    if (this.action === 'updated') this.#previous ??= this.#tasks.read(this.#at - 1);
    return this.#previous;
  }

  /** Does not make the object, as `object` does. */
  get serviceId(): string {
    return this.#tasks.serviceIdAt(this.#at);
  }

  get meta(): Meta {
    return this.#tasks.metaAt(this.#at);
  }

  /**
   * Whether the agent has only told more of a task that goes on as before: another message, another time, another process.
   * Nobody decides anything by it.
   */
  get isRemark(): boolean {
    return this.action === 'updated' && this.#tasks.isRemark(this.#at);
  }
}
