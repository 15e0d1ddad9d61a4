// What a node must satisfy to get a task. The first filter that refuses a node gives the reason, in the sentence that
// Swarm's operators know.

import { matchesConstraint, parseConstraint } from '../../core/constraint.ts';
import { isOfPlatform, takesTasks } from '../../core/eligible-node.ts';
import type { ServiceSpec } from '../../core/generated/objects.ts';
import { portsOfNode } from '../../core/node-ports.ts';
import { hasGeneric, type NodeInfo } from './node-info.ts';
import type { TaskCounts } from './task-counts.ts';

export type Check = (info: NodeInfo) => boolean;

export interface FilterContext {
  /** Of the service. */
  readonly counts: TaskCounts;
  /** Absent: it makes no difference who else is on a node. */
  readonly neighbours?: NeighbourCounts | undefined;
  /** The same of nodes that come first. Absent: all are alike. */
  readonly preferred?: NeighbourCounts | undefined;
}

/** Tasks of services that nodes must have, or must not have. */
export interface NeighbourCounts {
  readonly together: readonly TaskCounts[];
  readonly apart: readonly TaskCounts[];
}

export interface Filter {
  readonly name: 'ready' | 'resource' | 'constraint' | 'platform' | 'hostPort' | 'maxReplicas' | 'affinity';
  /** The check for one spec, or undefined when the spec asks nothing of this filter. */
  readonly prepare: (spec: ServiceSpec, context: FilterContext) => Check | undefined;
  /** Why `count` nodes were refused. */
  readonly explain: (count: number) => string;
}

export function hasNeighbours({ together, apart }: NeighbourCounts): Check {
  return (info) =>
    together.every((counts) => counts.on(info) > 0) && apart.every((counts) => counts.on(info) === 0);
}

const nodes = (count: number) => (count === 1 ? '1 node' : `${count} nodes`);

const ready: Filter = {
  name: 'ready',
  prepare: () => (info) => takesTasks(info.node),
  explain: (count) => `${nodes(count)} not available for new tasks`,
};

const resource: Filter = {
  name: 'resource',
  prepare: ({ task }) => {
    const { cpuNanos, memoryBytes } = task.resources.reservations;
    const { generic } = task.resources;
    if (cpuNanos === 0 && memoryBytes === 0 && generic.length === 0) return undefined;
    return (info) =>
      info.cpuNanosFree >= cpuNanos &&
      info.memoryBytesFree >= memoryBytes &&
      (generic.length === 0 || hasGeneric(info, generic));
  },
  explain: (count) => `insufficient resources on ${nodes(count)}`,
};

const constraint: Filter = {
  name: 'constraint',
  prepare: ({ task }) => {
    if (task.placement.constraints.length === 0) return undefined;
    const constraints = task.placement.constraints.map(parseConstraint);
    return (info) => constraints.every((each) => matchesConstraint(each, info.node));
  },
  explain: (count) => `scheduling constraints not satisfied on ${nodes(count)}`,
};

const platform: Filter = {
  name: 'platform',
  prepare: ({ task }) => {
    const { platforms } = task.placement;
    if (platforms.length === 0) return undefined;
    return ({ node }) => platforms.some((each) => isOfPlatform(node, each));
  },
  explain: (count) => `unsupported platform on ${nodes(count)}`,
};

const hostPort: Filter = {
  name: 'hostPort',
  prepare: ({ endpoint }) => {
    const ports = portsOfNode(endpoint);
    if (ports.length === 0) return undefined;
    return (info) => !ports.some((port) => info.hostPorts.has(port));
  },
  explain: (count) => `host-mode port already in use on ${nodes(count)}`,
};

const maxReplicas: Filter = {
  name: 'maxReplicas',
  prepare: ({ task }, { counts }) => {
    const { maxReplicasPerNode } = task.placement;
    if (maxReplicasPerNode === 0) return undefined;
    return (info) => counts.on(info) < maxReplicasPerNode;
  },
  explain: (count) => `max replicas per node limit exceeded on ${nodes(count)}`,
};

const affinity: Filter = {
  name: 'affinity',
  prepare: (_spec, { neighbours }) => {
    return neighbours && hasNeighbours(neighbours);
  },
  explain: (count) => `affinities not satisfied on ${nodes(count)}`,
};

/** In the order in which they are named. */
export const FILTERS: readonly Filter[] = [
  ready,
  resource,
  constraint,
  platform,
  hostPort,
  maxReplicas,
  affinity,
];
/** Those that look at what a node is: the same for all services with the same placement. */
export const NODE_FILTERS: readonly Filter[] = [ready, constraint, platform];
/** Those that look at what a node has. */
export const ROOM_FILTERS: readonly Filter[] = [resource, hostPort, maxReplicas, affinity];
