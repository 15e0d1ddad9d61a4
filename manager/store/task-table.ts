// The table of tasks, the one kind of object that comes in millions: rows in pages instead of an object for each
// (`task-row.ts`). Whoever reads gets objects made for the occasion: equal to what was put, but never the same twice, so that
// tasks are compared by their ids.

import { assert } from '../../core/assert.ts';
import type { Meta, Task, TaskState, TaskStatus } from '../../core/generated/objects.ts';
import { RowIndex } from './row-index.ts';
import type { PackedTasks } from './task-events.ts';
import {
  ERROR,
  type Extra,
  extraOf,
  isStateAt,
  MESSAGE,
  NODE,
  noExtra,
  RowNumbers,
  readRow,
  readStatus,
  SERVICE,
  STATES,
  statesNumber,
  statesOf,
  type TaskRows,
  type TextsView,
  VERSION,
  writeNumbers,
  writeStatus,
} from './task-row.ts';

// A page that a snapshot has taken is copied when it changes: some microseconds each, and an entry may change hundreds.
const PAGE_ROWS = 256;
const NO_ROW = -1;

// Columns of `links`: the neighbours among the tasks of a service, and among those on a node.
const OF_SERVICE = 0;
const ON_NODE = 2;
const LINK_COLUMNS = 4;

interface Page extends TaskRows {
  /** No part of a snapshot. */
  readonly links: Int32Array;
  /** Snapshots that have it to read yet: while there are any it is copied before it changes. */
  readers: number;
}

/** The tasks of a service or on a node, as a list through `links`. */
interface Group {
  first: number;
  last: number;
  size: number;
  readonly states: StateCounts;
}

/** How many tasks are in a state and are to be in another. */
export interface StateCount {
  readonly state: TaskState;
  readonly desiredState: TaskState;
  readonly count: number;
}

/** Where a task is and how it is there. */
export interface TaskReport {
  readonly version: number;
  /** Empty when it has none. */
  readonly nodeId: string;
  readonly status: TaskStatus;
}

/** Where a row says to which group it belongs. */
interface Membership {
  readonly row: number;
  /** In `links`. */
  readonly links: number;
  readonly numbers: RowNumbers;
  /** In `numbers`. */
  readonly column: number;
}

export class TaskTable {
  readonly #pages: Page[] = [];
  readonly #rows = new RowIndex((row) => this.#pages[Math.floor(row / PAGE_ROWS)]?.ids[row % PAGE_ROWS]);
  /** Rows below this were used before. */
  #end = 0;
  readonly #free: number[] = [];
  readonly #services = new Map<string, Group>();
  readonly #nodes = new Map<string, Group>();
  readonly #texts = new Texts();
  readonly #states = new StateCounts();

  get size(): number {
    return this.#rows.size;
  }

  get(id: string): Task | undefined {
    const row = this.#rows.get(id);
    return row === undefined ? undefined : this.#read(row);
  }

  /** 0 when there is no such task. */
  versionOf(id: string): number {
    const row = this.#rows.get(id);
    return row === undefined ? 0 : this.#pageOf(row).numbers.long(row % PAGE_ROWS, VERSION);
  }

