// What a cluster looks like in which nothing fails any more: every service is what its spec asks for, or says why it cannot
// be; nothing waits without a reason; nothing is left of what is not wanted.

import { isDeepStrictEqual } from 'node:util';
import { wantedFiles } from '../../agent/worker/task-secrets.ts';
import { matchesConstraint, normalArchitecture, parseConstraint } from '../../core/constraint.ts';
import { DEFAULT_SPEC_HISTORY_LIMIT } from '../../core/defaults.ts';
import { fitsPlacement, takesTasks } from '../../core/eligible-node.ts';
import type { Node, Placement, Service, Task } from '../../core/generated/objects.ts';
import { isIngressPort } from '../../core/ingress-port.ts';
import { wantedReplicas } from '../../core/replicas.ts';
import { isGlobal, isJob } from '../../core/service-mode.ts';
import { isPlaced, isTerminal, isWanted } from '../../core/task-state.ts';
import type { TablesView } from '../../manager/store/tables.ts';
import type { SimAgent } from './orchestration-agent.ts';
import { lifeOf } from './sim-tasks.ts';

/** So many ended tasks of a slot stay in any case: failures in a row are counted by them. */
const ENDED_KEPT_MIN = 2;
/** Of a secret or config, also when nobody asks for them. */
const VERSIONS_KEPT = 5;

interface Picture {
  readonly view: TablesView;
  readonly nowMs: number;
}

/** The first thing that is not as it should be in the end. */
export function unrest(view: TablesView, nowMs: number, agents: readonly SimAgent[]): string | undefined {
  const picture = { view, nowMs };
  for (const node of view.node.values())
    if (node.status.state !== 'ready') return `node ${node.description.hostname} is ${node.status.state}`;
  for (const node of view.node.values()) {
    const problem = overbooked(node, view);
    if (problem !== undefined) return `node ${node.description.hostname} ${problem}`;
  }
  for (const task of view.task.values()) {
    const problem = restlessTask(task, picture);
    if (problem !== undefined) return `task ${task.id} ${problem}`;
  }
  for (const service of view.service.values()) {
    const problem = restlessService(service, picture) ?? overgrown(service, picture);
    if (problem !== undefined) return `service ${service.spec.name} ${problem}`;
  }
  return leftovers(view) ?? strangers(view, agents);
}

/** What has changed in place, and nodes that have become smaller, leave nobody without what was promised. */
function overbooked(node: Node, view: TablesView): string | undefined {
  if (node.spec.availability !== 'active') return undefined;
  const tasks = view.tasksOnNode(node.id).filter((task) => isWanted(task) && !isOver(task));
  const { resources, genericResources } = node.description;
  for (const resource of ['cpuNanos', 'memoryBytes'] as const) {
    const reserved = tasks.reduce(
      (sum, task) => sum + (view.revisionOf(task)?.spec.task.resources.reservations[resource] ?? 0),
      0,
    );
    if (reserved > resources[resource]) return `has ${resource} ${resources[resource]} for ${reserved}`;
  }
  const names = new Set<string>();
  for (const { kind, name } of tasks.flatMap((task) => namesOf(task))) {
    if (names.has(`${kind} ${name}`)) return `has given ${kind} ${name} twice`;
    names.add(`${kind} ${name}`);
    if (!genericResources.some((each) => each.kind === kind && each.names.includes(name)))
      return `has given ${kind} ${name}, which it does not have`;
  }
  const short = genericResources.find(
    ({ kind, count }) => tasks.reduce((sum, task) => sum + countOf(task.genericResources, kind), 0) > count,
  );
  return short && `has given more ${short.kind} than it has`;
}

function namesOf({ genericResources }: Task): { readonly kind: string; readonly name: string }[] {
  return genericResources.flatMap(({ kind, names }) => names.map((name) => ({ kind, name })));
}

function countOf(resources: Task['genericResources'], kind: string): number {
  return resources.find((each) => each.kind === kind)?.count ?? 0;
}

function restlessTask(task: Task, { view, nowMs }: Picture): string | undefined {
  const service = view.service.get(task.serviceId);
  if (service === undefined) return 'is left of a service that is gone';
  const { state, error } = task.status;
  if (!isWanted(task)) return isOver(task) ? undefined : `is ${state} and is not wanted`;
  const node = view.node.get(task.nodeId);
  if (node?.spec.availability === 'drain' && !isTerminal(state)) return 'is on a drained node';
  if (isTerminal(state)) return undefined;
  if (!isPlaced(state)) {
    if (error === '') return `is ${state} and does not say why`;
    if (isPassedBy(task, service, view))
      return 'waits for a place that its service does not ask for any more';
    if (state === 'new')
      return hasFreeAddress(error, view) ? `waits (${error}) although there is one` : undefined;
    const fit = freeNode(task, view);
    return fit && `waits (${error}) although ${fit.description.hostname} has room`;
  }
  if (task.desiredState === 'ready')
    return task.notBeforeMs > nowMs || isAgain(service) ? undefined : 'is prepared and is not started';
  if (state === 'running') return isAgain(service) ? undefined : outdatedFile(task, view);
  if (isAgain(service)) return undefined;
  return `is ${state} on its way to ${task.desiredState}`;
}

