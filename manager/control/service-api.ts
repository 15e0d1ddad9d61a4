// Services, as operators create, change, remove and look at them.

import { invalidField, SwarmError } from '../../core/errors.ts';
import {
  emptyService,
  type Service,
  type ServiceSpec,
  type SpecAuthor,
  type Task,
} from '../../core/generated/objects.ts';
import { newId } from '../../core/ids.ts';
import { isJob, modeName } from '../../core/service-mode.ts';
import { validateRegistryAuth } from '../../core/validate-registry-auth.ts';
import { validateServiceSpec } from '../../core/validate-spec.ts';
import type {
  CreateServiceRequest,
  CreateServiceResponse,
  ListServicesResponse,
  ListTasksRequest,
  ListTasksResponse,
  UpdateServiceRequest,
  UpdateServiceResponse,
  WatchServiceResponse,
} from '../../proto/generated/control.ts';
import { ServiceSpecCodec } from '../../proto/generated/objects.ts';
import { createRevision, registryAuthOf } from '../store/service-revision.ts';
import type { Commit, Store } from '../store/store.ts';
import type { TablesView } from '../store/tables.ts';
import { TaskEvent } from '../store/task-events.ts';
import type { ControlOptions } from './control-api.ts';
import { findService } from './find.ts';
import { hasOthersToMind, placedSpec } from './plan-endpoint.ts';
import { revisionToReturnTo } from './service-history.ts';
import { requireSpecSize } from './spec-size.ts';
import { countGoal, countTasks, runningAway } from './task-counts.ts';
import type { TakeTurn } from './turns.ts';

const TASKS_PER_PAGE = 500;

type ServiceOptions = Pick<ControlOptions, 'store' | 'clock' | 'randomBytes'> & {
  readonly takeTurn: TakeTurn;
};

export async function createService(
  { store, randomBytes, takeTurn }: ServiceOptions,
  { spec, registryAuth }: CreateServiceRequest,
  author?: SpecAuthor,
): Promise<CreateServiceResponse> {
  requireValid(spec);
  validateRegistryAuth(registryAuth, spec);
  const id = newId(randomBytes);
  await inTurn(takeTurn, hasOthersToMind(spec), () =>
    store.update((tx) => {
      if (tx.view.byName('service', spec.name) !== undefined)
        throw new SwarmError(
          'already-exists',
          `name conflicts with an existing object: service ${spec.name} already exists`,
        );
      const service: Service = { ...emptyService, id, spec: placedSpec(tx.view, id, spec), specVersion: 1 };
      tx.create('service', service);
      createRevision(tx, service, registryAuth, author);
    }),
  );
  return { service: stored(store.view, id) };
}

export async function updateService(
  { store, clock, takeTurn }: ServiceOptions,
  request: UpdateServiceRequest,
  author?: SpecAuthor,
): Promise<UpdateServiceResponse> {
  const { spec, serviceId, registryAuth } = request;
  if (spec !== undefined) {
    requireValid(spec);
    validateRegistryAuth(registryAuth, spec);
  }
  // What a rollback brings back is known only when it happens.
  await inTurn(takeTurn, spec === undefined || hasOthersToMind(spec), () =>
    store.update((tx) => {
      const service = stored(tx.view, serviceId);
      if (service.specVersion !== request.version)
        throw new SwarmError(
          'out-of-sequence',
          `service ${service.spec.name}: update out of sequence, its spec is number ${service.specVersion}, not ${request.version}`,
          { hint: 'It was changed meanwhile: look at it again and repeat the change.' },
        );
      const target = request.rollback ? rollbackTarget(tx.view, service, request.rollbackTo) : undefined;
      const next =
        target === undefined ? respecified(service, spec) : rolledBack(service, target.spec, clock.nowMs());
      const placed = { ...next, spec: placedSpec(tx.view, serviceId, next.spec) };
      tx.update('service', placed);
      const before = target?.version ?? service.specVersion;
      const auth = registryAuth ?? registryAuthOf(tx.view, serviceId, before);
      createRevision(tx, placed, auth, author);
    }),
  );
  return { service: stored(store.view, serviceId) };
}

/** Most services have nothing that others could want as well: they need not wait. */
function inTurn<T>(takeTurn: TakeTurn, isNeeded: boolean, act: () => Promise<T>): Promise<T> {
  return isNeeded ? takeTurn(act) : act();
}

export async function removeService(store: Store, reference: string): Promise<string> {
  return store.update((tx) => {
    const { id } = findService(tx.view, reference);
    tx.delete('service', id);
    return id;
  });
}

export function listServices(view: TablesView): ListServicesResponse {
  const away = runningAway(view);
  const services = [...view.service.values()].map((service) => {
    const { running, desired, completed, completions } = countTasks(view, service, away);
    return {
      service,
      runningTasks: running,
      desiredTasks: desired,
      completedTasks: completed,
      wantedCompletions: completions,
    };
  });
  return { services };
}

