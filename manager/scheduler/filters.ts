// What a node must satisfy to get a task. Filters run in this order; the first that refuses a node gives the reason,
// in the sentence that Swarm's operators know.

import { matchesConstraint, parseConstraint } from '../../core/constraint.ts';
import { isOfPlatform, takesTasks } from '../../core/eligible-node.ts';
import type { ServiceSpec } from '../../core/generated/objects.ts';
import { type NodeInfo, portKey, takesPortOfNode } from './node-info.ts';

export interface Filter {
  readonly name: string;
  /** The check for one spec, or undefined when the spec asks nothing of this filter. */
  readonly prepare: (spec: ServiceSpec, serviceId: string) => ((info: NodeInfo) => boolean) | undefined;
  /** Why `count` nodes were refused. */
  readonly explain: (count: number) => string;
}

const nodes = (count: number) => (count === 1 ? '1 node' : `${count} nodes`);

export const FILTERS: readonly Filter[] = [
  {
    name: 'ready',
    prepare:
      () =>
      ({ node }) =>
        takesTasks(node),
    explain: (count) => `${nodes(count)} not available for new tasks`,
  },
  {
    name: 'resource',
    prepare: ({ task }) => {
      const { cpuNanos, memoryBytes } = task.resources.reservations;
      if (cpuNanos === 0 && memoryBytes === 0) return undefined;
      return (info) => info.cpuNanosFree >= cpuNanos && info.memoryBytesFree >= memoryBytes;
    },
    explain: (count) => `insufficient resources on ${nodes(count)}`,
  },
  {
    name: 'constraint',
    prepare: ({ task }) => {
      if (task.placement.constraints.length === 0) return undefined;
      const constraints = task.placement.constraints.map(parseConstraint);
      return (info) => constraints.every((constraint) => matchesConstraint(constraint, info.node));
    },
    explain: (count) => `scheduling constraints not satisfied on ${nodes(count)}`,
  },
  {
    name: 'platform',
    prepare: ({ task }) => {
      const { platforms } = task.placement;
      if (platforms.length === 0) return undefined;
      return ({ node }) => platforms.some((platform) => isOfPlatform(node, platform));
    },
    explain: (count) => `unsupported platform on ${nodes(count)}`,
  },
  {
    name: 'host-port',
    prepare: ({ endpoint }) => {
      const ports = endpoint.ports.filter(takesPortOfNode).map(portKey);
      if (ports.length === 0) return undefined;
      return (info) => !ports.some((port) => info.hostPorts.has(port));
    },
    explain: (count) => `host-mode port already in use on ${nodes(count)}`,
  },
  {
    name: 'max-replicas',
    prepare: ({ task }, serviceId) => {
      const { maxReplicasPerNode } = task.placement;
      if (maxReplicasPerNode === 0) return undefined;
      return (info) => (info.taskCountByService.get(serviceId) ?? 0) < maxReplicasPerNode;
    },
    explain: (count) => `max replicas per node limit exceeded on ${nodes(count)}`,
  },
];