/** Where nothing else is to be changed, who waits for a place waits for what is wanted now. */
function isPassedBy(task: Task, { spec }: Service, view: TablesView): boolean {
  const own = view.revisionOf(task)?.spec.task;
  if (own === undefined || isJob(spec.mode)) return false;
  const wanted = { ...own, placement: spec.task.placement };
  return (
    JSON.stringify(own.placement) !== JSON.stringify(wanted.placement) && isDeepStrictEqual(wanted, spec.task)
  );
}

/** It has ended, or was given up before a node had it. */
function isOver({ status: { state } }: Task): boolean {
  return isTerminal(state) || !isPlaced(state);
}

/** Its tasks fail whatever is done: they come and go. */
function isAgain({ spec }: Service): boolean {
  return lifeOf(spec) === 'bad';
}

/** Of the network that the error names. Network, broadcast address and gateway are nobody's. */
function hasFreeAddress(error: string, view: TablesView): boolean {
  const [, name = ''] = /^network (\S+) has no free address/.exec(error) ?? [];
  const network = view.byName('network', name);
  if (network === undefined) return false;
  const size = network.subnets.reduce(
    (sum, { subnet }) => sum + 2 ** (32 - Number(subnet.split('/')[1])) - 3,
    0,
  );
  const tasks = [...view.task.values()].filter((task) => !isOver(task) || isWaiting(task));
  const ofTasks = tasks.flatMap(({ attachments }) =>
    attachments.filter(({ networkId }) => networkId === network.id),
  );
  const ofServices = [...view.service.values()].flatMap(({ virtualAddresses }) =>
    virtualAddresses.filter(({ networkId }) => networkId === network.id),
  );
  return ofTasks.length + ofServices.length < size;
}

function isWaiting(task: Task): boolean {
  return isWanted(task) && !isPlaced(task.status.state);
}

/** A node that could have the task: no more than what the words of the filters say. */
function freeNode(task: Task, view: TablesView): Node | undefined {
  const spec = view.revisionOf(task)?.spec;
  if (spec === undefined) return undefined;
  const { placement, resources } = spec.task;
  const ports = spec.endpoint.ports.filter((port) => !isIngressPort(port)).map((port) => port.publishedPort);
  const candidates = task.nodeId === '' ? [...view.node.values()] : [view.node.get(task.nodeId)];
  return candidates.find((node) => {
    if (node === undefined || !takesTasks(node)) return false;
    if (!placement.constraints.every((text) => matchesConstraint(parseConstraint(text), node))) return false;
    const here = view
      .tasksOnNode(node.id)
      .filter(({ status }) => !isTerminal(status.state) && isPlaced(status.state));
    const specs = here.flatMap((other) => view.revisionOf(other)?.spec ?? []);
    const hasRoom = (resource: 'cpuNanos' | 'memoryBytes') => {
      const used = specs.reduce((sum, other) => sum + other.task.resources.reservations[resource], 0);
      const wished = resources.reservations[resource];
      return wished === 0 || used + wished <= node.description.resources[resource];
    };
    const taken = specs.flatMap(({ endpoint }) =>
      endpoint.ports.filter((port) => !isIngressPort(port)).map((port) => port.publishedPort),
    );
    const ofService = here.filter((other) => other.serviceId === task.serviceId && isWanted(other)).length;
    const given = (kind: string) =>
      here.reduce((sum, { genericResources }) => sum + countOf(genericResources, kind), 0);
    const wanted = here.filter(isWanted).flatMap((other) => view.service.get(other.serviceId)?.spec ?? []);
    const name = view.service.get(task.serviceId)?.spec.name;
    const affinities = placement.affinities.filter((text) => text.startsWith('service'));
    return (
      resources.generic.every(
        ({ kind, count }) => given(kind) + count <= countOf(node.description.genericResources, kind),
      ) &&
      affinities.every(
        (text) =>
          wanted.some((other) => text.slice('service=='.length) === other.name) === text.includes('=='),
      ) &&
      !wanted.some((other) => other.task.placement.affinities.includes(`service!=${name}`)) &&
      hasRoom('cpuNanos') &&
      hasRoom('memoryBytes') &&
      runsOn(placement, node) &&
      !ports.some((port) => port > 0 && taken.includes(port)) &&
      (placement.maxReplicasPerNode === 0 || ofService < placement.maxReplicasPerNode)
    );
  });
}

