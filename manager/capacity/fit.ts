// Whether tasks would find a place: which of them fit on which nodes, first fit, service by service. Pure. What is asked
// is what the scheduler's filters ask: ready, resources, constraints, platform, host ports, replicas per node. Affinities are
// left out: the answer is too hopeful where services have them.

import { placementCheck, takesTasks } from '../../core/eligible-node.ts';
import type { Node, ServiceSpec } from '../../core/generated/objects.ts';
import { portsOfNode } from '../../core/node-ports.ts';
import { holdsResources, isWanted } from '../../core/task-state.ts';
import type { TablesView } from '../store/tables.ts';

/** A node, and what is left of it. */
export interface Seat {
  readonly node: Node;
  cpuNanosFree: number;
  memoryBytesFree: number;
  /** "8080/tcp" */
  readonly hostPorts: Set<string>;
  readonly countByService: Map<string, number>;
}

/** Tasks of one service that need a place. */
export interface Demand {
  readonly serviceId: string;
  readonly spec: ServiceSpec;
  readonly count: number;
}

export interface Placed {
  readonly demand: Demand;
  /** Tasks by seat. */
  readonly countBySeat: ReadonlyMap<Seat, number>;
  /** Tasks without a place, and why. */
  readonly missing: number;
  readonly reason: string;
}

export interface Choice {
  /** Takes the first seat with room, for a mere yes or no. Absent: the one that has the fewest of the service. */
  readonly isFirst?: boolean;
  /** A node that is not to be had. */
  readonly exceptNodeId?: string;
}

/** Nodes as they are, without what the tasks take that `isLeaving` names. */
export function seatsOf(view: TablesView, isLeaving?: (taskId: string) => boolean): Seat[] {
  return [...view.node.values()].map((node) => seatOf(view, node, isLeaving));
}

export function seatOf(
  view: TablesView,
  node: Node,
  isLeaving: (taskId: string) => boolean = () => false,
): Seat {
  const { cpuNanos, memoryBytes } = node.description.resources;
  const seat: Seat = {
    node,
    cpuNanosFree: cpuNanos,
    memoryBytesFree: memoryBytes,
    hostPorts: new Set(),
    countByService: new Map(),
  };
  for (const task of view.tasksOnNode(node.id)) {
    const spec = view.revisionOf(task)?.spec;
    if (spec === undefined || !holdsResources(task)) continue;
    if (!isLeaving(task.id)) take(seat, { serviceId: task.serviceId, spec, isWanted: isWanted(task) });
  }
  return seat;
}

/** Books what fits on the seats. */
export function placeDemands(
  demands: readonly Demand[],
  seats: readonly Seat[],
  { isFirst = false, exceptNodeId }: Choice = {},
): Placed[] {
  return demands.map((demand) => {
    const { serviceId, spec, count } = demand;
    const isOpen = openTo(spec, exceptNodeId);
    const countBySeat = new Map<Seat, number>();
    const among = isFirst ? seats : seats.filter(isOpen);
    let left = count;
    while (left > 0) {
      const best = isFirst
        ? seats.find((seat) => isOpen(seat) && obstacle(seat, demand) === undefined)
        : leastLoaded(among, demand);
      if (best === undefined) break;
      take(best, { serviceId, spec, isWanted: true });
      countBySeat.set(best, (countBySeat.get(best) ?? 0) + 1);
      left--;
    }
    return {
      demand,
      countBySeat,
      missing: left,
      reason: left === 0 ? '' : whyNot(seats.filter(isOpen), demand),
    };
  });
}

/** Undoes what `placeDemands` has booked. */
export function giveBack(placed: readonly Placed[]): void {
  for (const { demand, countBySeat } of placed)
    for (const [seat, count] of countBySeat) {
      const { serviceId, spec } = demand;
      seat.cpuNanosFree += count * spec.task.resources.reservations.cpuNanos;
      seat.memoryBytesFree += count * spec.task.resources.reservations.memoryBytes;
      for (const port of portsOfNode(spec.endpoint)) seat.hostPorts.delete(port);
      seat.countByService.set(serviceId, (seat.countByService.get(serviceId) ?? 0) - count);
    }
}

/** Whatever is free there: it takes tasks, and the placement wants it. */
function openTo({ task: { placement } }: ServiceSpec, exceptNodeId: string | undefined) {
  const fits = placementCheck(placement);
  return ({ node }: Seat): boolean => node.id !== exceptNodeId && takesTasks(node) && fits(node);
}

function leastLoaded(seats: readonly Seat[], demand: Demand): Seat | undefined {
  let best: Seat | undefined;
  const countOn = (seat: Seat) => seat.countByService.get(demand.serviceId) ?? 0;
  for (const seat of seats)
    if ((best === undefined || countOn(seat) < countOn(best)) && obstacle(seat, demand) === undefined)
      best = seat;
  return best;
}

/** Of a node that may have the service's tasks: what keeps it from having one more. */
function obstacle(seat: Seat, { serviceId, spec }: Demand): 'resources' | 'ports' | 'replicas' | undefined {
  const { reservations } = spec.task.resources;
  if (seat.cpuNanosFree < reservations.cpuNanos || seat.memoryBytesFree < reservations.memoryBytes)
    return reservations.cpuNanos + reservations.memoryBytes > 0 ? 'resources' : undefined;
  if (portsOfNode(spec.endpoint).some((port) => seat.hostPorts.has(port))) return 'ports';
  const max = spec.task.placement.maxReplicasPerNode;
  return max > 0 && (seat.countByService.get(serviceId) ?? 0) >= max ? 'replicas' : undefined;
}

function whyNot(seats: readonly Seat[], demand: Demand): string {
  if (seats.length === 0) return 'no node that is ready satisfies its placement';
  const { cpuNanos, memoryBytes } = demand.spec.task.resources.reservations;
  const found = new Set(seats.map((seat) => obstacle(seat, demand)));
  const reasons: string[] = [];
  if (found.has('resources')) {
    const memoryFree = Math.max(...seats.map((seat) => seat.memoryBytesFree));
    const cpuFree = Math.max(...seats.map((seat) => seat.cpuNanosFree));
    const parts = [
      ...(memoryBytes > 0 ? [`needs ${formatBytes(memoryBytes)}, free ${formatBytes(memoryFree)}`] : []),
      ...(cpuNanos > 0 ? [`needs ${formatCpus(cpuNanos)}, free ${formatCpus(cpuFree)}`] : []),
    ];
    reasons.push(`${parts.join('; ')} at most on a node`);
  }
  if (found.has('ports')) reasons.push(`its port ${portsOfNode(demand.spec.endpoint).join(', ')} is taken`);
  if (found.has('replicas'))
    reasons.push(`at most ${demand.spec.task.placement.maxReplicasPerNode} of it may be on a node`);
  return reasons.join('; ');
}

interface Taken {
  readonly serviceId: string;
  readonly spec: ServiceSpec;
  readonly isWanted: boolean;
}

function take(seat: Seat, { serviceId, spec, isWanted }: Taken): void {
  seat.cpuNanosFree -= spec.task.resources.reservations.cpuNanos;
  seat.memoryBytesFree -= spec.task.resources.reservations.memoryBytes;
  for (const port of portsOfNode(spec.endpoint)) seat.hostPorts.add(port);
  if (isWanted) seat.countByService.set(serviceId, (seat.countByService.get(serviceId) ?? 0) + 1);
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
