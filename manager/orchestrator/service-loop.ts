// Keeps every service as its spec says. Waits and writes; what to write is planService's decision.

import type { Clock } from '../../core/clock.ts';
import { isSamePlace } from '../../core/eligible-node.ts';
import { emptyMeta, type Node, type Service, type Task } from '../../core/generated/objects.ts';
import { newId, type RandomBytes } from '../../core/ids.ts';
import { needsAllocation } from '../../core/needs-allocation.ts';
import { isGlobal } from '../../core/service-mode.ts';
import { NONE } from '../../proto/wire.ts';
import { earliest, runLoop } from '../loop.ts';
import type { Placer } from '../placement/placer.ts';
import { createRevision, registryAuthOf } from '../store/service-revision.ts';
import type { FreshCommit, Store } from '../store/store.ts';
import type { Transaction } from '../store/transaction.ts';
import { limitPlan, planRemoval, planService, type ServicePlan } from './plan-service.ts';
import { serviceContext } from './slots.ts';
import { isSameToPlanners } from './task-news.ts';

export interface ServiceLoopOptions {
  readonly store: Store;
  readonly clock: Clock;
  readonly randomBytes: RandomBytes;
  /** Without it, new tasks wait for the scheduler. */
  readonly placer?: Placer;
  readonly onFailure?: (error: unknown) => void;
}

// A task with its status takes a few hundred bytes, so these stay far below the limit of one log entry.
const CHANGES_PER_STEP_MAX = 1_000;

// The next services are decided while those before them are on their way: with one entry at a time a leader rests for a
// quarter of a large deployment.
const ENTRIES_IN_FLIGHT = 4;

/** Runs until the signal aborts. */
export function runServiceLoop(options: ServiceLoopOptions, signal: AbortSignal): Promise<void> {
  const { store, clock, placer } = options;
  const ledSinceMs = clock.nowMs();
  const dirty = new Set<string>();
  const wakeTimes = new Map<string, number>();
  /** By service: new tasks that have a place since they were last decided. */
  const placed = new Map<string, readonly string[]>();
  for (const service of store.view.service.values()) dirty.add(service.id);
  for (const task of store.view.task.values()) dirty.add(task.serviceId);

  const pass = async () => {
    const nowMs = clock.nowMs();
    for (const [id, atMs] of wakeTimes) if (atMs <= nowMs) dirty.add(id);
    const ids = [...dirty];
    dirty.clear();
    for (const id of ids) wakeTimes.delete(id);
    try {
      await writeAll(
        store,
        ids.map((id) => (tx: Transaction) => step(tx, id, { wakeTimes, placed, options, ledSinceMs })),
      );
    } catch (error) {
      for (const id of ids) dirty.add(id);
      throw error;
    } finally {
      for (const taskIds of placed.values()) placer?.settle(taskIds);
      placed.clear();
    }
    return [...wakeTimes.values()].reduce<number | undefined>(earliest, undefined);
  };
  const isRelevant = (commit: FreshCommit) => noteDirty(commit, dirty, store);
  return runLoop({ name: 'services', isRelevant, pass, ...options }, signal);
}

/** Each step is of a service of its own. Returns or throws when none is being written any more. */
async function writeAll(store: Store, steps: readonly ((tx: Transaction) => void)[]): Promise<void> {
  const lanes = Array.from({ length: ENTRIES_IN_FLIGHT }, (_, lane) =>
    steps.filter((_, at) => at % ENTRIES_IN_FLIGHT === lane),
  );
  const busy = lanes.filter(({ length }) => length > 0);
  const outcomes = await Promise.allSettled(busy.map((lane) => store.batch(lane)));
  for (const outcome of outcomes) if (outcome.status === 'rejected') throw outcome.reason;
}

