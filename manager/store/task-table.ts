// The table of tasks, the one kind of object that comes in millions: columns in pages instead of an object for each, a third
// of the memory and next to nothing for the garbage collector to look at. Whoever reads gets objects made for the occasion:
// equal to what was put, but never the same twice, so that tasks are compared by their ids.

import { assert } from '../../core/assert.ts';
import type {
  ContainerStatus,
  FileVersion,
  GenericResource,
  PortConfig,
  Task,
  TaskAttachment,
  TaskState,
} from '../../core/generated/objects.ts';
import { TASK_STATES } from '../../core/task-state.ts';
import { NONE } from '../../proto/wire.ts';

// A page that a snapshot has taken is copied when it changes: some microseconds each, and an entry may change hundreds.
const PAGE_ROWS = 256;
const NO_ROW = -1;

// What a row of `numbers` has: two lines of the processor's cache.
const VERSION = 0;
const CREATED_AT = 1;
const UPDATED_AT = 2;
const SPEC_VERSION = 3;
const SLOT = 4;
const TIMESTAMP = 5;
const RUNNING_AT = 6;
const NOT_BEFORE = 7;
const PID = 8;
const EXIT_CODE = 9;
/** Numbers of texts. */
const SERVICE = 10;
const NODE = 11;
const MESSAGE = 12;
const ERROR = 13;
/** Positions in TASK_STATES: of the state, and of the desired one times STATES_MAX. */
const STATES = 14;
const FLAGS = 15;
const ROW_NUMBERS = 16;

const STATES_MAX = 64;

const HAS_CONTAINER = 1;
const HAS_LEAVES_LAST = 2;
const LEAVES_LAST = 4;

// Columns of `links`: the neighbours among the tasks of a service, and among those on a node.
const OF_SERVICE = 0;
const ON_NODE = 2;
const LINK_COLUMNS = 4;

/** What most tasks do not have. */
interface Extra {
  readonly attachments: readonly TaskAttachment[];
  readonly genericResources: readonly GenericResource[];
  readonly ports: readonly PortConfig[];
  readonly files: readonly FileVersion[];
  readonly eviction: string | undefined;
  /** Of a container that is not named as its task. */
  readonly containerId: string | undefined;
}

interface Page {
  readonly numbers: Float64Array;
  /** Undefined where no task is. */
  readonly ids: (string | undefined)[];
  readonly extras: Map<number, Extra>;
  /** No part of a snapshot. */
  readonly links: Int32Array;
  /** A snapshot reads it: it is to be copied before it changes. */
  isTaken: boolean;
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

/** Where a row says to which group it belongs. */
interface Membership {
  readonly row: number;
  /** In `links`. */
  readonly column: number;
  readonly numbers: Float64Array;
  /** In `numbers`. */
  readonly at: number;
}

const noExtra: Extra = {
  attachments: NONE,
  genericResources: NONE,
  ports: NONE,
  files: NONE,
  eviction: undefined,
  containerId: undefined,
};

const statePositions = new Map(TASK_STATES.map((state, position) => [state, position]));

export class TaskTable {
  readonly #rows = new Map<string, number>();
  readonly #pages: Page[] = [];
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

  /** Undefined when there is no such task, empty when it has no node. */
  nodeOf(id: string): string | undefined {
    const row = this.#rows.get(id);
    return row === undefined ? undefined : this.#texts.get(this.#numberAt(row, NODE));
  }

