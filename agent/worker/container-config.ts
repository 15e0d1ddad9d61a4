// From a task and its spec to what the engine needs. Pure.

import type { ContainerSpec, Revision, ServiceSpec, Task } from '../../core/generated/objects.ts';
import { isIngressPort } from '../../core/ingress-port.ts';
import { parseLogOptions } from '../../core/validate-spec.ts';
import type { ContainerConfig, ContainerFile } from '../engine/engine.ts';
import type { Endpoint, TaskNetworkRequest } from '../network/network.ts';

// Docker's own default keeps everything in one file; a node that nobody watches must not fill its disk.
const DEFAULT_LOG_MAX_BYTES = 64 * 2 ** 20;
const DEFAULT_LOG_MAX_FILES = 2;

/** What a task has that its service does not say. */
export interface TaskParts {
  /** With its templates filled in. */
  readonly container: ContainerSpec;
  readonly files: readonly ContainerFile[];
  readonly endpoint: Endpoint;
}

/** The container of a task has the task's id. */
export function containerConfig(task: Task, { spec }: Revision, parts: TaskParts): ContainerConfig {
  const { resources, logDriver } = spec.task;
  const { container, files, endpoint } = parts;
  const { stopGracePeriodMs: _grace, secrets: _secrets, configs: _configs, ...rest } = container;
  return {
    ...rest,
    id: task.id,
    files,
    labels: { ...container.labels, ...taskLabels(task, spec.name) },
    limits: resources.limits,
    reservedMemoryBytes: resources.reservations.memoryBytes,
    logs:
      logDriver === undefined
        ? { maxSizeBytes: DEFAULT_LOG_MAX_BYTES, maxFiles: DEFAULT_LOG_MAX_FILES }
        : parseLogOptions(logDriver.options),
    network: {
      namespacePath: endpoint.namespacePath,
      resolvConf: endpoint.resolvConf,
      address: endpoint.address,
      ...(endpoint.ipv6Address !== undefined && { ipv6Address: endpoint.ipv6Address }),
    },
  };
}

/** "host" and "none" are what each node has for itself. */
export function networkRequest(
  { id, attachments }: Task,
  { task, endpoint }: ServiceSpec,
): TaskNetworkRequest {
  const ports = endpoint.ports.filter((port) => !isIngressPort(port));
  const instead = task.networks
    .map(({ networkId }) => networkId)
    .find((name) => name === 'host' || name === 'none');
  return { id, ports, attachments, ...(instead && { instead }) };
}

/** The labels that cAdvisor, dashboards and log collectors look for on Swarm's containers. */
function taskLabels(task: Task, serviceName: string): Record<string, string> {
  return {
    'com.docker.swarm.node.id': task.nodeId,
    'com.docker.swarm.service.id': task.serviceId,
    'com.docker.swarm.service.name': serviceName,
    'com.docker.swarm.task': '',
    'com.docker.swarm.task.id': task.id,
    'com.docker.swarm.task.name': `${serviceName}.${task.slot}.${task.id}`,
  };
}
