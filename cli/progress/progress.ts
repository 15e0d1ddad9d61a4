// How far a service is on the way to what its spec asks for. Pure: from the service and its tasks to a verdict and to
// the lines that show it.

import type { Service, ServiceSpec, Task, TaskState } from '../../core/generated/objects.ts';
import { wantedReplicas } from '../../core/replicas.ts';
import { isGlobal } from '../../core/service-mode.ts';
import { taskName } from '../../core/task-name.ts';
import { isTerminal, isWanted } from '../../core/task-state.ts';

/** A number, or the id of the node that is the slot. */
type SlotKey = number | string;

export interface SlotProgress {
  /** The newest task of the current spec; absent until there is one. */
  readonly state?: TaskState;
  readonly isRunning: boolean;
  readonly error: string;
}

export interface Progress {
  readonly total: number;
  readonly running: number;
  readonly slots: readonly SlotProgress[];
  readonly verdict: Verdict;
}

/**
 * waiting: not there yet. stable: all run, and for long enough when they go on so for the monitor time.
 * settled: all run, and the manager has watched them already. failed: it will not get there by itself.
 */
export type Verdict =
  | { readonly kind: 'waiting' | 'stable' | 'settled' }
  | { readonly kind: 'failed'; readonly message: string };

export interface ProgressInput {
  readonly service: Service;
  readonly tasks: Iterable<Task>;
  /** The spec a task was made from, when it is known. */
  readonly specOf: (task: Task) => ServiceSpec | undefined;
  /** The operator asked for the rollback, so that it is the goal and not a failure. */
  readonly isRollback: boolean;
  /** How many tasks should run where nodes say that and not the spec. */
  readonly desiredTasks?: number;
}

export function measureProgress(input: ProgressInput): Progress {
  const { service, tasks, specOf, isRollback, desiredTasks = 0 } = input;
  const inNodes = isGlobal(service.spec.mode);
  const total = inNodes ? desiredTasks : wantedReplicas(service.spec);
  const bySlot = groupCurrent(service, tasks, specOf);
  const keys = inNodes ? slotNodes(bySlot, total) : slotNumbers(bySlot, total);
  const slots = keys.map((key) => describeSlot(bySlot.get(key) ?? []));
  const running = slots.filter((slot) => slot.isRunning).length;
  const failure = updateFailure(service, isRollback) ?? finishedFailure(service, bySlot);
  return { total, running, slots, verdict: judge(service, running >= total, failure) };
}

function judge(service: Service, allRun: boolean, failure: string | undefined): Verdict {
  if (failure !== undefined) return { kind: 'failed', message: failure };
  const state = service.updateStatus?.state;
  if (!allRun || state === 'updating' || state === 'rollback-started') return { kind: 'waiting' };
  return { kind: state === undefined ? 'stable' : 'settled' };
}

/** Tasks of the current spec by slot, newest first. */
function groupCurrent(
  service: Service,
  tasks: Iterable<Task>,
  specOf: ProgressInput['specOf'],
): Map<SlotKey, Task[]> {
  const bySlot = new Map<SlotKey, Task[]>();
  for (const task of tasks) {
    if (task.desiredState === 'remove' || !isCurrent(service, task, specOf)) continue;
    const key = task.slot || task.nodeId;
    bySlot.set(key, [...(bySlot.get(key) ?? []), task]);
  }
  for (const group of bySlot.values())
    group.sort((a, b) => b.meta.createdAtMs - a.meta.createdAtMs || b.meta.version - a.meta.version);
  return bySlot;
}

/** A change that a running task does not feel leaves the task as it is. */
function isCurrent(service: Service, task: Task, specOf: ProgressInput['specOf']): boolean {
  if (task.specVersion === service.specVersion) return true;
  const spec = specOf(task);
  return spec !== undefined && taskShape(spec) === taskShape(service.spec);
}

function taskShape({ task, endpoint }: ServiceSpec): string {
  const { restart: _restart, placement: _placement, ...rest } = task;
  return JSON.stringify([rest, endpoint]);
}

