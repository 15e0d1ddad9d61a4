// A task as a row of numbers, with its texts and what most tasks do not have beside it: a third of the memory of objects, and
// next to nothing for the garbage collector to look at.

import { assert } from '../../core/assert.ts';
import type {
  ContainerStatus,
  FileVersion,
  GenericResource,
  Meta,
  PortConfig,
  Task,
  TaskAttachment,
  TaskState,
  TaskStatus,
} from '../../core/generated/objects.ts';
import { isTerminal, TASK_STATES } from '../../core/task-state.ts';
import { NONE } from '../../proto/wire.ts';

// What a row has of 64 bits: positions in `longs`.
export const VERSION = 0;
const CREATED_AT = 1;
const UPDATED_AT = 2;
const TIMESTAMP = 3;
const RUNNING_AT = 4;
const NOT_BEFORE = 5;
/** What a row takes, in numbers of 64 bits: those above, and two in one of those below. */
const ROW_LONGS = 11;

// And of 32 bits, behind them: positions in `ints`.
const ROW_INTS = 2 * ROW_LONGS;
const FIRST_INT = 12;
const SPEC_VERSION = 12;
const SLOT = 13;
const PID = 14;
const EXIT_CODE = 15;
/** Numbers of texts. */
export const SERVICE = 16;
export const NODE = 17;
export const MESSAGE = 18;
export const ERROR = 19;
/** Positions in TASK_STATES: of the state, and of the desired one times STATES_MAX. */
export const STATES = 20;
const FLAGS = 21;

const STATES_MAX = 64;

const HAS_CONTAINER = 1;
const HAS_LEAVES_LAST = 2;
const LEAVES_LAST = 4;

/** What most tasks do not have. */
export interface Extra {
  readonly attachments: readonly TaskAttachment[];
  readonly genericResources: readonly GenericResource[];
  readonly ports: readonly PortConfig[];
  readonly files: readonly FileVersion[];
  readonly eviction: Task['eviction'];
}

/** The numbers of rows, one row after the other: the same memory in two views. */
export class RowNumbers {
  readonly #longs: Float64Array;
  readonly #ints: Int32Array;

  constructor(longs: Float64Array) {
    this.#longs = longs;
    this.#ints = new Int32Array(longs.buffer);
  }

  static of(count: number): RowNumbers {
    return new RowNumbers(new Float64Array(count * ROW_LONGS));
  }

