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

// Columns of `numbers`.
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
const NUMBER_COLUMNS = 10;

// Columns of `bytes`.
const STATE = 0;
const DESIRED_STATE = 1;
const FLAGS = 2;
const BYTE_COLUMNS = 3;

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
  readonly bytes: Uint8Array;
  /** Undefined where no task is. */
  readonly ids: (string | undefined)[];
  readonly serviceIds: string[];
  readonly nodeIds: string[];
  readonly messages: string[];
  readonly errors: string[];
  readonly extras: Map<number, Extra>;
  /** No part of a snapshot. */
  readonly links: Int32Array;
  /** A snapshot reads it: it is to be copied before it changes. */
  isTaken: boolean;
}

/** The tasks of a service or on a node, as a list through `links`. */
interface Group {
  /** The one text that all its tasks share. */
  readonly id: string;
  first: number;
  last: number;
  size: number;
}

const noExtra: Extra = {
  attachments: NONE,
  genericResources: NONE,
  ports: NONE,
  files: NONE,
  eviction: undefined,
  containerId: undefined,
};

const stateNumbers = new Map(TASK_STATES.map((state, number) => [state, number]));

export class TaskTable {
  readonly #rows = new Map<string, number>();
  #pages: Page[] = [];
  /** Rows below this were used before. */
  #end = 0;
  readonly #free: number[] = [];
  readonly #services = new Map<string, Group>();
  readonly #nodes = new Map<string, Group>();
  readonly #texts = new SharedTexts();

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
    return row === undefined ? 0 : numberAt(this.#pageOf(row), row, VERSION);
  }

