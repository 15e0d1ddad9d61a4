// A node as the scheduler counts it: what is left of its resources, what runs there, which ports are taken.

import { NODE_FAILURE_WINDOW_MS, NODE_FAILURES_MAX } from '../../core/failing-node.ts';
import type { GenericResource, Node, ServiceSpec } from '../../core/generated/objects.ts';
import { portsOfNode } from '../../core/node-ports.ts';
import { NONE } from '../../proto/wire.ts';

export interface NodeInfo {
  /** Its place among all nodes that there have been. */
  readonly index: number;
  node: Node;
  cpuNanosFree: number;
  memoryBytesFree: number;
  /** Tasks that are to be there. */
  taskCount: number;
  /** Tasks that hold something there, be they to stay or to go. */
  bookings: number;
  /** How many tasks take a port: "8080/tcp" */
  readonly hostPorts: Map<string, number>;
  /** What tasks have been given of the node's generic resources, and how many have a name: while a task changes, it counts twice. */
  readonly genericUse: Map<string, { count: number; readonly names: Map<string, number> }>;
  /** When tasks failed, by "<service>.<spec version>"; absent until one does. */
  failures: Map<string, number[]> | undefined;
}

/** What a task of a spec takes of its node. */
export interface Demand {
  readonly cpuNanos: number;
  readonly memoryBytes: number;
  readonly ports: readonly string[];
  readonly generic: readonly GenericResource[];
}

export const noDemand: Demand = { cpuNanos: 0, memoryBytes: 0, ports: [], generic: [] };

export function newNodeInfo(node: Node, index: number): NodeInfo {
  const { cpuNanos, memoryBytes } = node.description.resources;
  return {
    index,
    node,
    cpuNanosFree: cpuNanos,
    memoryBytesFree: memoryBytes,
    taskCount: 0,
    bookings: 0,
    hostPorts: new Map(),
    genericUse: new Map(),
    failures: undefined,
  };
}

export function demandOf({ task, endpoint }: ServiceSpec): Demand {
  const { cpuNanos, memoryBytes } = task.resources.reservations;
  return { cpuNanos, memoryBytes, ports: portsOfNode(endpoint), generic: task.resources.generic };
}

export function take(info: NodeInfo, { cpuNanos, memoryBytes, ports }: Demand): void {
  info.cpuNanosFree -= cpuNanos;
  info.memoryBytesFree -= memoryBytes;
  for (const port of ports) info.hostPorts.set(port, (info.hostPorts.get(port) ?? 0) + 1);
}

export function release(info: NodeInfo, { cpuNanos, memoryBytes, ports }: Demand): void {
  info.cpuNanosFree += cpuNanos;
  info.memoryBytesFree += memoryBytes;
  for (const port of ports) {
    const count = (info.hostPorts.get(port) ?? 0) - 1;
    if (count > 0) info.hostPorts.set(port, count);
    else info.hostPorts.delete(port);
  }
}

/** Whether the node has as much as that which nobody else was given. */
export function hasGeneric(info: NodeInfo, requests: readonly GenericResource[]): boolean {
  return requests.every(({ kind, count }) => genericFree(info, kind) >= count);
}

/** How many of a kind nobody was given. */
export function genericFree({ node, genericUse }: NodeInfo, kind: string): number {
  const { count = 0 } = node.description.genericResources.find((each) => each.kind === kind) ?? {};
  return count - (genericUse.get(kind)?.count ?? 0);
}

/** What a task would be given: so many of a kind, or the first names that are free. */
export function chooseGeneric(info: NodeInfo, requests: readonly GenericResource[]): GenericResource[] {
  if (requests.length === 0) return NONE;
  return requests.map(({ kind, count }) => {
    const { names = [] } = info.node.description.genericResources.find((each) => each.kind === kind) ?? {};
    const used = info.genericUse.get(kind)?.names;
    return { kind, count, names: names.filter((name) => !used?.has(name)).slice(0, count) };
  });
}

export function giveGeneric(info: NodeInfo, given: readonly GenericResource[]): void {
  if (given.length === 0) return;
  for (const { kind, count, names } of given) {
    const use = info.genericUse.get(kind) ?? { count: 0, names: new Map<string, number>() };
    use.count += count;
    for (const name of names) use.names.set(name, (use.names.get(name) ?? 0) + 1);
    info.genericUse.set(kind, use);
  }
}

export function takeGenericBack(info: NodeInfo, given: readonly GenericResource[]): void {
  for (const { kind, count, names } of given) {
    const use = info.genericUse.get(kind);
    if (use === undefined) continue;
    use.count -= count;
    for (const name of names) {
      const holders = (use.names.get(name) ?? 0) - 1;
      if (holders > 0) use.names.set(name, holders);
      else use.names.delete(name);
    }
    if (use.count === 0) info.genericUse.delete(kind);
  }
}

export function noteFailure(info: NodeInfo, key: string, atMs: number): void {
  info.failures ??= new Map();
  const times = info.failures.get(key) ?? [];
  info.failures.set(key, [...times, atMs].slice(-NODE_FAILURES_MAX));
}

/** Whether the service keeps failing there. */
export function isFailing(info: NodeInfo, key: string, nowMs: number): boolean {
  const times = info.failures?.get(key);
  if (times === undefined) return false;
  const recent = times.filter((atMs) => nowMs - atMs <= NODE_FAILURE_WINDOW_MS);
  if (recent.length === 0) info.failures?.delete(key);
  return recent.length >= NODE_FAILURES_MAX;
}

export function revisionKey(serviceId: string, specVersion: number): string {
  return `${serviceId}.${specVersion}`;
}
