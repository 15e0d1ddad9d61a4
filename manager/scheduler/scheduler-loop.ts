// Places tasks: new ones while they are made, PENDING ones in its loop, which waits and writes; the planner decides. A task
// that fits nowhere keeps its state and gets the reason; it is looked at again whenever something changes that could make
// room.

import type { Clock } from '../../core/clock.ts';
import type { Node, Service, ServiceSpec, Task } from '../../core/generated/objects.ts';
import { isTerminal } from '../../core/task-state.ts';
import { runLoop } from '../loop.ts';
import { type Booking, ClusterBook } from '../placement/cluster-book.ts';
import type { Placer } from '../placement/placer.ts';
import { bookPlaces, type PlacementPlan, planGroup } from '../placement/plan-placement.ts';
import type { FreshCommit, Store } from '../store/store.ts';
import type { Transaction } from '../store/transaction.ts';
import { isWaiting, type WaitingGroup, WaitingTasks } from './waiting-tasks.ts';

export interface SchedulerOptions {
  readonly store: Store;
  readonly clock: Clock;
  readonly onFailure?: (error: unknown) => void;
  /** Told of every placed task: milliseconds from its creation. */
  readonly onScheduled?: (delayMs: number) => void;
}

/** What is decided in one go, in tasks placed and nodes looked at: a few milliseconds, after which others have their turn. */
const PASS_COST_MAX = 20_000;
const TASKS_PER_PASS = 2_000;
/** In larger groups, a refusal that differs in nothing but how many nodes it counts is not written to every task again. */
const RECOUNTED_MAX = 100;

const noPlan: PlacementPlan = { assign: [], refuse: [], reason: '' };

export class Scheduler implements Placer {
  readonly #options: SchedulerOptions;
  /** What nodes have left: up to date with each commit, with what is decided and not written yet. */
  readonly book: ClusterBook;
  readonly #waiting = new WaitingTasks();
  /** Somebody waits for tasks of another service to come to a node. */
  #isCompanyWanted = false;
  /** Something was booked for tasks that did not come to be. */
  #hasGivenBack = false;

  /** To be run before the store changes again. */
  constructor(options: SchedulerOptions) {
    this.#options = options;
    const { view } = options.store;
    this.book = ClusterBook.of(view);
    for (const task of view.task.values()) this.#waiting.note(task.id, task);
  }