  /** Adds a task that is there, as it is now. Returns its position. */
  packInto(tasks: PackedTasks, id: string): number {
    const row = this.#rows.get(id);
    assert(row !== undefined, () => `no task ${id}`);
    return tasks.addRow(this.#pageOf(row), row % PAGE_ROWS, this.#texts);
  }

  /** Undefined when there is no such task, empty when it has no node. */
  nodeOf(id: string): string | undefined {
    const row = this.#rows.get(id);
    return row === undefined
      ? undefined
      : this.#texts.get(this.#pageOf(row).numbers.int(row % PAGE_ROWS, NODE));
  }

  report(id: string): TaskReport | undefined {
    const row = this.#rows.get(id);
    if (row === undefined) return undefined;
    const page = this.#pageOf(row);
    const at = row % PAGE_ROWS;
    const { numbers } = page;
    return {
      version: numbers.long(at, VERSION),
      nodeId: this.#texts.get(numbers.int(at, NODE)),
      status: readStatus(page, at, this.#texts),
    };
  }

  values(): IterableIterator<Task> {
    return tasksIn(this.#pages, this.#texts);
  }

  /** As they are now, whatever changes while they are read; once. */
  snapshot(): Iterable<Task> {
    const pages = [...this.#pages];
    for (const page of pages) page.readers++;
    return tasksIn(pages, this.#texts.copy(), (page) => {
      page.readers--;
    });
  }

  ofService(serviceId: string): Task[] {
    return this.#list(this.#services.get(serviceId), OF_SERVICE);
  }

  onNode(nodeId: string): Task[] {
    return this.#list(this.#nodes.get(nodeId), ON_NODE);
  }

  /** Of a service, or of all. */
  stateCounts(serviceId?: string): Iterable<StateCount> {
    const counts = serviceId === undefined ? this.#states : this.#services.get(serviceId)?.states;
    return counts?.values() ?? [];
  }

  put(task: Task): void {
    const known = this.#rows.get(task.id);
    const row = known ?? this.#newRow(task.id);
    const page = this.#pageToChange(row);
    const at = row % PAGE_ROWS;
    page.ids[at] ??= task.id;
    const { numbers } = page;
    const isCounted =
      known !== undefined &&
      numbers.int(at, STATES) === statesNumber(task) &&
      this.#texts.get(numbers.int(at, SERVICE)) === task.serviceId;
    if (known !== undefined && !isCounted) this.#countStates(numbers, at, -1);
    this.#assign(row, numbers, task.serviceId, task.nodeId);
    this.#putText(numbers, at, MESSAGE, task.status.message);
    this.#putText(numbers, at, ERROR, task.status.error);
    writeNumbers(numbers, at, task);
    if (!isCounted) this.#countStates(numbers, at, 1);
    this.#setExtra(page, at, extraOf(task));
  }

  /** The same as to put the task with this status, without its object. */
  putStatus(id: string, status: Task['status'], meta: Omit<Meta, 'createdAtMs'>): void {
    const row = this.#rows.get(id);
    assert(row !== undefined, () => `no task ${id}`);
    const page = this.#pageToChange(row);
    const at = row % PAGE_ROWS;
    const { numbers, extras } = page;
    const isSameState = isStateAt(numbers, at, status.state);
    if (!isSameState) this.#countStates(numbers, at, -1);
    writeStatus(numbers, at, status, meta);
    if (!isSameState) this.#countStates(numbers, at, 1);
    this.#putText(numbers, at, MESSAGE, status.message);
    this.#putText(numbers, at, ERROR, status.error);
    const { attachments, genericResources, eviction } = extras.get(at) ?? noExtra;
    this.#setExtra(page, at, extraOf({ attachments, genericResources, eviction, status }));
  }

  delete(id: string): void {
    const row = this.#rows.get(id);
    if (row === undefined) return;
    const page = this.#pageToChange(row);
    const at = row % PAGE_ROWS;
    const { numbers } = page;
    this.#countStates(numbers, at, -1);
    this.#assign(row, numbers, '', '');
    this.#putText(numbers, at, MESSAGE, '');
    this.#putText(numbers, at, ERROR, '');
    this.#rows.delete(id);
    page.ids[at] = undefined;
    page.extras.delete(at);
    this.#free.push(row);
  }

  #setExtra({ extras }: Page, at: number, extra: Extra | undefined): void {
    if (extra !== undefined) extras.set(at, extra);
    else if (extras.size > 0) extras.delete(at);
  }

  #countStates(numbers: RowNumbers, at: number, by: 1 | -1): void {
    const states = numbers.int(at, STATES);
    this.#states.add(states, by);
    this.#services.get(this.#texts.get(numbers.int(at, SERVICE)))?.states.add(states, by);
  }

  /** Moves a row to other groups, that of the empty id being none. */
  #assign(row: number, numbers: RowNumbers, serviceId: string, nodeId: string): void {
    this.#regroup(this.#services, serviceId, { row, links: OF_SERVICE, numbers, column: SERVICE });
    this.#regroup(this.#nodes, nodeId, { row, links: ON_NODE, numbers, column: NODE });
  }