  *values(): IterableIterator<Task> {
    for (let row = 0; row < this.#end; row++) {
      const task = readRow(this.#pageOf(row), row);
      if (task !== undefined) yield task;
    }
  }

  /** As they are now, whatever changes while they are read. */
  snapshot(): Iterable<Task> {
    const pages = [...this.#pages];
    for (const page of pages) page.isTaken = true;
    return tasksIn(pages);
  }

  ofService(serviceId: string): Task[] {
    return this.#list(this.#services.get(serviceId), OF_SERVICE);
  }

  onNode(nodeId: string): Task[] {
    return this.#list(this.#nodes.get(nodeId), ON_NODE);
  }

  put(task: Task): void {
    const known = this.#rows.get(task.id);
    const row = known ?? this.#newRow(task.id);
    const page = this.#pageToChange(row);
    const at = row % PAGE_ROWS;
    if (known === undefined) page.ids[at] = task.id;
    if (known === undefined || page.serviceIds[at] !== task.serviceId) {
      if (known !== undefined) this.#unlink(this.#services, page.serviceIds[at], row, OF_SERVICE);
      page.serviceIds[at] = this.#link(this.#services, task.serviceId, row, OF_SERVICE);
    }
    if (known === undefined || page.nodeIds[at] !== task.nodeId) {
      if (known !== undefined) this.#unlink(this.#nodes, page.nodeIds[at], row, ON_NODE);
      page.nodeIds[at] = this.#link(this.#nodes, task.nodeId, row, ON_NODE);
    }
    page.messages[at] = this.#texts.share(task.status.message);
    page.errors[at] = this.#texts.share(task.status.error);
    writeNumbers(page.numbers, at * NUMBER_COLUMNS, task);
    page.bytes[at * BYTE_COLUMNS + STATE] = stateNumber(task.status.state);
    page.bytes[at * BYTE_COLUMNS + DESIRED_STATE] = stateNumber(task.desiredState);
    page.bytes[at * BYTE_COLUMNS + FLAGS] = flagsOf(task);
    const extra = extraOf(task);
    if (extra !== undefined) page.extras.set(at, extra);
    else if (page.extras.size > 0) page.extras.delete(at);
  }

  delete(id: string): void {
    const row = this.#rows.get(id);
    if (row === undefined) return;
    const page = this.#pageToChange(row);
    const at = row % PAGE_ROWS;
    this.#unlink(this.#services, page.serviceIds[at], row, OF_SERVICE);
    this.#unlink(this.#nodes, page.nodeIds[at], row, ON_NODE);
    page.ids[at] = undefined;
    page.serviceIds[at] = '';
    page.nodeIds[at] = '';
    page.messages[at] = '';
    page.errors[at] = '';
    page.extras.delete(at);
    this.#rows.delete(id);
    this.#free.push(row);
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
    const task = readRow(this.#pageOf(row), row);
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

  /** Adds the row behind the others; returns the id that it shares with them. */
  #link(groups: Map<string, Group>, id: string, row: number, column: number): string {
    if (id === '') return '';
    let group = groups.get(id);
    if (group === undefined) {
      group = { id, first: row, last: NO_ROW, size: 0 };
      groups.set(id, group);
    } else this.#setLink(group.last, column + 1, row);
    this.#setLink(row, column, group.last);
    this.#setLink(row, column + 1, NO_ROW);
    group.last = row;
    group.size++;
    return group.id;
  }

  #unlink(groups: Map<string, Group>, id: string | undefined, row: number, column: number): void {
    if (id === undefined || id === '') return;
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

/** Holds texts that many tasks have once. */
class SharedTexts {
  static readonly #KEPT_MAX = 1_000;
  readonly #texts = new Map<string, string>();

  share(text: string): string {
    if (text === '') return '';
    const known = this.#texts.get(text);
    if (known !== undefined) return known;
    // Whatever is in use is shared again from its next occurrence on.
    if (this.#texts.size === SharedTexts.#KEPT_MAX) this.#texts.clear();
    this.#texts.set(text, text);
    return text;
  }
}

function newPage(): Page {
  const column = <T>(value: T): T[] => new Array<T>(PAGE_ROWS).fill(value);
  return {
    numbers: new Float64Array(PAGE_ROWS * NUMBER_COLUMNS),
    bytes: new Uint8Array(PAGE_ROWS * BYTE_COLUMNS),
    ids: column<string | undefined>(undefined),
    serviceIds: column(''),
    nodeIds: column(''),
    messages: column(''),
    errors: column(''),
    extras: new Map(),
    links: new Int32Array(PAGE_ROWS * LINK_COLUMNS).fill(NO_ROW),
    isTaken: false,
  };
}

function copyOf(page: Page): Page {
  return {
    numbers: page.numbers.slice(),
    bytes: page.bytes.slice(),
    ids: page.ids.slice(),
    serviceIds: page.serviceIds.slice(),
    nodeIds: page.nodeIds.slice(),
    messages: page.messages.slice(),
    errors: page.errors.slice(),
    extras: new Map(page.extras),
    links: page.links,
    isTaken: false,
  };
}

function* tasksIn(pages: readonly Page[]): Iterable<Task> {
  for (const page of pages)
    for (let at = 0; at < PAGE_ROWS; at++) {
      const task = readRow(page, at);
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

function readRow(page: Page, row: number): Task | undefined {
  const at = row % PAGE_ROWS;
  const id = page.ids[at];
  if (id === undefined) return undefined;
  const extra = page.extras.size === 0 ? noExtra : (page.extras.get(at) ?? noExtra);
  const flags = page.bytes[at * BYTE_COLUMNS + FLAGS] ?? 0;
  const container =
    (flags & HAS_CONTAINER) === 0 ? undefined : containerAt(page, row, extra.containerId ?? id);
  const { eviction } = extra;
  const status = {
    state: stateAt(page, at, STATE),
    timestampMs: numberAt(page, row, TIMESTAMP),
    message: page.messages[at] ?? '',
    error: page.errors[at] ?? '',
    ports: extra.ports,
    runningAtMs: numberAt(page, row, RUNNING_AT),
    files: extra.files,
    ...(container === undefined ? undefined : { container }),
  };
  return {
    id,
    meta: {
      version: numberAt(page, row, VERSION),
      createdAtMs: numberAt(page, row, CREATED_AT),
      updatedAtMs: numberAt(page, row, UPDATED_AT),
    },
    serviceId: page.serviceIds[at] ?? '',
    specVersion: numberAt(page, row, SPEC_VERSION),
    slot: numberAt(page, row, SLOT),
    nodeId: page.nodeIds[at] ?? '',
    status,
    desiredState: stateAt(page, at, DESIRED_STATE),
    notBeforeMs: numberAt(page, row, NOT_BEFORE),
    attachments: extra.attachments,
    genericResources: extra.genericResources,
    ...(eviction === undefined ? undefined : { eviction }),
    ...((flags & HAS_LEAVES_LAST) === 0 ? undefined : { leavesLast: (flags & LEAVES_LAST) !== 0 }),
  };
}

function containerAt(page: Page, row: number, containerId: string): ContainerStatus {
  return { containerId, pid: numberAt(page, row, PID), exitCode: numberAt(page, row, EXIT_CODE) };
}

function numberAt({ numbers }: Page, row: number, column: number): number {
  return numbers[(row % PAGE_ROWS) * NUMBER_COLUMNS + column] ?? 0;
}

function stateAt({ bytes }: Page, at: number, column: number): TaskState {
  return TASK_STATES[bytes[at * BYTE_COLUMNS + column] ?? 0] ?? 'new';
}

function stateNumber(state: TaskState): number {
  const number = stateNumbers.get(state);
  assert(number !== undefined, () => `a task state of no number: ${state}`);
  return number;
}