  values(): IterableIterator<Task> {
    return tasksIn(this.#pages, this.#texts);
  }

  /** As they are now, whatever changes while they are read. */
  snapshot(): Iterable<Task> {
    const pages = [...this.#pages];
    for (const page of pages) page.isTaken = true;
    return tasksIn(pages, this.#texts.copy());
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
    const start = at * ROW_NUMBERS;
    if (known !== undefined) this.#countStates(numbers, start, -1);
    this.#assign(this.#services, task.serviceId, { row, column: OF_SERVICE, numbers, at: start + SERVICE });
    this.#assign(this.#nodes, task.nodeId, { row, column: ON_NODE, numbers, at: start + NODE });
    this.#putText(numbers, start + MESSAGE, task.status.message);
    this.#putText(numbers, start + ERROR, task.status.error);
    writeNumbers(numbers, start, task);
    this.#countStates(numbers, start, 1);
    const extra = extraOf(task);
    if (extra !== undefined) page.extras.set(at, extra);
    else if (page.extras.size > 0) page.extras.delete(at);
  }

  delete(id: string): void {
    const row = this.#rows.get(id);
    if (row === undefined) return;
    const page = this.#pageToChange(row);
    const at = row % PAGE_ROWS;
    const { numbers } = page;
    const start = at * ROW_NUMBERS;
    this.#countStates(numbers, start, -1);
    this.#assign(this.#services, '', { row, column: OF_SERVICE, numbers, at: start + SERVICE });
    this.#assign(this.#nodes, '', { row, column: ON_NODE, numbers, at: start + NODE });
    this.#putText(numbers, start + MESSAGE, '');
    this.#putText(numbers, start + ERROR, '');
    page.ids[at] = undefined;
    page.extras.delete(at);
    this.#rows.delete(id);
    this.#free.push(row);
  }

  #countStates(numbers: Float64Array, start: number, by: 1 | -1): void {
    const states = numbers[start + STATES] ?? 0;
    this.#states.add(states, by);
    this.#services.get(this.#texts.get(numbers[start + SERVICE] ?? 0))?.states.add(states, by);
  }

  /** Moves a row to another group, that of the empty id being none. */
  #assign(groups: Map<string, Group>, id: string, { row, column, numbers, at }: Membership): void {
    const before = this.#texts.get(numbers[at] ?? 0);
    if (before === id) return;
    if (before !== '') this.#unlink(groups, before, row, column);
    this.#putText(numbers, at, id);
    if (id !== '') this.#link(groups, this.#texts.get(numbers[at] ?? 0), row, column);
  }

  #putText(numbers: Float64Array, at: number, text: string): void {
    const before = numbers[at] ?? 0;
    if (this.#texts.get(before) === text) return;
    numbers[at] = this.#texts.take(text);
    this.#texts.release(before);
  }

  #numberAt(row: number, column: number): number {
    return this.#pageOf(row).numbers[(row % PAGE_ROWS) * ROW_NUMBERS + column] ?? 0;
  }

  #newRow(id: string): number {
    const row = this.#free.pop() ?? this.#end++;
    if (row === this.#pages.length * PAGE_ROWS) this.#pages.push(newPage());
    this.#rows.set(id, row);
    return row;
  }

  #pageOf(row: number): Page {
    const page = this.#pages[Math.floor(row / PAGE_ROWS)];
    assert(page !== undefined, 'a row beyond the pages');
    return page;
  }