  #regroup(groups: Map<string, Group>, id: string, { row, links, numbers, column }: Membership): void {
    const at = row % PAGE_ROWS;
    const before = this.#texts.get(numbers.int(at, column));
    if (before === id) return;
    if (before !== '') this.#unlink(groups, before, row, links);
    this.#putText(numbers, at, column, id);
    if (id !== '') this.#link(groups, this.#texts.get(numbers.int(at, column)), row, links);
  }

  #putText(numbers: RowNumbers, at: number, column: number, text: string): void {
    const before = numbers.int(at, column);
    if (this.#texts.get(before) === text) return;
    numbers.setInt(at, column, this.#texts.take(text));
    this.#texts.release(before);
  }

  #newRow(id: string): number {
    const row = this.#free.pop() ?? this.#end++;
    if (row === this.#pages.length * PAGE_ROWS) this.#pages.push(newPage());
    this.#rows.add(id, row);
    return row;
  }

  #pageOf(row: number): Page {
    const page = this.#pages[Math.floor(row / PAGE_ROWS)];
    assert(page !== undefined, 'a row beyond the pages');
    return page;
  }

  #pageToChange(row: number): Page {
    const page = this.#pageOf(row);
    if (page.readers === 0) return page;
    const copy = copyOf(page);
    this.#pages[Math.floor(row / PAGE_ROWS)] = copy;
    return copy;
  }

  #read(row: number): Task {
    const task = readRow(this.#pageOf(row), row % PAGE_ROWS, this.#texts);
    assert(task !== undefined, 'an index leads to a row without a task');
    return task;
  }

  #list(group: Group | undefined, column: number): Task[] {
    if (group === undefined) return [];
    const tasks = new Array<Task>(group.size);
    let count = 0;
    for (let row = group.first; row !== NO_ROW; row = this.#linkOf(row, column + 1))
      tasks[count++] = this.#read(row);
    return tasks;
  }

  /** Adds the row behind the others. */
  #link(groups: Map<string, Group>, id: string, row: number, column: number): void {
    let group = groups.get(id);
    if (group === undefined) {
      group = { first: row, last: NO_ROW, size: 0, states: new StateCounts() };
      groups.set(id, group);
    } else this.#setLink(group.last, column + 1, row);
    this.#setLink(row, column, group.last);
    this.#setLink(row, column + 1, NO_ROW);
    group.last = row;
    group.size++;
  }

  #unlink(groups: Map<string, Group>, id: string, row: number, column: number): void {
    const group = groups.get(id);
    assert(group !== undefined, 'a task is in a group that is not there');
    const before = this.#linkOf(row, column);
    const after = this.#linkOf(row, column + 1);
    if (before === NO_ROW) group.first = after;
    else this.#setLink(before, column + 1, after);
    if (after === NO_ROW) group.last = before;
    else this.#setLink(after, column, before);
    if (--group.size === 0) groups.delete(id);
  }

  #linkOf(row: number, column: number): number {
    return this.#pageOf(row).links[(row % PAGE_ROWS) * LINK_COLUMNS + column] ?? NO_ROW;
  }

  #setLink(row: number, column: number, to: number): void {
    this.#pageOf(row).links[(row % PAGE_ROWS) * LINK_COLUMNS + column] = to;
  }
}

/** By what a row says of its states. */
class StateCounts {
  readonly #counts = new Map<number, number>();

  add(states: number, by: 1 | -1): void {
    const count = (this.#counts.get(states) ?? 0) + by;
    if (count === 0) this.#counts.delete(states);
    else this.#counts.set(states, count);
  }

  *values(): Iterable<StateCount> {
    for (const [states, count] of this.#counts) yield { ...statesOf(states), count };
  }
}

/** Texts by number: what many tasks have is held once. 0 is the empty one. */
class Texts {
  readonly #texts = [''];
  /** How often each is in use. */
  readonly #uses: number[] = [0];
  readonly #numbers = new Map<string, number>();
  readonly #free: number[] = [];

  get(number: number): string {
    return this.#texts[number] ?? '';
  }

  /** The number of a text that is in use once more. */
  take(text: string): number {
    if (text === '') return 0;
    let number = this.#numbers.get(text);
    if (number === undefined) {
      number = this.#free.pop() ?? this.#texts.length;
      this.#texts[number] = text;
      this.#uses[number] = 0;
      this.#numbers.set(text, number);
    }
    this.#uses[number] = (this.#uses[number] ?? 0) + 1;
    return number;
  }

  /** It is in use once less. */
  release(number: number): void {
    if (number === 0) return;
    const uses = (this.#uses[number] ?? 0) - 1;
    this.#uses[number] = uses;
    if (uses > 0) return;
    this.#numbers.delete(this.get(number));
    this.#texts[number] = '';
    this.#free.push(number);
  }

  /** What the numbers mean now. */
  copy(): TextsView {
    const texts = [...this.#texts];
    return { get: (number) => texts[number] ?? '' };
  }
}

function newPage(): Page {
  return {
    numbers: RowNumbers.of(PAGE_ROWS),
    ids: new Array<string | undefined>(PAGE_ROWS).fill(undefined),
    extras: new Map(),
    links: new Int32Array(PAGE_ROWS * LINK_COLUMNS).fill(NO_ROW),
    readers: 0,
  };
}

function copyOf({ numbers, ids, extras, links }: Page): Page {
  return { numbers: numbers.copy(), ids: ids.slice(), extras: new Map(extras), links, readers: 0 };
}

/** Lets go of each page that it has read, and of those that are left when nobody reads on. */
function* tasksIn(
  pages: readonly Page[],
  texts: TextsView,
  letGo: (page: Page) => void = () => {},
): IterableIterator<Task> {
  const unread = pages.values();
  try {
    for (const page of pages) {
      for (let at = 0; at < PAGE_ROWS; at++) {
        const task = readRow(page, at, texts);
        if (task !== undefined) yield task;
      }
      unread.next();
      letGo(page);
    }
  } finally {
    for (const page of unread) letGo(page);
  }
}
