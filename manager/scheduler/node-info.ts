// A node as the scheduler counts it: what is left of its resources, what runs there, which ports are taken.

import { isRecentFailure } from '../../core/failing-node.ts';
import type { Node, PortConfig, Resources, ServiceSpec, Task } from '../../core/generated/objects.ts';
import { isIngressPort } from '../../core/ingress-port.ts';
import { compareTaskStates, isTerminal, isWanted } from '../../core/task-state.ts';
import type { TablesView } from '../store/tables.ts';

export interface NodeInfo {
  readonly node: Node;
  cpuNanosFree: number;
  memoryBytesFree: number;
  taskCount: number;
  readonly taskCountByService: Map<string, number>;
  /** "8080/tcp" */
  readonly hostPorts: Set<string>;
  /** Recent failures by "<service>.<spec version>". */
  readonly failures: Map<string, number>;
}

/** Counts what every node has and carries. */
export function collectNodeInfos(view: TablesView, nowMs: number): NodeInfo[] {
  return [...view.node.values()].map((node) => {
    const info: NodeInfo = {
      node,
      cpuNanosFree: node.description.resources.cpuNanos,
      memoryBytesFree: node.description.resources.memoryBytes,
      taskCount: 0,
      taskCountByService: new Map(),
      hostPorts: new Set(),
      failures: new Map(),
    };
    for (const task of view.tasksOnNode(node.id)) countTask(info, task, view.revisionOf(task)?.spec, nowMs);
    return info;
  });
}

function countTask(info: NodeInfo, task: Task, spec: ServiceSpec | undefined, nowMs: number): void {
  if (isTerminal(task.status.state)) {
    if (!isRecentFailure(task, nowMs)) return;
    const key = failureKey(task.serviceId, task.specVersion);
    info.failures.set(key, (info.failures.get(key) ?? 0) + 1);
    return;
  }
  // Bound to the node, and not placed yet.
  if (compareTaskStates(task.status.state, 'assigned') < 0) return;
  // A task that is told to stop holds its resources until it has.
  if (spec !== undefined) takeResources(info, spec.task.resources.reservations, spec.endpoint.ports);
  if (isWanted(task)) addTask(info, task.serviceId);
}

/** Books one more task of the service on the node. */
export function placeTask(info: NodeInfo, serviceId: string, spec: ServiceSpec): void {
  takeResources(info, spec.task.resources.reservations, spec.endpoint.ports);
  addTask(info, serviceId);
}

function takeResources(info: NodeInfo, reserved: Resources, ports: readonly PortConfig[]): void {
  info.cpuNanosFree -= reserved.cpuNanos;
  info.memoryBytesFree -= reserved.memoryBytes;
  for (const port of ports) if (takesPortOfNode(port)) info.hostPorts.add(portKey(port));
}

function addTask(info: NodeInfo, serviceId: string): void {
  info.taskCount++;
  info.taskCountByService.set(serviceId, (info.taskCountByService.get(serviceId) ?? 0) + 1);
}

/** A port with a number that the node can give once. */
export function takesPortOfNode(port: PortConfig): boolean {
  return port.publishedPort > 0 && !isIngressPort(port);
}

export function portKey(port: PortConfig): string {
  return `${port.publishedPort}/${port.protocol}`;
}

export function failureKey(serviceId: string, specVersion: number): string {
  return `${serviceId}.${specVersion}`;
}
