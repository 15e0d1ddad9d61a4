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

/** Of however many tasks. */
type Wish = Omit<PlacementRequest, 'count'>;

export interface PlacementGroup extends Wish {
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

/** Books places for the tasks of a group, the first ones first, and tells why the others get none. */
export function planGroup(group: PlacementGroup, book: ClusterBook, nowMs: number): PlacementPlan {
  const { tasks } = group;
  const assign: Assignment[] = [];
  bookEach(group, { book, nowMs, count: tasks.length }, (booking) => {
    assign.push({ task: tasks[assign.length] as Task, booking });
  });
  const refuse = tasks.slice(assign.length);
  return { assign, refuse, reason: refuse.length === 0 ? '' : explainRefusal(group, book) };
}

/** Books places for as many as fit. */
export function bookPlaces(request: PlacementRequest, book: ClusterBook, nowMs: number): Booking[] {
  const bookings: Booking[] = [];
  bookEach(request, { book, nowMs, count: request.count }, (booking) => {
    bookings.push(booking);
  });
  return bookings;
}

/** Books places for as many of `count` tasks as fit, and hands out each. */
function bookEach(
  wish: Wish,
  { book, nowMs, count }: { readonly book: ClusterBook; readonly nowMs: number; readonly count: number },
  onBooked: (booking: Booking) => void,
): void {
  const version = book.versionOf(wish.serviceId, wish.specVersion, wish.spec);
  const setting = { book, nowMs, version, context: book.contextFor(version, wish.spec) };
  const isPreferred = preferred(wish, setting);
  let left = count;
  if (isPreferred !== undefined)
    left = bookFrom(candidatesFor(wish, setting, isPreferred), left, setting, onBooked);
  bookFrom(candidatesFor(wish, setting), left, setting, onBooked);
}

/** Returns for how many there was no place. */
function bookFrom(
  candidates: Candidates & Disposable,
  count: number,
  { book, version }: Setting,
  onBooked: (booking: Booking) => void,
): number {
  const { generic: requests } = version.demand;
  // Not with `using`, which takes as long as the place of a task or two.
  try {
    for (let left = count; left > 0; left--) {
      const info = candidates.take();
      if (info === undefined) return left;
      const booking = { info, version, generic: chooseGeneric(info, requests), isWanted: true };
      book.plan(booking);
      candidates.putBack();
      onBooked(booking);
    }
    return 0;
  } finally {
    candidates[Symbol.dispose]();
  }
}

/** Nodes that may not have one more, by the first of the filters that refuses them. */
export function refusals(wish: Wish, book: ClusterBook, filters: readonly Filter[]): Map<Filter, NodeInfo[]> {
  const { serviceId, specVersion, spec, nodeId, exceptNodeId } = wish;
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
function explainRefusal(wish: Wish, book: ClusterBook): string {
  const reasons = [...refusals(wish, book, FILTERS)]
    .filter(([, infos]) => infos.length > 0)
    .sort(([, one], [, other]) => other.length - one.length)
    .map(([filter, infos]) => filter.explain(infos.length));
  return reasons.length === 0 ? 'no suitable node' : `no suitable node (${reasons.join('; ')})`;
}

interface Setting {
  readonly book: ClusterBook;
  readonly context: FilterContext;
  readonly nowMs: number;
  /** The one that is placed. */
  readonly version: Version;
}

/** The check for nodes with the neighbours that the service prefers, but for those where it keeps failing. */
function preferred({ nodeId, isSurvey }: Wish, { context, version, nowMs }: Setting): Check | undefined {
  if (context.preferred === undefined || nodeId !== '' || isSurvey) return undefined;
  const isLiked = hasNeighbours(context.preferred);
  return (info) => isLiked(info) && !isFailingOn(info, version, nowMs);
}

function candidatesFor(
  wish: Wish,
  { book, context, version, nowMs }: Setting,
  isAmong?: Check,
): Candidates & Disposable {
  const { spec, nodeId, isSurvey } = wish;
  if (nodeId !== '') {
    const bound = book.node(nodeId);
    return theFirst(bound === undefined ? [] : [bound], checkOf(FILTERS, wish, context));
  }
  if (isSurvey) return theFirst(book.nodes, checkOf(FILTERS, wish, context));
  return new GroupCandidates(book.treeFor(spec), {
    counts: version.service.counts,
    hasRoom: checkOf(ROOM_FILTERS, wish, context, isAmong),
    isFailing: (info) => isFailingOn(info, version, nowMs),
    isPacked: spec.task.placement.strategy === 'binpack',
  });
}

/** That of all filters together, and of the request's own wish for another node. */
function checkOf(
  filters: readonly Filter[],
  { spec, exceptNodeId }: Wish,
  context: FilterContext,
  isAmong?: Check,
): Check {
  let all = isAmong;
  for (const { prepare } of filters) all = both(prepare(spec, context), all);
  if (exceptNodeId !== undefined) all = both((info) => info.node.id !== exceptNodeId, all);
  return all ?? (() => true);
}

/** Undefined is what refuses no node. */
function both(one: Check | undefined, other: Check | undefined): Check | undefined {
  if (one === undefined || other === undefined) return one ?? other;
  return (info) => one(info) && other(info);
}

function isFailingOn(info: NodeInfo, { number, service }: Version, nowMs: number): boolean {
  return info.failures !== undefined && isFailing(info, revisionKey(service.id, number), nowMs);
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