function runsOn({ platforms }: Placement, { description }: Node): boolean {
  const own = normalArchitecture(description.platform.architecture);
  return platforms.length === 0 || platforms.some(({ architecture }) => architecture === own);
}

/** A file of a task that is not of the version that its spec asks for, or of the newest. */
function outdatedFile(task: Task, view: TablesView): string | undefined {
  const container = view.revisionOf(task)?.spec.task.container;
  if (container === undefined) return undefined;
  for (const [at, { kind, reference }] of wantedFiles(container).entries()) {
    const source = view[kind].get(reference.sourceId);
    // An old spec may refer to what is gone.
    if (source === undefined) continue;
    const wanted = reference.version || source.latestVersion;
    const has = task.status.files[at]?.version;
    if (has !== wanted) return `has version ${has} of ${kind} ${source.spec.name}, not ${wanted}`;
  }
  return undefined;
}

/** No version of a secret or config is kept that nobody asks for, but for the last few; nor credentials of no spec. */
function leftovers(view: TablesView): string | undefined {
  const references = [...view.revision.values()].flatMap(({ spec }) => wantedFiles(spec.task.container));
  for (const { id, sourceId, version } of view.payload.values()) {
    const source = view.secret.get(sourceId) ?? view.config.get(sourceId);
    if (source === undefined && view.revision.get(id)?.registryAuth !== true)
      return `payload ${id} is of nobody`;
    if (source === undefined || version > source.latestVersion - VERSIONS_KEPT) continue;
    const isPinned = references.some(
      ({ reference }) => reference.sourceId === sourceId && reference.version === version,
    );
    if (!isPinned)
      return `version ${version} of ${source.spec.name} is kept, ${source.latestVersion} is the newest`;
  }
  return undefined;
}

function restlessService(service: Service, picture: Picture): string | undefined {
  const { view } = picture;
  const { spec, updateStatus } = service;
  const tasks = view.tasksOfService(service.id);
  const isUnderWay = updateStatus?.state === 'updating' || updateStatus?.state === 'rollback-started';
  if (isUnderWay && updateStatus.noProgressSinceMs === undefined && !isAgain(service))
    return `is ${updateStatus.state} and says nothing: ${updateStatus.message}`;
  const places = isGlobal(spec.mode)
    ? [...view.node.values()]
        .filter((node) => !spec.stopped && takesTasks(node) && fitsPlacement(node, spec.task.placement))
        .map(({ id }) => id)
    : undefined;
  const own = Map.groupBy(tasks, ({ slot, nodeId }) => (slot > 0 ? slot : nodeId));
  if (places !== undefined) {
    const missing = places.find((place) => !isAnswered(own.get(place) ?? [], service, picture));
    return missing && `has nothing to say of ${view.node.get(missing)?.description.hostname}`;
  }
  const answered = [...own.values()].filter((slot) => isAnswered(slot, service, picture)).length;
  const wanted = wantedReplicas(spec);
  if (answered !== wanted && !hasEnoughUnderWay(service, tasks))
    return `has ${answered} slots in order, ${wanted} are wanted`;
  // One that is to go stays for as long as its successor finds no place.
  const isStaying = (task: Task) =>
    isWanted(task) && !isTerminal(task.status.state) && task.eviction === undefined;
  const live = tasks.filter(isStaying).length;
  if (!isJob(spec.mode) && live > wanted && !isUnderWay) return `has ${live} tasks, ${wanted} are wanted`;
  return isStale(service, tasks, picture);
}

/** A job with a bound on what runs at once does not begin the rest. */
function hasEnoughUnderWay({ spec }: Service, tasks: readonly Task[]): boolean {
  const { maxConcurrent = 0 } = spec.mode.replicatedJob ?? {};
  const live = tasks.filter((task) => isWanted(task) && !isTerminal(task.status.state));
  return maxConcurrent > 0 && live.length === maxConcurrent;
}

