// The part of `why` about one task: who has it in hand, what stands in its way, and what would unblock it. Pure.

import type { Service, Task } from '../../core/generated/objects.ts';
import { taskName } from '../../core/task-name.ts';
import { FORMER_LIMITS, isTerminal, isWanted } from '../../core/task-state.ts';
import type { ExplainStep } from '../../proto/generated/control.ts';
import { placeDemands } from '../capacity/fit.ts';
import { ClusterBook } from '../placement/cluster-book.ts';
import type { TablesView } from '../store/tables.ts';
import { changeConstraint, explainConstraints, refusedByConstraints } from './explain-constraints.ts';
import { moreAddresses } from './explain-endpoint.ts';
import { fullNetworkOf } from './network-use.ts';

export const BRING_NODE = 'tsswarm node ls: bring a node back, or set it active';

/** Of the scheduler's sentences: those that figures explain. */
const refusedForRoom = /insufficient resources|affinities not satisfied/;

/** A step of which only what matters is said. */
export type Draft = Partial<ExplainStep> & Pick<ExplainStep, 'subject' | 'text'>;

export function explainTask(view: TablesView, task: Task, nowMs: number, depth: number): Draft[] {
  const { status } = task;
  const steps: Draft[] = [];
  const node = view.node.get(task.nodeId);
  if (node !== undefined)
    steps.push({
      ok: node.status.state === 'ready',
      subject: 'node',
      depth,
      text: `on ${node.description.hostname}, which is ${node.status.state}${node.status.message === '' ? '' : `: ${node.status.message}`}`,
      remedy: node.status.state === 'ready' ? '' : 'start tsswarmd on that node, or remove the node',
    });
  steps.push({
    ok:
      (status.state === 'running' && !isTrouble(status)) ||
      (isTerminal(status.state) && !isWanted(task) && status.error === ''),
    subject: ownerOf(task),
    depth,
    text: `${status.state} since ${ago(status.timestampMs, nowMs)}: ${status.error || status.message || 'no details'}`,
    remedy: remedyFor(view, task),
  });
  steps.push(...explainConstraints(view, task, depth), ...explainRoom(view, task, nowMs, depth));
  steps.push(...explainFiles(view, task, depth), ...explainHistory(view, task, nowMs, depth));
  if (task.desiredState === 'ready' && task.notBeforeMs > nowMs)
    steps.push(explainDelay(view, task, nowMs, depth));
  if (task.eviction !== undefined)
    steps.push({ ok: false, subject: 'eviction', depth, text: `it is to go: ${task.eviction}` });
  return steps;
}

/** It does not do what it is there for, or not as its spec says. */
export function isTrouble({ state, error, message }: Task['status']): boolean {
  const isFine = state === 'running' || state === 'complete';
  return !isFine || error !== '' || message.startsWith(FORMER_LIMITS);
}

/** What nodes lack for it, in figures. */
function explainRoom(view: TablesView, task: Task, nowMs: number, depth: number): Draft[] {
  const { serviceId, specVersion, nodeId, status } = task;
  const spec = view.revisionOf(task)?.spec;
  if (status.state !== 'pending' || spec === undefined || !refusedForRoom.test(status.error)) return [];
  const demand = { serviceId, specVersion, spec, count: 1 };
  return placeDemands([demand], ClusterBook.of(view), { nowMs, nodeId })
    .filter(({ missing }) => missing > 0)
    .map(({ reason }) => ({ ok: false, subject: 'room', depth, text: reason }));
}

/** How long it waits, and why for longer than the policy's delay. */
function explainDelay(view: TablesView, task: Task, nowMs: number, depth: number): Draft {
  const policyMs = view.revisionOf(task)?.spec.task.restart.delayMs ?? 0;
  const delayMs = task.notBeforeMs - task.meta.createdAtMs;
  const backOff =
    delayMs > policyMs
      ? `: it backs off to ${seconds(delayMs)} because the tasks before it kept failing`
      : '';
  return {
    subject: 'restart policy',
    depth,
    text: `starts in ${seconds(task.notBeforeMs - nowMs)}${backOff}`,
  };
}

/** Which versions of secrets and configs it has, and which it should have. */
function explainFiles(view: TablesView, task: Task, depth: number): Draft[] {
  const { status } = task;
  const { secrets = [], configs = [] } = view.revisionOf(task)?.spec.task.container ?? {};
  if (status.files.length === 0 || isTerminal(status.state)) return [];
  const steps = [...secrets, ...configs].map((reference, position): Draft | undefined => {
    const kind = position < secrets.length ? 'secret' : 'config';
    const has = status.files[position]?.version;
    const newest = view[kind].get(reference.sourceId)?.latestVersion;
    if (!has || newest === undefined) return undefined;
    const wanted = reference.version || newest;
    const pin = reference.version > 0 ? ', as its service asks' : '';
    const text =
      has === wanted
        ? `${reference.sourceName}: version ${has}${pin || ', the newest'}`
        : `${reference.sourceName}: still version ${has}, version ${wanted} is on its way`;
    return { ok: has === wanted, subject: kind, depth, text };
  });
  return steps.filter((step) => step !== undefined);
}

