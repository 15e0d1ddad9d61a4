// Tasks → nodes, as data. Pure but for the book, in which placed tasks are booked at once, so that later groups see what
// earlier ones took. Tasks of one service and spec are decided as a group: what it costs grows with its tasks, not with the
// nodes, unless many nodes have no room.

import type { ServiceSpec, Task } from '../../core/generated/objects.ts';
import type { Booking, ClusterBook, Version } from './cluster-book.ts';
import { type Check, FILTERS, type FilterContext, ROOM_FILTERS } from './filters.ts';
import { GroupCandidates } from './group-candidates.ts';
import { chooseGeneric, isFailing, type NodeInfo, revisionKey } from './node-info.ts';
import type { Candidates } from './node-tree.ts';

export interface PlacementGroup {
  readonly serviceId: string;
  readonly specVersion: number;
  readonly spec: ServiceSpec;
  readonly tasks: readonly Task[];
  /** The only node that may have them; empty: any. */
  readonly nodeId: string;
}

export interface Assignment {
  readonly task: Task;
  readonly booking: Booking;
}

export interface PlacementPlan {
  readonly assign: readonly Assignment[];
  /** Tasks that fit nowhere. */
  readonly refuse: readonly Task[];
  /** Why, in the words of the filters; empty when nothing is refused. */
  readonly reason: string;
}

export function planGroup(group: PlacementGroup, book: ClusterBook, nowMs: number): PlacementPlan {
  const { serviceId, specVersion, spec, tasks, nodeId } = group;
  const version = book.versionOf(serviceId, specVersion, spec);
  const assign: Assignment[] = [];
  using candidates =
    nodeId === ''
      ? candidatesFor(spec, version, book, nowMs)
      : theOnly(spec, book.contextFor(version, spec), book.node(nodeId));
  for (const task of tasks) {
    const info = candidates.take();
    if (info === undefined) break;
    const booking = { info, version, generic: chooseGeneric(info, version.demand.generic), isWanted: true };
    assign.push({ task, booking });
    book.plan(booking);
    candidates.putBack();
  }
  const refuse = tasks.slice(assign.length);
  return { assign, refuse, reason: refuse.length === 0 ? '' : explainRefusal(group, version, book) };
}

/** "no suitable node (insufficient resources on 2 nodes; 1 node not available for new tasks)", the commonest first. */
function explainRefusal(group: PlacementGroup, version: Version, book: ClusterBook): string {
  const context = book.contextFor(version, group.spec);
  const refused = FILTERS.map((filter) => ({
    filter,
    check: filter.prepare(group.spec, context) ?? (() => true),
    nodes: 0,
  }));
  const bound = book.node(group.nodeId);
  for (const info of group.nodeId === '' ? book.nodes : bound === undefined ? [] : [bound]) {
    const first = refused.find(({ check }) => !check(info));
    if (first !== undefined) first.nodes++;
  }
  const reasons = refused
    .filter(({ nodes }) => nodes > 0)
    .sort((a, b) => b.nodes - a.nodes)
    .map(({ filter, nodes }) => filter.explain(nodes));
  return reasons.length === 0 ? 'no suitable node' : `no suitable node (${reasons.join('; ')})`;
}

function candidatesFor(
  spec: ServiceSpec,
  version: Version,
  book: ClusterBook,
  nowMs: number,
): GroupCandidates {
  const { number, service } = version;
  const context = book.contextFor(version, spec);
  return new GroupCandidates(book.treeFor(spec), {
    counts: service.counts,
    hasRoom: allOf(ROOM_FILTERS.flatMap(({ prepare }) => prepare(spec, context) ?? [])),
    isFailing: (info) => info.failures.size > 0 && isFailing(info, revisionKey(service.id, number), nowMs),
    isPacked: spec.task.placement.strategy === 'binpack',
  });
}

/** The node that tasks are bound to, as long as it may have them. */
function theOnly(
  spec: ServiceSpec,
  context: FilterContext,
  info: NodeInfo | undefined,
): Candidates & Disposable {
  const mayHave = allOf(FILTERS.flatMap(({ prepare }) => prepare(spec, context) ?? []));
  return {
    take: () => (info !== undefined && mayHave(info) ? info : undefined),
    putBack: () => {},
    [Symbol.dispose]: () => {},
  };
}

function allOf(checks: readonly Check[]): Check {
  const [only] = checks;
  return checks.length === 1 && only !== undefined ? only : (info) => checks.every((check) => check(info));
}