  copy(): RowNumbers {
    return new RowNumbers(this.#longs.slice());
  }

  long(row: number, column: number): number {
    return this.#longs[row * ROW_LONGS + column] ?? 0;
  }

  setLong(row: number, column: number, value: number): void {
    this.#longs[row * ROW_LONGS + column] = value;
  }

  int(row: number, column: number): number {
    return this.#ints[row * ROW_INTS + column] ?? 0;
  }

  setInt(row: number, column: number, value: number): void {
    this.#ints[row * ROW_INTS + column] = value;
  }

  /** Takes over a row of others. */
  take(row: number, others: RowNumbers, from: number): void {
    for (let column = 0; column <= NOT_BEFORE; column++) this.setLong(row, column, others.long(from, column));
    for (let column = FIRST_INT; column < ROW_INTS; column++)
      this.setInt(row, column, others.int(from, column));
  }
}

/** Tasks, one after the other. */
export interface TaskRows {
  readonly numbers: RowNumbers;
  /** Undefined where no task is. */
  readonly ids: (string | undefined)[];
  readonly extras: Map<number, Extra>;
}

/** Texts by number. */
export interface TextsView {
  get(number: number): string;
}

export const noExtra: Extra = {
  attachments: NONE,
  genericResources: NONE,
  ports: NONE,
  files: NONE,
  eviction: undefined,
};

const statePositions = new Map(TASK_STATES.map((state, position) => [state, position]));

/** All but the numbers of its texts. */
export function writeNumbers(numbers: RowNumbers, row: number, task: Task): void {
  const { meta, leavesLast } = task;
  numbers.setLong(row, CREATED_AT, meta.createdAtMs);
  numbers.setLong(row, NOT_BEFORE, task.notBeforeMs);
  numbers.setInt(row, SPEC_VERSION, task.specVersion);
  numbers.setInt(row, SLOT, task.slot);
  numbers.setInt(row, STATES, statesNumber(task));
  const flags = leavesLast === undefined ? 0 : HAS_LEAVES_LAST | (leavesLast ? LEAVES_LAST : 0);
  numbers.setInt(row, FLAGS, flags);
  writeStatus(numbers, row, task.status, meta);
}

/** The rest of the row stays. */
export function writeStatus(
  numbers: RowNumbers,
  row: number,
  { state, timestampMs, runningAtMs, container }: Task['status'],
  { version, updatedAtMs }: Omit<Meta, 'createdAtMs'>,
): void {
  const desiredState = Math.floor(numbers.int(row, STATES) / STATES_MAX);
  const flags = numbers.int(row, FLAGS) & ~HAS_CONTAINER;
  numbers.setLong(row, VERSION, version);
  numbers.setLong(row, UPDATED_AT, updatedAtMs);
  numbers.setLong(row, TIMESTAMP, timestampMs);
  numbers.setLong(row, RUNNING_AT, runningAtMs);
  numbers.setInt(row, PID, container?.pid ?? 0);
  numbers.setInt(row, EXIT_CODE, container?.exitCode ?? 0);
  numbers.setInt(row, STATES, positionOf(state) + STATES_MAX * desiredState);
  numbers.setInt(row, FLAGS, container === undefined ? flags : flags | HAS_CONTAINER);
}

export function metaAt(numbers: RowNumbers, row: number): Meta {
  return {
    version: numbers.long(row, VERSION),
    createdAtMs: numbers.long(row, CREATED_AT),
    updatedAtMs: numbers.long(row, UPDATED_AT),
  };
}

type MayHaveExtra = Pick<Task, 'attachments' | 'genericResources' | 'status'> & {
  readonly eviction?: Extra['eviction'];
};

/** Undefined for most tasks. */
export function extraOf({
  attachments,
  genericResources,
  eviction,
  status,
}: MayHaveExtra): Extra | undefined {
  const { ports, files } = status;
  const isPlain =
    attachments.length + genericResources.length + ports.length + files.length === 0 &&
    eviction === undefined;
  return isPlain ? undefined : { attachments, genericResources, ports, files, eviction };
}

/** Undefined where no task is. */
export function readRow(rows: TaskRows, at: number, texts: TextsView): Task | undefined {
  const { ids, numbers } = rows;
  const id = ids[at];
  if (id === undefined) return undefined;
  const { eviction, attachments, genericResources } = extraAt(rows, at);
  const flags = numbers.int(at, FLAGS);
  return {
    id,
    meta: metaAt(numbers, at),
    serviceId: texts.get(numbers.int(at, SERVICE)),
    specVersion: numbers.int(at, SPEC_VERSION),
    slot: numbers.int(at, SLOT),
    nodeId: texts.get(numbers.int(at, NODE)),
    status: readStatus(rows, at, texts),
    desiredState: stateAt(Math.floor(numbers.int(at, STATES) / STATES_MAX)),
    notBeforeMs: numbers.long(at, NOT_BEFORE),
    attachments,
    genericResources,
    ...(eviction === undefined ? undefined : { eviction }),
    ...((flags & HAS_LEAVES_LAST) === 0 ? undefined : { leavesLast: (flags & LEAVES_LAST) !== 0 }),
  };
}

/** Of a task that is there. */
export function readStatus(rows: TaskRows, at: number, texts: TextsView): TaskStatus {
  const { numbers } = rows;
  const { ports, files } = extraAt(rows, at);
  const container: ContainerStatus | undefined =
    (numbers.int(at, FLAGS) & HAS_CONTAINER) === 0
      ? undefined
      : { pid: numbers.int(at, PID), exitCode: numbers.int(at, EXIT_CODE) };
  return {
    state: stateAt(numbers.int(at, STATES) % STATES_MAX),
    timestampMs: numbers.long(at, TIMESTAMP),
    message: texts.get(numbers.int(at, MESSAGE)),
    error: texts.get(numbers.int(at, ERROR)),
    ports,
    runningAtMs: numbers.long(at, RUNNING_AT),
    files,
    ...(container === undefined ? undefined : { container }),
  };
}

function extraAt({ extras }: TaskRows, at: number): Extra {
  return extras.size === 0 ? noExtra : (extras.get(at) ?? noExtra);
}

/** What a row has as its `STATES`. */
export function statesNumber({ status, desiredState }: Task): number {
  return positionOf(status.state) + STATES_MAX * positionOf(desiredState);
}

/** Whether the task of the row is in this state. */
export function isStateAt(numbers: RowNumbers, row: number, state: TaskState): boolean {
  return numbers.int(row, STATES) % STATES_MAX === positionOf(state);
}

/** Whether a task that is not over is in both rows in the same state of the same spec, to be in the same. */
export function goesOn(numbers: RowNumbers, before: number, at: number): boolean {
  const states = numbers.int(at, STATES);
  return (
    states === numbers.int(before, STATES) &&
    !isTerminal(stateAt(states % STATES_MAX)) &&
    numbers.long(at, RUNNING_AT) === numbers.long(before, RUNNING_AT) &&
    numbers.long(at, NOT_BEFORE) === numbers.long(before, NOT_BEFORE) &&
    numbers.int(at, SPEC_VERSION) === numbers.int(before, SPEC_VERSION) &&
    numbers.int(at, SLOT) === numbers.int(before, SLOT) &&
    ((numbers.int(at, FLAGS) ^ numbers.int(before, FLAGS)) & ~HAS_CONTAINER) === 0
  );
}

/** What it stands for. */
export function statesOf(states: number): Pick<Task, 'desiredState'> & Pick<Task['status'], 'state'> {
  return { state: stateAt(states % STATES_MAX), desiredState: stateAt(Math.floor(states / STATES_MAX)) };
}

function stateAt(position: number): TaskState {
  return TASK_STATES[position] ?? 'new';
}

function positionOf(state: TaskState): number {
  const position = statePositions.get(state);
  assert(position !== undefined, () => `a task state of no number: ${state}`);
  return position;
}