/** The slot runs, waits for a reason, or has come to its end. */
function isAnswered(tasks: readonly Task[], service: Service, { view }: Picture): boolean {
  const { spec, specVersion } = service;
  const isOfJob = isJob(spec.mode);
  const own = isOfJob ? tasks.filter((task) => task.specVersion === specVersion) : tasks;
  if (isOfJob && own.some((task) => task.status.state === 'complete')) return true;
  if (own.some((task) => isWanted(task) && !isTerminal(task.status.state)))
    return !isOfJob || lifeOf(spec) === 'bad' || own.some((task) => task.status.error !== '');
  const [newest] = [...own].sort(
    (a, b) => b.meta.createdAtMs - a.meta.createdAtMs || b.meta.version - a.meta.version,
  );
  if (newest === undefined || !isTerminal(newest.status.state)) return false;
  if (isAgain(service)) return true;
  const { condition, maxAttempts } = (view.revisionOf(newest)?.spec ?? spec).task.restart;
  const hasEndedWell = newest.status.state === 'complete';
  // One that had to leave its node is replaced as long as its slot is wanted, unless it came to its own end on the way.
  const hasOwnEnd = newest.status.state === 'complete' || newest.status.state === 'failed';
  if (newest.desiredState === 'remove' || (newest.eviction !== undefined && !hasOwnEnd)) return false;
  // It was told to, by an update that has not come further or when its slot was not wanted any more.
  if (newest.status.state === 'shutdown') return false;
  return condition === 'none' || (condition === 'on-failure' && hasEndedWell) || maxAttempts > 0;
}

/** After an update that is complete nothing runs that was made from another container. */
function isStale(
  { spec, updateStatus }: Service,
  tasks: readonly Task[],
  { view }: Picture,
): string | undefined {
  if (updateStatus?.state !== 'completed' && updateStatus?.state !== 'rollback-completed') return undefined;
  const wanted = JSON.stringify([spec.task.container, spec.task.forceUpdate]);
  const old = tasks.find((task) => {
    const made = view.revisionOf(task)?.spec.task;
    return (
      isWanted(task) &&
      !isTerminal(task.status.state) &&
      JSON.stringify([made?.container, made?.forceUpdate]) !== wanted
    );
  });
  return old && `is ${updateStatus.state}, and ${old.id} is of spec ${old.specVersion}`;
}

/** History is bounded: ended tasks of each slot, and specs. */
function overgrown(service: Service, { view }: Picture): string | undefined {
  const [cluster] = view.cluster.values();
  const tasks = view.tasksOfService(service.id);
  const most = Math.max(
    cluster?.spec.taskHistoryLimit ?? 0,
    service.spec.task.restart.maxAttempts + 1,
    ENDED_KEPT_MIN,
  );
  for (const slot of Map.groupBy(tasks, ({ slot: number, nodeId }) => number || nodeId).values()) {
    const ended = slot.filter((task) => !isWanted(task) && isOver(task)).length;
    if (ended > most) return `keeps ${ended} ended tasks of a slot, ${most} are allowed`;
  }
  const revisions = view.revisionsOfService(service.id);
  const used = new Set(tasks.map(({ specVersion }) => specVersion));
  const kept = revisions.filter(({ specVersion }) => !used.has(specVersion)).length;
  if (kept > (cluster?.spec.specHistoryLimit || DEFAULT_SPEC_HISTORY_LIMIT) + 2)
    return `keeps ${kept} specs that no task has`;
  return undefined;
}

/** What runs on machines is what managers have as running there. */
function strangers(view: TablesView, agents: readonly SimAgent[]): string | undefined {
  for (const { options, state, worker } of agents) {
    const known = payloadsOf(options.nodeId, view);
    const stranger = [...(worker?.files.held ?? [])].find((id) => !known.has(id));
    if (stranger !== undefined)
      return `machine ${options.name} holds payload ${stranger}, which no task of it needs`;
    for (const { taskId, spec } of state.containers.values()) {
      const task = view.task.get(taskId);
      if (task === undefined || task.nodeId !== options.nodeId)
        return `machine ${options.name} runs ${taskId} of ${spec.name}, which nobody knows`;
    }
    for (const task of view.tasksOnNode(options.nodeId)) {
      const service = view.service.get(task.serviceId);
      if (task.status.state !== 'running' || service === undefined || isAgain(service)) continue;
      if (!state.containers.has(task.id)) return `machine ${options.name} does not run ${task.id}`;
    }
  }
  return undefined;
}

/** What the tasks of a node need that have not ended. */
function payloadsOf(nodeId: string, view: TablesView): Set<string> {
  const ids = new Set<string>();
  for (const task of view.tasksOnNode(nodeId)) {
    const revision = isOver(task) ? undefined : view.revisionOf(task);
    if (revision === undefined) continue;
    ids.add(revision.id);
    for (const { kind, reference } of wantedFiles(revision.spec.task.container)) {
      const version = reference.version || view[kind].get(reference.sourceId)?.latestVersion;
      ids.add(`${reference.sourceId}.${version}`);
    }
  }
  return ids;
}