/** Adds the services that a commit concerns; true when there are any. */
function noteDirty(commit: FreshCommit, dirty: Set<string>, store: Store): boolean {
  const before = dirty.size;
  for (const { kind, object, previous } of commit.decisive) {
    if (kind === 'service') dirty.add(object.id);
    else if (kind === 'task') {
      if (!isSameToPlanners(object as Task, previous as Task | undefined))
        dirty.add((object as Task).serviceId);
    } else if (kind === 'node') {
      for (const task of store.view.tasksOnNode(object.id)) dirty.add(task.serviceId);
      // It may fit other services than before.
      if (previous === undefined || !isSamePlace(object as Node, previous as Node))
        for (const service of store.view.service.values())
          if (isGlobal(service.spec.mode)) dirty.add(service.id);
    }
  }
  return dirty.size > before;
}

interface Loop {
  readonly options: ServiceLoopOptions;
  readonly wakeTimes: Map<string, number>;
  readonly placed: Map<string, readonly string[]>;
  readonly ledSinceMs: number;
}

function step(tx: Transaction, serviceId: string, { options, wakeTimes, placed, ledSinceMs }: Loop): void {
  const { clock, placer } = options;
  // A write that lost against another is decided again.
  placer?.settle(placed.get(serviceId) ?? []);
  placed.delete(serviceId);
  const service = tx.view.service.get(serviceId);
  const whole =
    service === undefined
      ? planRemoval(tx.view.tasksOfService(serviceId))
      : planService(serviceContext(tx.view, service, clock.nowMs(), ledSinceMs));
  // Its own commit brings the service back for the rest.
  const plan = limitPlan(whole, CHANGES_PER_STEP_MAX);
  if (plan.wakeAtMs !== undefined) wakeTimes.set(serviceId, plan.wakeAtMs);
  for (const { task, desiredState } of plan.change) tx.update('task', { ...task, desiredState });
  if (service === undefined) return;
  for (const task of plan.adopt) tx.update('task', { ...task, specVersion: service.specVersion });
  const current = applyServicePlan(tx, service, plan);
  const made = newTasks(current, plan, options);
  // Who removes a service sees its tasks, and who deletes what nobody needs of it: none may come behind their backs.
  if (made.length + plan.adopt.length > 0) tx.expect('service', serviceId);
  const tasks = placer?.placeNew(current.spec, made) ?? made;
  // Those of a global service have a node as well, and the scheduler may have booked for them meanwhile.
  const ids = tasks.flatMap(({ id, status }) => (status.state === 'assigned' ? [id] : []));
  if (ids.length > 0) placed.set(serviceId, ids);
  for (const task of tasks) tx.create('task', task);
}

function newTasks(
  service: Service,
  { create }: ServicePlan,
  { clock, randomBytes }: ServiceLoopOptions,
): Task[] {
  const { id: serviceId, spec, specVersion } = service;
  const first = needsAllocation(spec)
    ? ({ state: 'new', message: 'created' } as const)
    : ({ state: 'pending', message: 'pending task scheduling' } as const);
  return create.map(({ slot, nodeId = '', desiredState, notBeforeMs }) => ({
    id: newId(randomBytes),
    meta: emptyMeta,
    serviceId,
    specVersion,
    slot,
    nodeId,
    status: {
      ...first,
      timestampMs: clock.nowMs(),
      error: '',
      ports: NONE,
      runningAtMs: 0,
      files: NONE,
    },
    desiredState,
    notBeforeMs,
    attachments: NONE,
    genericResources: NONE,
  }));
}

/** Stores the new update status; with a rollback the previous spec becomes the current one, and only once. */
function applyServicePlan(tx: Transaction, service: Service, plan: ServicePlan): Service {
  if (plan.updateStatus === undefined) return service;
  const { previousSpec, ...rest } = service;
  const mayRollBack = plan.rollback === true && previousSpec !== undefined;
  const next: Service = mayRollBack
    ? {
        ...rest,
        spec: previousSpec,
        specVersion: service.specVersion + 1,
        previousSpecVersion: 0,
        updateStatus: plan.updateStatus,
      }
    : { ...service, updateStatus: plan.updateStatus };
  tx.update('service', next);
  if (mayRollBack) createRevision(tx, next, registryAuthOf(tx.view, next.id, service.previousSpecVersion));
  return next;
}
