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
} from '../../core/generated/objects.ts';
import { TASK_STATES } from '../../core/task-state.ts';
import { NONE } from '../../proto/wire.ts';

// What a row of `numbers` has: two lines of the processor's cache.
export const VERSION = 0;
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
export const SERVICE = 10;
export const NODE = 11;
export const MESSAGE = 12;
export const ERROR = 13;
/** Positions in TASK_STATES: of the state, and of the desired one times STATES_MAX. */
export const STATES = 14;
const FLAGS = 15;
export const ROW_NUMBERS = 16;

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
  /** Of a container that is not named as its task. */
  readonly containerId: string | undefined;
}

/** Tasks, one after the other. */
export interface TaskRows {
  readonly numbers: Float64Array;
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
  containerId: undefined,
};

const statePositions = new Map(TASK_STATES.map((state, position) => [state, position]));

/** All but the numbers of its texts. */
export function writeNumbers(numbers: Float64Array, start: number, task: Task): void {
  const { meta, leavesLast } = task;
  numbers[start + CREATED_AT] = meta.createdAtMs;
  numbers[start + SPEC_VERSION] = task.specVersion;
  numbers[start + SLOT] = task.slot;
  numbers[start + NOT_BEFORE] = task.notBeforeMs;
  numbers[start + STATES] = statesNumber(task);
  numbers[start + FLAGS] = leavesLast === undefined ? 0 : HAS_LEAVES_LAST | (leavesLast ? LEAVES_LAST : 0);
  writeStatus(numbers, start, task.status, meta);
}

/** The rest of the row stays. */
export function writeStatus(
  numbers: Float64Array,
  start: number,
  { state, timestampMs, runningAtMs, container }: Task['status'],
  { version, updatedAtMs }: Omit<Meta, 'createdAtMs'>,
): void {
  const desiredState = Math.floor((numbers[start + STATES] ?? 0) / STATES_MAX);
  const flags = (numbers[start + FLAGS] ?? 0) & ~HAS_CONTAINER;
  numbers[start + VERSION] = version;
  numbers[start + UPDATED_AT] = updatedAtMs;
  numbers[start + TIMESTAMP] = timestampMs;
  numbers[start + RUNNING_AT] = runningAtMs;
  numbers[start + PID] = container?.pid ?? 0;
  numbers[start + EXIT_CODE] = container?.exitCode ?? 0;
  numbers[start + STATES] = positionOf(state) + STATES_MAX * desiredState;
  numbers[start + FLAGS] = container === undefined ? flags : flags | HAS_CONTAINER;
}

export function metaAt(numbers: Float64Array, start: number): Meta {
  const number = (column: number): number => numbers[start + column] ?? 0;
  return { version: number(VERSION), createdAtMs: number(CREATED_AT), updatedAtMs: number(UPDATED_AT) };
}

export function copyNumbers(from: Float64Array, start: number, to: Float64Array, at: number): void {
  for (let column = 0; column < ROW_NUMBERS; column++) to[at + column] = from[start + column] ?? 0;
}

type MayHaveExtra = Pick<Task, 'id' | 'attachments' | 'genericResources' | 'status'> & {
  readonly eviction?: Extra['eviction'];
};

/** Undefined for most tasks. */
export function extraOf({
  id,
  attachments,
  genericResources,
  eviction,
  status,
}: MayHaveExtra): Extra | undefined {
  const { ports, files, container } = status;
  const containerId = container?.containerId === id ? undefined : container?.containerId;
  const isPlain =
    attachments.length + genericResources.length + ports.length + files.length === 0 &&
    eviction === undefined &&
    containerId === undefined;
  return isPlain ? undefined : { attachments, genericResources, ports, files, eviction, containerId };
}

/** Undefined where no task is. */
export function readRow({ ids, numbers, extras }: TaskRows, at: number, texts: TextsView): Task | undefined {
  const id = ids[at];
  if (id === undefined) return undefined;
  const start = at * ROW_NUMBERS;
  const number = (column: number): number => numbers[start + column] ?? 0;
  const extra = extras.size === 0 ? noExtra : (extras.get(at) ?? noExtra);
  const flags = number(FLAGS);
  const { state, desiredState } = statesOf(number(STATES));
  const container: ContainerStatus | undefined =
    (flags & HAS_CONTAINER) === 0
      ? undefined
      : { containerId: extra.containerId ?? id, pid: number(PID), exitCode: number(EXIT_CODE) };
  const { eviction } = extra;
  return {
    id,
    meta: metaAt(numbers, start),
    serviceId: texts.get(number(SERVICE)),
    specVersion: number(SPEC_VERSION),
    slot: number(SLOT),
    nodeId: texts.get(number(NODE)),
    status: {
      state,
      timestampMs: number(TIMESTAMP),
      message: texts.get(number(MESSAGE)),
      error: texts.get(number(ERROR)),
      ports: extra.ports,
      runningAtMs: number(RUNNING_AT),
      files: extra.files,
      ...(container === undefined ? undefined : { container }),
    },
    desiredState,
    notBeforeMs: number(NOT_BEFORE),
    attachments: extra.attachments,
    genericResources: extra.genericResources,
    ...(eviction === undefined ? undefined : { eviction }),
    ...((flags & HAS_LEAVES_LAST) === 0 ? undefined : { leavesLast: (flags & LEAVES_LAST) !== 0 }),
  };
}

/** What a row has as its `STATES`. */
export function statesNumber({ status, desiredState }: Task): number {
  return positionOf(status.state) + STATES_MAX * positionOf(desiredState);
}

/** Whether the task of the row is in this state. */
export function isStateAt(numbers: Float64Array, start: number, state: TaskState): boolean {
  return (numbers[start + STATES] ?? 0) % STATES_MAX === positionOf(state);
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