  #pageToChange(row: number): Page {
    const page = this.#pageOf(row);
    if (!page.isTaken) return page;
    const copy = copyOf(page);
    this.#pages[Math.floor(row / PAGE_ROWS)] = copy;
    return copy;
  }

  #read(row: number): Task {
    const task = readRow(this.#pageOf(row), row, this.#texts);
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
    for (const [states, count] of this.#counts)
      yield {
        state: stateAt(states % STATES_MAX),
        desiredState: stateAt(Math.floor(states / STATES_MAX)),
        count,
      };
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
  copy(): Pick<Texts, 'get'> {
    const texts = [...this.#texts];
    return { get: (number) => texts[number] ?? '' };
  }
}

function newPage(): Page {
  return {
    numbers: new Float64Array(PAGE_ROWS * ROW_NUMBERS),
    ids: new Array<string | undefined>(PAGE_ROWS).fill(undefined),
    extras: new Map(),
    links: new Int32Array(PAGE_ROWS * LINK_COLUMNS).fill(NO_ROW),
    isTaken: false,
  };
}

function copyOf({ numbers, ids, extras, links }: Page): Page {
  return { numbers: numbers.slice(), ids: ids.slice(), extras: new Map(extras), links, isTaken: false };
}

function* tasksIn(pages: readonly Page[], texts: Pick<Texts, 'get'>): IterableIterator<Task> {
  for (const page of pages)
    for (let at = 0; at < PAGE_ROWS; at++) {
      const task = readRow(page, at, texts);
      if (task !== undefined) yield task;
    }
}

function writeNumbers(numbers: Float64Array, start: number, task: Task): void {
  const { meta, status } = task;
  numbers[start + VERSION] = meta.version;
  numbers[start + CREATED_AT] = meta.createdAtMs;
  numbers[start + UPDATED_AT] = meta.updatedAtMs;
  numbers[start + SPEC_VERSION] = task.specVersion;
  numbers[start + SLOT] = task.slot;
  numbers[start + TIMESTAMP] = status.timestampMs;
  numbers[start + RUNNING_AT] = status.runningAtMs;
  numbers[start + NOT_BEFORE] = task.notBeforeMs;
  numbers[start + PID] = status.container?.pid ?? 0;
  numbers[start + EXIT_CODE] = status.container?.exitCode ?? 0;
  numbers[start + STATES] = positionOf(status.state) + STATES_MAX * positionOf(task.desiredState);
  numbers[start + FLAGS] = flagsOf(task);
}

function flagsOf({ status, leavesLast }: Task): number {
  const container = status.container === undefined ? 0 : HAS_CONTAINER;
  if (leavesLast === undefined) return container;
  return container | HAS_LEAVES_LAST | (leavesLast ? LEAVES_LAST : 0);
}

function extraOf({ id, attachments, genericResources, eviction, status }: Task): Extra | undefined {
  const { ports, files, container } = status;
  const containerId = container?.containerId === id ? undefined : container?.containerId;
  const isPlain =
    attachments.length + genericResources.length + ports.length + files.length === 0 &&
    eviction === undefined &&
    containerId === undefined;
  return isPlain ? undefined : { attachments, genericResources, ports, files, eviction, containerId };
}

function readRow({ ids, numbers, extras }: Page, row: number, texts: Pick<Texts, 'get'>): Task | undefined {
  const at = row % PAGE_ROWS;
  const id = ids[at];
  if (id === undefined) return undefined;
  const start = at * ROW_NUMBERS;
  const number = (column: number): number => numbers[start + column] ?? 0;
  const extra = extras.size === 0 ? noExtra : (extras.get(at) ?? noExtra);
  const flags = number(FLAGS);
  const states = number(STATES);
  const container: ContainerStatus | undefined =
    (flags & HAS_CONTAINER) === 0
      ? undefined
      : { containerId: extra.containerId ?? id, pid: number(PID), exitCode: number(EXIT_CODE) };
  const { eviction } = extra;
  return {
    id,
    meta: { version: number(VERSION), createdAtMs: number(CREATED_AT), updatedAtMs: number(UPDATED_AT) },
    serviceId: texts.get(number(SERVICE)),
    specVersion: number(SPEC_VERSION),
    slot: number(SLOT),
    nodeId: texts.get(number(NODE)),
    status: {
      state: stateAt(states % STATES_MAX),
      timestampMs: number(TIMESTAMP),
      message: texts.get(number(MESSAGE)),
      error: texts.get(number(ERROR)),
      ports: extra.ports,
      runningAtMs: number(RUNNING_AT),
      files: extra.files,
      ...(container === undefined ? undefined : { container }),
    },
    desiredState: stateAt(Math.floor(states / STATES_MAX)),
    notBeforeMs: number(NOT_BEFORE),
    attachments: extra.attachments,
    genericResources: extra.genericResources,
    ...(eviction === undefined ? undefined : { eviction }),
    ...((flags & HAS_LEAVES_LAST) === 0 ? undefined : { leavesLast: (flags & LEAVES_LAST) !== 0 }),
  };
}

function stateAt(position: number): TaskState {
  return TASK_STATES[position] ?? 'new';
}

function positionOf(state: TaskState): number {
  const position = statePositions.get(state);
  assert(position !== undefined, () => `a task state of no number: ${state}`);
  return position;
}
