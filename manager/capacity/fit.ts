// Whether tasks would find a place. Pure. The scheduler's own book, filters and choice of nodes answer, so that what is said
// here and what the scheduler then does cannot differ.

import { parseAffinity } from '../../core/affinity.ts';
import type { ServiceSpec } from '../../core/generated/objects.ts';
import { portsOfNode } from '../../core/node-ports.ts';
import type { Booking, ClusterBook } from '../placement/cluster-book.ts';
import { type Filter, NODE_FILTERS, ROOM_FILTERS } from '../placement/filters.ts';
import { genericFree, type NodeInfo } from '../placement/node-info.ts';
import { bookPlaces, type PlacementRequest, refusals } from '../placement/plan-placement.ts';

/** The reason where constraints, platforms and the states of nodes leave none to look at. */
export const NOWHERE = 'no node that is ready satisfies its placement';

/** Tasks of one version of a service that need a place. */
export type Demand = Pick<PlacementRequest, 'serviceId' | 'specVersion' | 'spec' | 'count'>;

export interface Placed {
  readonly demand: Demand;
  readonly bookings: readonly Booking[];
  /** Tasks without a place, and why. */
  readonly missing: number;
  readonly reason: string;
}

export interface Choice extends Partial<Pick<PlacementRequest, 'nodeId' | 'exceptNodeId' | 'isSurvey'>> {
  /** Where tasks failed a while ago is the last choice. */
  readonly nowMs: number;
}

/** Books what fits, in this order; who waits for company is asked again when others have come. */
export function placeDemands(
  demands: readonly Demand[],
  book: ClusterBook,
  { nowMs, ...choice }: Choice,
): Placed[] {
  const found = demands.map((demand) => ({
    demand,
    request: { nodeId: '', ...choice, ...demand },
    bookings: [] as Booking[],
  }));
  for (let isNews = true; isNews; ) {
    isNews = false;
    for (const { request, bookings } of found) {
      const count = request.count - bookings.length;
      if (count === 0) continue;
      const more = bookPlaces({ ...request, count }, book, nowMs);
      for (const booking of more) bookings.push(booking);
      isNews ||= more.length > 0;
    }
    isNews &&= found.some(
      ({ request: { spec, count }, bookings }) =>
        bookings.length < count && spec.task.placement.affinities.length > 0,
    );
  }
  return found.map(({ demand, request, bookings }) => {
    const missing = request.count - bookings.length;
    return { demand, bookings, missing, reason: missing === 0 ? '' : whyNot(request, book) };
  });
}

/** Undoes what `placeDemands` has booked. */
export function giveBack(placed: readonly Placed[], book: ClusterBook): void {
  for (const { bookings } of placed) for (const booking of bookings) book.cancel(booking);
}

function whyNot(request: PlacementRequest, book: ClusterBook): string {
  const reasons = [...refusals(request, book, [...NODE_FILTERS, ...ROOM_FILTERS])]
    .filter(([, infos]) => infos.length > 0)
    .flatMap(([{ name }, infos]) => REASONS[name]?.(request.spec, infos) ?? []);
  return reasons.length === 0 ? NOWHERE : reasons.join('; ');
}

/** What nodes lack that the placement wants; others are not spoken of. */
const REASONS: Partial<Record<Filter['name'], (spec: ServiceSpec, infos: readonly NodeInfo[]) => string>> = {
  resource: ({ task }, infos) => resourceReason(task.resources, infos),
  hostPort: ({ endpoint }) => `its port ${portsOfNode(endpoint).join(', ')} is taken`,
  maxReplicas: ({ task }) => `at most ${task.placement.maxReplicasPerNode} of it may be on a node`,
  affinity: ({ task: { placement } }) => {
    const required = placement.affinities.filter((text) => !parseAffinity(text).isPreferred);
    return required.length === 0
      ? 'another service does not want it on its nodes'
      : `its affinities are not satisfied (${required.join(', ')})`;
  },
};

function resourceReason(
  { reservations: { cpuNanos, memoryBytes }, generic }: ServiceSpec['task']['resources'],
  infos: readonly NodeInfo[],
): string {
  const most = (freeOf: (info: NodeInfo) => number) => Math.max(...infos.map(freeOf));
  const memoryFree = most((info) => info.memoryBytesFree);
  const cpuFree = most((info) => info.cpuNanosFree);
  const parts = [
    ...(memoryBytes > 0 ? [`needs ${formatBytes(memoryBytes)}, free ${formatBytes(memoryFree)}`] : []),
    ...(cpuNanos > 0 ? [`needs ${formatCpus(cpuNanos)}, free ${formatCpus(cpuFree)}`] : []),
    ...generic.map(({ kind, count }) => {
      const free = Math.max(
        0,
        most((info) => genericFree(info, kind)),
      );
      return `needs ${count} of ${kind}, free ${free}`;
    }),
  ];
  return `${parts.join('; ')} at most on a node`;
}

function formatBytes(bytes: number): string {
  const gibibytes = Math.max(0, bytes) / 2 ** 30;
  if (gibibytes >= 1) return `${Number(gibibytes.toFixed(1))} GiB`;
  return `${Math.floor(Math.max(0, bytes) / 2 ** 20)} MiB`;
}

function formatCpus(nanos: number): string {
  const cpus = Number((Math.max(0, nanos) / 1e9).toFixed(2));
  return `${cpus} ${cpus === 1 ? 'CPU' : 'CPUs'}`;
}