/** The end of the task before it in the slot: why this one had to be made. */
function explainHistory(view: TablesView, task: Task, nowMs: number, depth: number): Draft[] {
  const ended = view
    .tasksOfService(task.serviceId)
    .filter(
      (other) =>
        taskName('', other) === taskName('', task) &&
        other.id !== task.id &&
        isTerminal(other.status.state) &&
        other.status.error !== '',
    )
    .sort((a, b) => b.status.timestampMs - a.status.timestampMs);
  const [last] = ended;
  if (last === undefined || !isWanted(task) || task.status.state === 'running') return [];
  const times = ended.length > 1 ? `, the last of ${ended.length} failures kept` : '';
  return [
    {
      ok: false,
      subject: 'history',
      depth,
      text: `the task before it ${last.status.state} ${ago(last.status.timestampMs, nowMs)}${times}: ${last.status.error}`,
      remedy: remedyFor(view, last),
    },
  ];
}

/** Which part of the system has the task in hand. */
function ownerOf({ status }: Task): string {
  switch (status.state) {
    case 'new':
      return 'allocator';
    case 'pending':
      return 'scheduler';
    case 'assigned':
    case 'accepted':
      return 'agent';
    case 'preparing':
    case 'rejected':
      return 'preparation';
    default:
      return 'container';
  }
}

/** What would unblock it, from what the refusing part said. */
function remedyFor(view: TablesView, task: Task): string {
  const error = task.status.error || task.status.message;
  const name = view.service.get(task.serviceId)?.spec.name ?? task.serviceId;
  const spec = view.revisionOf(task)?.spec;
  const image = spec?.task.container.image ?? '';
  const full = task.status.state === 'new' ? fullNetworkOf(view, task) : undefined;
  if (full !== undefined) return moreAddresses(full);
  if (error.startsWith(FORMER_LIMITS))
    return `raise the limit of ${name}, or let its tasks begin anew with it: tsswarm service update --force ${name}`;
  if (error.includes('insufficient resources'))
    return `lower ${reservationFlags(view, task)} of ${name}, or free or add a node`;
  if (refusedByConstraints(error) && spec !== undefined) return changeConstraint(view, spec);
  if (error.includes('unsupported platform'))
    return `add a node of its image's platform, or use an image for those that there are: tsswarm service update --image … ${name}`;
  if (error.includes('affinities not satisfied'))
    return `add a node, or change what it asks for: tsswarm service update --placement-affinity-rm … ${name}`;
  if (error.includes('max replicas per node'))
    return `raise --replicas-max-per-node of ${name}, or add a node`;
  if (error.includes('port') && error.includes('already in use'))
    return `publish another port of ${name}, or stop what holds it (ss -ltnp)`;
  if (error.includes('not available for new tasks')) return BRING_NODE;
  if (error.includes('bind source path does not exist'))
    return `make it on this node, keep ${name} to nodes that have it (--constraint-add), or mount a volume`;
  if (error.includes('failed to start container'))
    return `mend its command: tsswarm service update --args … or --entrypoint … ${name}`;
  if (error.includes('No such image'))
    return `check the name, or bring it to the node: tsswarm image pull ${image}`;
  if (error.includes('cannot pull'))
    return `see that this node reaches the registry, or bring the image here: tsswarm image pull|import`;
  if (error.includes('is not up to date in the container'))
    return `mend what it names and give a version again, or start the tasks anew: tsswarm service update --force ${name}`;
  if (error.includes('is not there any more'))
    return `ask for another version, or the newest: tsswarm service update --secret-add or --config-add … ${name}`;
  if (error.includes('health check') || error.includes('non-zero exit'))
    return `tsswarm service logs ${name}`;
  return '';
}

/** Those by which it asks for what is counted. */
function reservationFlags(view: TablesView, task: Task): string {
  const resources = view.revisionOf(task)?.spec.task.resources;
  const { cpuNanos = 0, memoryBytes = 0 } = resources?.reservations ?? {};
  const flags = [
    ...(cpuNanos > 0 ? ['--reserve-cpu'] : []),
    ...(memoryBytes > 0 ? ['--reserve-memory'] : []),
    ...(resources?.generic.length ? ['--generic-resource'] : []),
  ];
  return flags.join(' or ') || 'the reservations';
}

/** One step for each cause, and below it what is known of the first task that has it. */
export function explainTroubles(view: TablesView, troubled: readonly Task[], nowMs: number): Draft[] {
  return groupByCause(troubled).flatMap((group) => {
    const [first] = group as [Task, ...Task[]];
    const service = view.service.get(first.serviceId);
    const more = group.length > 1 ? ` (and ${group.length - 1} more for the same reason)` : '';
    const title = service === undefined ? first.id : titleOf(service, first);
    return [
      { ok: false, subject: 'task', depth: 1, text: `${title}${more}` },
      ...explainTask(view, first, nowMs, 2),
    ];
  });
}

function groupByCause(tasks: readonly Task[]): Task[][] {
  const causeOf = ({ status }: Task) => `${status.state} ${status.error || status.message}`;
  return [...Map.groupBy(tasks, causeOf).values()];
}

export function titleOf(service: Service, task: Task): string {
  return `${taskName(service.spec.name, task)} (${task.id.slice(0, 12)})`;
}

export function errorOf({ status }: Task): string {
  return status.error === '' ? '' : `, ${status.error}`;
}

/** "1 task", "2 tasks" */
export function tasksText(count: number): string {
  return count === 1 ? '1 task' : `${count} tasks`;
}

export function ago(atMs: number, nowMs: number): string {
  return `${seconds(Math.max(0, nowMs - atMs))} ago`;
}

export function seconds(ms: number): string {
  if (ms < 120_000) return `${Math.ceil(ms / 1000)} s`;
  return ms < 2 * 3_600_000 ? `${Math.round(ms / 60_000)} min` : `${Math.round(ms / 3_600_000)} h`;
}
