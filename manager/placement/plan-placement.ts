// Tasks → nodes, as data. Pure but for the book, in which placed tasks are booked at once, so that later groups see what
// earlier ones took. Tasks of one service and spec are decided as a group: what it costs grows with its tasks, not with the
// nodes, unless many nodes have no room.

import type { ServiceSpec, Task } from '../../core/generated/objects.ts';
import type { Booking, ClusterBook, Version } from './cluster-book.ts';
import {
  type Check,
  FILTERS,
  type Filter,
  type FilterContext,
  hasNeighbours,
  ROOM_FILTERS,
} from './filters.ts';
import { GroupCandidates } from './group-candidates.ts';
import { chooseGeneric, isFailing, type NodeInfo, revisionKey } from './node-info.ts';
import type { Candidates } from './node-tree.ts';

/** So many tasks of one version of a service, which are decided together. */
export interface PlacementRequest {
  readonly serviceId: string;
  readonly specVersion: number;
  readonly spec: ServiceSpec;
  readonly count: number;
  /** The only node that may have them; empty: any. */
  readonly nodeId: string;
  /** A node that is not to be had. */
  readonly exceptNodeId?: string | undefined;
  /** Takes the first nodes with room instead of the best: for a mere yes or no about many tasks. */
  readonly isSurvey?: boolean;
}

export interface PlacementGroup extends Omit<PlacementRequest, 'count'> {
  readonly tasks: readonly Task[];
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
  const { tasks } = group;
  const request = { ...group, count: tasks.length };
  const bookings = bookPlaces(request, book, nowMs);
  const refuse = tasks.slice(bookings.length);
  return {
    assign: bookings.map((booking, index) => ({ task: tasks[index] as Task, booking })),
    refuse,
    reason: refuse.length === 0 ? '' : explainRefusal(request, book),
  };
}

/** Books places for as many as fit. */
export function bookPlaces(request: PlacementRequest, book: ClusterBook, nowMs: number): Booking[] {
  const { serviceId, specVersion, spec } = request;
  const version = book.versionOf(serviceId, specVersion, spec);
  const bookings: Booking[] = [];
  const context = book.contextFor(version, spec);
  const fromAll = candidatesFor(request, version, { book, context, nowMs });
  for (const among of [...preferredFirst(request, version, { book, context, nowMs }), fromAll]) {
    using candidates = among();
    while (bookings.length < request.count) {
      const info = candidates.take();
      if (info === undefined) break;
      const generic = chooseGeneric(info, version.demand.generic);
      const booking = { info, version, generic, isWanted: true };
      bookings.push(booking);
      book.plan(booking);
      candidates.putBack();
    }
  }
  return bookings;
}

/** Nodes that may not have one more, by the first of the filters that refuses them. */
export function refusals(
  request: PlacementRequest,
  book: ClusterBook,
  filters: readonly Filter[],
): Map<Filter, NodeInfo[]> {
  const { serviceId, specVersion, spec, nodeId, exceptNodeId } = request;
  const context = book.contextFor(book.versionOf(serviceId, specVersion, spec), spec);
  const checks = filters.map((filter) => filter.prepare(spec, context) ?? (() => true));
  const refused = new Map(filters.map((filter): [Filter, NodeInfo[]] => [filter, []]));
  const bound = book.node(nodeId);
  for (const info of nodeId === '' ? book.nodes : bound === undefined ? [] : [bound]) {
    const first = filters[checks.findIndex((check) => !check(info))];
    if (first !== undefined && info.node.id !== exceptNodeId) refused.get(first)?.push(info);
  }
  return refused;
}

/** "no suitable node (insufficient resources on 2 nodes; 1 node not available for new tasks)", the commonest first. */
function explainRefusal(request: PlacementRequest, book: ClusterBook): string {
  const reasons = [...refusals(request, book, FILTERS)]
    .filter(([, infos]) => infos.length > 0)
    .sort(([, one], [, other]) => other.length - one.length)
    .map(([filter, infos]) => filter.explain(infos.length));
  return reasons.length === 0 ? 'no suitable node' : `no suitable node (${reasons.join('; ')})`;
}

interface Setting {
  readonly book: ClusterBook;
  readonly context: FilterContext;
  readonly nowMs: number;
}

type Choice = () => Candidates & Disposable;

/** The nodes with the neighbours that the service prefers, but for those where it keeps failing. */
function preferredFirst(request: PlacementRequest, version: Version, setting: Setting): Choice[] {
  const { preferred } = setting.context;
  if (preferred === undefined || request.nodeId !== '' || request.isSurvey) return [];
  const isLiked = hasNeighbours(preferred);
  const mayHave = (info: NodeInfo) => isLiked(info) && !isFailingOn(info, version, setting.nowMs);
  return [candidatesFor(request, version, setting, mayHave)];
}

function candidatesFor(
  { spec, nodeId, exceptNodeId, isSurvey }: PlacementRequest,
  version: Version,
  { book, context, nowMs }: Setting,
  isAmong?: Check,
): Choice {
  const isOther = (info: NodeInfo) => info.node.id !== exceptNodeId;
  const allOf = (filters: readonly Filter[]) =>
    every([
      ...filters.flatMap(({ prepare }) => prepare(spec, context) ?? []),
      ...(exceptNodeId === undefined ? [] : [isOther]),
      ...(isAmong === undefined ? [] : [isAmong]),
    ]);
  const bound = book.node(nodeId);
  if (nodeId !== '') return () => theFirst(bound === undefined ? [] : [bound], allOf(FILTERS));
  if (isSurvey) return () => theFirst(book.nodes, allOf(FILTERS));
  return () =>
    new GroupCandidates(book.treeFor(spec), {
      counts: version.service.counts,
      hasRoom: allOf(ROOM_FILTERS),
      isFailing: (info) => isFailingOn(info, version, nowMs),
      isPacked: spec.task.placement.strategy === 'binpack',
    });
}

function isFailingOn(info: NodeInfo, { number, service }: Version, nowMs: number): boolean {
  return info.failures.size > 0 && isFailing(info, revisionKey(service.id, number), nowMs);
}

/** One node after the other, each as long as it may have more. */
function theFirst(infos: readonly NodeInfo[], mayHave: Check): Candidates & Disposable {
  let at = 0;
  return {
    take: () => {
      for (; at < infos.length; at++) {
        const info = infos[at] as NodeInfo;
        if (mayHave(info)) return info;
      }
      return undefined;
    },
    putBack: () => {},
    [Symbol.dispose]: () => {},
  };
}

function every(checks: readonly Check[]): Check {
  const [only] = checks;
  if (checks.length === 1 && only !== undefined) return only;
  return (info) => {
    for (const check of checks) if (!check(info)) return false;
    return true;
  };
}