  /** Runs until the signal aborts. */
  run(signal: AbortSignal): Promise<void> {
    const isRelevant = (commit: FreshCommit) => this.#hear(commit);
    const pass = () => this.#pass();
    return runLoop({ name: 'scheduler', isRelevant, pass, ...this.#options }, signal);
  }

  placeNew(spec: ServiceSpec, tasks: readonly Task[]): readonly Task[] {
    const [first] = tasks;
    if (first === undefined || this.#waiting.hasNext) return tasks;
    if (!tasks.every((task) => isWaiting(task) && task.nodeId === '')) return tasks;
    const nowMs = this.#options.clock.nowMs();
    const { serviceId, specVersion } = first;
    const request = { serviceId, specVersion, nodeId: '', spec, count: tasks.length };
    const bookings = bookPlaces(request, this.book, nowMs);
    return tasks.map((task, position) => {
      const booking = bookings[position];
      if (booking === undefined) return task;
      this.book.expect(task.id, booking);
      return assigned(task, booking, nowMs);
    });
  }

  settle(taskIds: readonly string[]): void {
    for (const id of taskIds) if (this.book.settle(id)) this.#hasGivenBack = true;
  }

  /** True when there is something to look at. */
  #hear({ decisive }: FreshCommit): boolean {
    let isNews = false;
    let mayFit = this.#hasGivenBack;
    this.#hasGivenBack = false;
    for (const { kind, action, object, previous } of decisive) {
      const current = action === 'removed' ? undefined : object;
      if (kind === 'node') {
        this.book.noteNode(object.id, current as Node | undefined);
        mayFit = true;
      }
      if (kind === 'service' && this.book.noteService(object.id, current as Service | undefined))
        mayFit = true;
      if (kind !== 'task') continue;
      const before = (action === 'removed' ? object : previous) as Task | undefined;
      const task = current as Task | undefined;
      if (isSameToScheduler(task, before)) continue;
      this.book.noteTask(before, task, this.#specOf(task));
      if (this.#waiting.note(object.id, task)) isNews = true;
      const isAssigned = isPlaced(task, before);
      if (isAssigned) this.#options.onScheduled?.(this.#options.clock.nowMs() - object.meta.createdAtMs);
      mayFit ||= isEnd(task, before) || hasTakenOn(task, before) || (this.#isCompanyWanted && isAssigned);
    }
    return (mayFit && this.#waiting.lookAtAll()) || isNews;
  }

  /** Returns when to come back: at once when there is more to do. */
  async #pass(): Promise<number | undefined> {
    const { clock, store } = this.#options;
    const nowMs = clock.nowMs();
    const moment = { nowMs, index: store.index };
    const plans: PlacementPlan[] = [];
    let tasks = 0;
    for (let cost = 0; tasks < TASKS_PER_PASS && cost < PASS_COST_MAX; ) {
      const group = this.#waiting.next();
      if (group === undefined) break;
      const plan = this.#plan(group, TASKS_PER_PASS - tasks, nowMs);
      plans.push(plan);
      tasks += plan.assign.length;
      // Every node was looked at, and once more to tell why.
      cost += plan.assign.length + 1 + (plan.refuse.length > 0 ? 2 * this.book.nodeCount : 0);
    }
    const assigned = plans.flatMap(({ assign }) => assign);
    for (const { task, booking } of assigned) this.book.expect(task.id, booking);
    try {
      await store.batch(plans.flatMap((plan) => stepsOf(plan, moment)));
    } finally {
      for (const { task } of assigned) this.#settle(task);
    }
    return this.#waiting.hasNext ? clock.nowMs() : undefined;
  }

  #plan(group: WaitingGroup, tasksMax: number, nowMs: number): PlacementPlan {
    const { view } = this.#options.store;
    const { serviceId, specVersion, nodeId, taskIds } = group;
    const tasks: Task[] = [];
    for (const id of taskIds) {
      if (tasks.length === tasksMax) break;
      const task = view.task.get(id);
      if (task !== undefined) tasks.push(task);
    }
    const [first] = tasks;
    const spec = first && view.revisionOf(first)?.spec;
    if (spec === undefined) return noPlan;
    const plan = planGroup({ serviceId, specVersion, nodeId, spec, tasks }, this.book, nowMs);
    if (plan.refuse.length > 0 && spec.task.placement.affinities.length > 0) this.#isCompanyWanted = true;
    if (tasks.length === taskIds.size) return plan;
    if (plan.refuse.length === 0) {
      this.#waiting.lookAt(group);
      return plan;
    }
    // What holds for one of them holds for those that were not asked about.
    const placed = new Set(plan.assign.map(({ task }) => task.id));
    const refuse = [...taskIds].flatMap((id) => (placed.has(id) ? [] : (view.task.get(id) ?? [])));
    return { ...plan, refuse };
  }

  /** What was booked is now as it came to be. */
  #settle({ id }: Task): void {
    const task = this.#options.store.view.task.get(id);
    this.book.settle(id);
    if (task !== undefined && isWaiting(task)) this.#waiting.lookAtTask(id);
  }

  #specOf(task: Task | undefined): ServiceSpec | undefined {
    return task && this.#options.store.view.revisionOf(task)?.spec;
  }
}

/** An agent has told something of a task that goes on as before: it holds what it held. */
function isSameToScheduler(task: Task | undefined, previous: Task | undefined): boolean {
  return (
    task !== undefined &&
    task.status.state === previous?.status.state &&
    task.desiredState === previous.desiredState &&
    task.specVersion === previous.specVersion &&
    task.nodeId === previous.nodeId
  );
}

/** Something of a node is free that was not. */
function isEnd(task: Task | undefined, previous: Task | undefined): boolean {
  if (previous === undefined || isTerminal(previous.status.state)) return false;
  return previous.nodeId !== '' && (task === undefined || isTerminal(task.status.state));
}

function isPlaced(task: Task | undefined, previous: Task | undefined): boolean {
  return task?.status.state === 'assigned' && previous?.status.state !== 'assigned';
}

/** Another spec, which may reserve less. */
function hasTakenOn(task: Task | undefined, previous: Task | undefined): boolean {
  return task !== undefined && previous !== undefined && task.specVersion !== previous.specVersion;
}

/** When something was decided, and the log index of the state on which. */
interface Moment {
  readonly nowMs: number;
  readonly index: number;
}

function stepsOf({ assign, refuse, reason }: PlacementPlan, moment: Moment): ((tx: Transaction) => void)[] {
  return [
    ...assign.map(
      ({ task, booking }) =>
        (tx: Transaction) =>
          place(tx, task, booking, moment),
    ),
    ...refuse
      .filter(({ status }) =>
        refuse.length <= RECOUNTED_MAX
          ? status.error !== reason
          : withoutCounts(status.error) !== withoutCounts(reason),
      )
      .map((task) => (tx: Transaction) => tellRefused(tx, task, reason)),
  ];
}

function withoutCounts(reason: string): string {
  return reason.replaceAll(/\d+ nodes?/g, '');
}

function place(tx: Transaction, planned: Task, booking: Booking, { nowMs, index }: Moment): void {
  const task = tx.view.task.get(planned.id);
  const node = tx.view.node.get(booking.info.node.id);
  // Decided on an older state: what is no longer so is planned anew. Who looks after changed nodes has done so by then.
  if (task === undefined || !isWaiting(task) || node === undefined || node.meta.version > index) return;
  if (task.specVersion !== planned.specVersion || isOverdrawn(booking)) return;
  tx.update('task', assigned(task, booking, nowMs));
}

/** Another task of the node has taken on more meanwhile: what is booked is more than there is. */
function isOverdrawn({ info, version: { demand } }: Booking): boolean {
  return (
    (demand.cpuNanos > 0 && info.cpuNanosFree < 0) || (demand.memoryBytes > 0 && info.memoryBytesFree < 0)
  );
}

function assigned(task: Task, { info, generic }: Booking, nowMs: number): Task {
  const status = {
    ...task.status,
    state: 'assigned' as const,
    timestampMs: nowMs,
    message: 'scheduler assigned task to node',
    error: '',
  };
  return { ...task, nodeId: info.node.id, genericResources: generic, status };
}

function tellRefused(tx: Transaction, planned: Task, reason: string): void {
  const task = tx.view.task.get(planned.id);
  if (task === undefined || !isWaiting(task) || task.status.error === reason) return;
  tx.update('task', { ...task, status: { ...task.status, error: reason } });
}
