// Which tasks of a service move to nodes that have come later or again. Pure.
//
// Only while all of the service runs and has done so for its monitor time; as many at once as an update replaces, each
// after its successor; from a node only to one with at least two fewer of the service, so that each move is an
// improvement and none is followed by its opposite.

import { placementCheck, takesTasks } from '../../core/eligible-node.ts';
import { isRecentFailure, NODE_FAILURES_MAX } from '../../core/failing-node.ts';
import type { Node, Service, Task } from '../../core/generated/objects.ts';
import { wantedReplicas } from '../../core/replicas.ts';
import { isTerminal, isWanted } from '../../core/task-state.ts';
import { earliest } from '../loop.ts';
import type { ClusterBook } from '../placement/cluster-book.ts';
import { bookPlaces } from '../placement/plan-placement.ts';
import type { TablesView } from '../store/tables.ts';

export const REBALANCE_REASON = 'another node has fewer tasks of its service';

export interface RebalancePlan {
  readonly move: readonly Task[];
  /** Come back then (Unix ms), even if nothing happens. */
  readonly wakeAtMs: number | undefined;
}

export interface Moment {
  readonly nowMs: number;
  /** A node has to be ready for this long before anything moves to it. */
  readonly calmMs: number;
  /** What nodes have room for; moves are booked. To count it takes all tasks of the cluster, so only who moves something asks. */
  readonly book: () => ClusterBook;
}

/** Where something keeps a service from moving that may pass unheard, as others that fill the nodes. */
const BLOCKED_MS = 60_000;
const NOTHING: RebalancePlan = { move: [], wakeAtMs: undefined };

export function isRebalanced({ spec }: Service): boolean {
  return spec.task.placement.rebalance === true && spec.mode.replicated !== undefined && !spec.stopped;
}

export function planRebalance(
  view: TablesView,
  service: Service,
  { nowMs, calmMs, book }: Moment,
): RebalancePlan {
  const all = view.tasksOfService(service.id);
  const tasks = all.filter(isWanted);
  // A move is over when what was moved has stopped.
  if (all.some((task) => task.eviction === REBALANCE_REASON && !isTerminal(task.status.state)))
    return NOTHING;
  if (!isRebalanced(service) || !isWhole(service, tasks)) return NOTHING;
  const healthyAtMs =
    tasks.reduce((latest, { status }) => Math.max(latest, status.runningAtMs), 0) +
    service.spec.update.monitorMs;
  if (nowMs < healthyAtMs) return { move: [], wakeAtMs: healthyAtMs };
  const byNode = Map.groupBy(tasks, ({ nodeId }) => nodeId);
  const nodes = [...view.node.values()].filter(takesTasks);
  const nextMs = nextCalmMs(nodes, { nowMs, calmMs });
  if (isEven(nodes, byNode, service)) return { move: [], wakeAtMs: nextMs };
  const isTarget = targetCheck(view, service, { nowMs, calmMs });
  const field = { book: book(), nodes, byNode, isTarget, nowMs };
  const movesMax = service.spec.update.parallelism || Number.POSITIVE_INFINITY;
  const move: Task[] = [];
  while (move.length < movesMax) {
    const task = nextMove(view, service, field);
    if (task === undefined) break;
    move.push(task);
  }
  return { move, wakeAtMs: move.length > 0 ? undefined : earliest(nextMs, nowMs + BLOCKED_MS) };
}

/** No node has two more than another that the service may be on. */
function isEven(nodes: readonly Node[], byNode: ReadonlyMap<string, Task[]>, { spec }: Service): boolean {
  const fits = placementCheck(spec.task.placement);
  const countOn = ({ id }: Node) => byNode.get(id)?.length ?? 0;
  const most = nodes.reduce((max, node) => Math.max(max, countOn(node)), 0);
  return !nodes.some((node) => most - countOn(node) >= 2 && fits(node));
}

/** Every replica runs, and nothing else is going on. */
function isWhole({ spec, previousSpec, updateStatus }: Service, tasks: readonly Task[]): boolean {
  const isUpdated =
    updateStatus === undefined ? previousSpec === undefined : updateStatus.state.endsWith('completed');
  const isCalm = tasks.every(({ status, eviction }) => status.state === 'running' && eviction === undefined);
  return isUpdated && isCalm && tasks.length === wantedReplicas(spec);
}

interface Field {
  readonly book: ClusterBook;
  /** Those that take tasks. */
  readonly nodes: readonly Node[];
  readonly byNode: Map<string, Task[]>;
  readonly isTarget: (node: Node) => boolean;
  readonly nowMs: number;
}

/** Takes a task from the fullest node and books its place on the emptiest, when that is worth while. */
function nextMove(
  view: TablesView,
  { id: serviceId, spec, specVersion }: Service,
  { book, nodes, byNode, isTarget, nowMs }: Field,
): Task | undefined {
  const countOn = ({ id }: Node) => byNode.get(id)?.length ?? 0;
  const ordered = nodes.toSorted((a, b) => countOn(b) - countOn(a) || (a.id < b.id ? -1 : 1));
  const hasRoom = ({ id: nodeId }: Node) =>
    bookPlaces({ serviceId, specVersion, spec, count: 1, nodeId }, book, nowMs).length === 1;
  for (const from of ordered) {
    const task = byNode.get(from.id)?.findLast((candidate) => !hasComeBack(view, candidate));
    if (task === undefined) continue;
    const target = ordered.findLast(
      (node) => countOn(from) - countOn(node) >= 2 && isTarget(node) && hasRoom(node),
    );
    if (target === undefined) continue;
    byNode.set(
      from.id,
      (byNode.get(from.id) ?? []).filter((other) => other !== task),
    );
    // Its successor counts there; it may not be moved on.
    byNode.set(target.id, [{ ...task, eviction: REBALANCE_REASON }, ...(byNode.get(target.id) ?? [])]);
    return task;
  }
  return undefined;
}

/** It was moved, and the scheduler has put it where it was: another try would end the same way. */
function hasComeBack(view: TablesView, task: Task): boolean {
  if (task.eviction !== undefined) return true;
  return view
    .tasksOfService(task.serviceId)
    .some(
      (other) =>
        other.slot === task.slot && other.eviction === REBALANCE_REASON && other.nodeId === task.nodeId,
    );
}

function targetCheck(view: TablesView, service: Service, { nowMs, calmMs }: Times): (node: Node) => boolean {
  const tasks = view.tasksOfService(service.id);
  const fits = placementCheck(service.spec.task.placement);
  return (node) => {
    if (!fits(node) || nowMs < node.status.sinceMs + calmMs) return false;
    const failures = tasks.filter((task) => task.nodeId === node.id && isRecentFailure(task, nowMs));
    return failures.length < NODE_FAILURES_MAX;
  };
}

type Times = Pick<Moment, 'nowMs' | 'calmMs'>;

function nextCalmMs(nodes: readonly Node[], { nowMs, calmMs }: Times): number | undefined {
  return nodes
    .map(({ status }) => status.sinceMs + calmMs)
    .filter((atMs) => atMs > nowMs)
    .reduce<number | undefined>(earliest, undefined);
}