/** Those in use, and the lowest free ones up to the number wanted. */
function slotNumbers(bySlot: ReadonlyMap<SlotKey, readonly Task[]>, total: number): number[] {
  const used = [...bySlot].filter(([, tasks]) => tasks.some(isWanted)).map(([slot]) => Number(slot));
  const numbers = new Set(used.sort((a, b) => a - b).slice(0, Math.max(total, 0)));
  for (let slot = 1; numbers.size < total; slot++) numbers.add(slot);
  return [...numbers].sort((a, b) => a - b);
}

/** Nodes with a task, and a place for each that is still missing. */
function slotNodes(bySlot: ReadonlyMap<SlotKey, readonly Task[]>, total: number): SlotKey[] {
  const used = [...bySlot].filter(([, tasks]) => tasks.some(isWanted)).map(([node]) => String(node));
  const missing = Array.from({ length: Math.max(0, total - used.length) }, (_, index) => `missing ${index}`);
  return [...used.sort(), ...missing];
}

function describeSlot(tasks: readonly Task[]): SlotProgress {
  const wanted = tasks.find((task) => isWanted(task) && !isTerminal(task.status.state));
  const shown = wanted ?? tasks[0];
  // While a replacement starts, the reason why it is needed is what the operator wants to read.
  const error =
    shown?.status.error || (shown?.status.state === 'running' ? '' : (tasks[1]?.status.error ?? ''));
  return {
    ...(shown && { state: shown.status.state }),
    isRunning: wanted?.status.state === 'running' && wanted.desiredState === 'running',
    error,
  };
}

function updateFailure({ updateStatus }: Service, isRollback: boolean): string | undefined {
  switch (updateStatus?.state) {
    case 'paused':
      return `service update paused: ${updateStatus.message}`;
    case 'rollback-paused':
      return `service rollback paused: ${updateStatus.message}`;
    case 'rollback-completed':
      return isRollback ? undefined : `service rolled back: ${updateStatus.message}`;
    default:
      return undefined;
  }
}

/** With restart condition "none" an ended task is the end of its slot. */
function finishedFailure(
  { spec }: Service,
  bySlot: ReadonlyMap<SlotKey, readonly Task[]>,
): string | undefined {
  if (spec.task.restart.condition !== 'none') return undefined;
  for (const [newest] of bySlot.values())
    if (newest !== undefined && isTerminal(newest.status.state) && !isWanted(newest))
      return `task ${taskName(spec.name, newest)} ended (${newest.status.error || newest.status.state}) and is not restarted: restart condition is none`;
  return undefined;
}

// More bars than this scroll the terminal away; the sum is shown alone.
const BARS_MAX = 20;
const BAR_WIDTH = 50;
const STEPS: readonly TaskState[] = [
  'new',
  'pending',
  'assigned',
  'accepted',
  'preparing',
  'ready',
  'starting',
  'running',
];

/** "overall progress" and a line for each slot. */
export function formatProgress({ total, running, slots }: Progress): string[] {
  const overall = `overall progress: ${running} out of ${total} tasks`;
  if (total > BARS_MAX) return [overall];
  const width = String(total).length;
  const bars = slots.map((slot, index) => {
    const title = `${String(index + 1).padStart(width)}/${total}:`;
    const error = slot.error === '' ? '' : ` ${slot.error}`;
    return `${title} ${slot.state ?? ''}${slot.state === undefined ? '' : formatBar(slot.state)}${error}`.trimEnd();
  });
  return [overall, ...bars];
}

function formatBar(state: TaskState): string {
  const step = STEPS.indexOf(state) + 1;
  if (step === 0) return '';
  const label = ' '.repeat(Math.max(1, 10 - state.length));
  return label + drawBar(step / STEPS.length);
}

/** `part` of 1 is done. */
export function drawBar(part: number): string {
  const filled = Math.round(BAR_WIDTH * part);
  return `[${'='.repeat(Math.max(0, filled - 1))}>${' '.repeat(Math.min(BAR_WIDTH - filled, BAR_WIDTH - 1))}]`;
}