/** In pages, as they are now; each revision once, with the first task that refers to it. */
export function* listTasks(view: TablesView, request: ListTasksRequest): Iterable<ListTasksResponse> {
  const sent = new Set<string>();
  const pageOf = (tasks: Task[]) => {
    const revisions = tasks
      .map((task) => view.revisionOf(task))
      .filter((revision) => revision !== undefined)
      .filter(({ id }) => !sent.has(id) && sent.add(id));
    return { tasks, revisions };
  };
  let page: Task[] = [];
  let isFirst = true;
  for (const task of selectTasks(view, request)) {
    if (request.nodeIds.length > 0 && !request.nodeIds.includes(task.nodeId)) continue;
    page.push(task);
    if (page.length < TASKS_PER_PAGE) continue;
    yield pageOf(page);
    page = [];
    isFirst = false;
  }
  // There is at least one page, also of nothing.
  if (page.length > 0 || isFirst) yield pageOf(page);
}

function selectTasks(view: TablesView, { serviceIds, nodeIds }: ListTasksRequest): Iterable<Task> {
  if (serviceIds.length > 0) return serviceIds.flatMap((id) => view.tasksOfService(id));
  if (nodeIds.length > 0) return nodeIds.flatMap((id) => view.tasksOnNode(id));
  return view.taskSnapshot();
}

/** The service and all its tasks, then what changes, until the service and its tasks are gone. */
export async function* watchService(
  store: Store,
  serviceId: string,
  signal: AbortSignal,
): AsyncIterable<WatchServiceResponse> {
  const ended = new AbortController();
  try {
    const changes = store.watch(AbortSignal.any([signal, ended.signal]), {
      select: (commit) => changesOf(serviceId, commit),
    });
    const initial = store.view.service.get(serviceId);
    yield {
      ...(initial && { service: initial }),
      tasks: store.view.tasksOfService(serviceId),
      removedTaskIds: [],
      desiredTasks: initial === undefined ? 0 : countGoal(store.view, initial),
    };
    if (isGone(store.view, serviceId)) return;
    for await (const { tasks, removedTaskIds } of changes) {
      const service = store.view.service.get(serviceId);
      const desiredTasks = service === undefined ? 0 : countGoal(store.view, service);
      yield { ...(service && { service }), tasks, removedTaskIds, desiredTasks };
      if (isGone(store.view, serviceId)) return;
    }
  } finally {
    ended.abort();
  }
}

/** Undefined: the commit is not about the service. */
function changesOf(
  serviceId: string,
  { events }: Commit,
): Pick<WatchServiceResponse, 'tasks' | 'removedTaskIds'> | undefined {
  const tasks: Task[] = [];
  const removedTaskIds: string[] = [];
  let isChanged = false;
  for (const event of events) {
    if (event instanceof TaskEvent) {
      if (event.serviceId !== serviceId) continue;
      if (event.action === 'removed') removedTaskIds.push(event.object.id);
      else tasks.push(event.object);
    } else if (event.kind === 'service' && event.object.id === serviceId) isChanged = true;
  }
  return isChanged || tasks.length + removedTaskIds.length > 0 ? { tasks, removedTaskIds } : undefined;
}

function isGone(view: TablesView, serviceId: string): boolean {
  return view.service.get(serviceId) === undefined && view.tasksOfService(serviceId).length === 0;
}

/** Throws `invalid-argument` on the first field that is wrong. */
export function requireValid(spec: ServiceSpec): void {
  validateServiceSpec(spec);
  requireSpecSize(ServiceSpecCodec, spec);
}

/** Throws `invalid-argument` where a service cannot become what is asked for. */
export function respecified(service: Service, spec: ServiceSpec | undefined): Service {
  if (spec === undefined) throw invalidField('spec', 'must be there unless rollback is asked for');
  if (spec.name !== service.spec.name)
    throw invalidField('name', `service ${service.spec.name} cannot be renamed to ${spec.name}`);
  if (modeName(spec.mode) !== modeName(service.spec.mode))
    throw invalidField(
      'mode',
      `service ${spec.name} is ${modeName(service.spec.mode)} and cannot become ${modeName(spec.mode)}`,
    );
  const { updateStatus: _ended, ...rest } = service;
  return {
    ...rest,
    spec,
    specVersion: service.specVersion + 1,
    previousSpec: service.spec,
    previousSpecVersion: service.specVersion,
  };
}

interface RollbackTarget {
  readonly spec: ServiceSpec;
  readonly version: number;
}

function rollbackTarget(view: TablesView, service: Service, to: number | undefined): RollbackTarget {
  if (to !== undefined) {
    const { spec, specVersion } = revisionToReturnTo(view, service, to);
    return { spec, version: specVersion };
  }
  if (service.previousSpec === undefined)
    throw new SwarmError('failed-precondition', `service ${service.spec.name} does not have a previous spec`);
  return { spec: service.previousSpec, version: service.previousSpecVersion };
}

function rolledBack(service: Service, spec: ServiceSpec, nowMs: number): Service {
  const { previousSpec: _given, updateStatus: _ended, ...rest } = service;
  const next = { ...rest, spec, specVersion: service.specVersion + 1, previousSpecVersion: 0 };
  // A job begins another iteration, all of it at once.
  if (isJob(spec.mode)) return next;
  return {
    ...next,
    updateStatus: {
      state: 'rollback-started',
      startedAtMs: nowMs,
      completedAtMs: 0,
      message: 'manually requested rollback',
      slotsTotal: 0,
    },
  };
}

function stored(view: TablesView, id: string): Service {
  const service = view.service.get(id);
  if (service === undefined) throw new SwarmError('not-found', `service ${id} not found`);
  return service;
}
