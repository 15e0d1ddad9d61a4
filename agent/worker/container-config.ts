// From a task and its spec to what the engine needs. Pure.

import type {
  ContainerSpec,
  DnsConfig,
  LogDriver,
  Revision,
  ServiceSpec,
  Task,
} from '../../core/generated/objects.ts';
import { genericResourceEnv } from '../../core/generic-resource.ts';
import { isIngressPort } from '../../core/ingress-port.ts';
import { formatTag, logDetails, parseLogDriver } from '../../core/log-driver.ts';
import { taskName } from '../../core/task-name.ts';
import type { ContainerConfig, ContainerFile, LogSettings } from '../engine/engine.ts';
import type { Endpoint, TaskNetworkRequest } from '../network/network.ts';

// Docker's own default keeps everything in one file; a node that nobody watches must not fill its disk.
const DEFAULT_LOG_MAX_BYTES = 64 * 2 ** 20;
const DEFAULT_LOG_MAX_FILES = 2;

// Docker's address: it knows the names of services.
const NETWORK_NAME_SERVER = '127.0.0.11';

/** What a task has that its service does not say. */
export interface TaskParts {
  /** With its templates filled in. */
  readonly container: ContainerSpec;
  readonly files: readonly ContainerFile[];
  readonly endpoint: Endpoint;
  /** Of services that say nothing; absent: files of the usual size. */
  readonly logDriver?: LogDriver | undefined;
}

/** With the node's default, where the service says nothing. */
export function withUserns(container: ContainerSpec, usual = ''): ContainerSpec {
  return container.usernsMode === '' ? { ...container, usernsMode: usual } : container;
}

/** The container of a task has the task's id. */
export function containerConfig(task: Task, { spec }: Revision, parts: TaskParts): ContainerConfig {
  const { resources, logDriver } = spec.task;
  const { container, files, endpoint } = parts;
  const { stopGracePeriodMs: _grace, secrets: _secrets, configs: _configs, ...rest } = container;
  return {
    ...rest,
    id: task.id,
    env: [...container.env, ...genericResourceEnv(task.genericResources)],
    files,
    labels: { ...container.labels, ...taskLabels(task, spec.name) },
    limits: resources.limits,
    reservedMemoryBytes: resources.reservations.memoryBytes,
    logs: logSettings(task, spec.name, container, logDriver ?? parts.logDriver),
    network: {
      namespacePath: endpoint.namespacePath,
      resolvConf: withDns(endpoint.resolvConf, container.dns),
      address: endpoint.address,
      ...(endpoint.ipv6Address !== undefined && { ipv6Address: endpoint.ipv6Address }),
    },
  };
}

function logSettings(
  task: Task,
  serviceName: string,
  { image, labels, env }: ContainerSpec,
  driver: LogDriver | undefined,
): LogSettings {
  if (driver === undefined) return { maxSizeBytes: DEFAULT_LOG_MAX_BYTES, maxFiles: DEFAULT_LOG_MAX_FILES };
  const config = parseLogDriver(driver.name, driver.options);
  const name = `${taskName(serviceName, task)}.${task.id}`;
  const tag = formatTag(config.tag, {
    ID: task.id.slice(0, 12),
    FullID: task.id,
    Name: name,
    ImageName: image,
    DaemonName: 'tsswarm',
  });
  const all = { labels: { ...labels, ...taskLabels(task, serviceName) }, env };
  const details = { ...logDetails(config, all), ...(config.tag !== '' && { tag }) };
  const { maxSizeBytes, maxFiles, compress, keepsFile, target } = config;
  return {
    maxSizeBytes,
    maxFiles,
    compress,
    keepsFile,
    driver: config.driver,
    tag,
    name,
    details,
    ...(target && { target }),
  };
}

/** What the service says in place of the node's settings. The name server of a cluster's network stays. */
function withDns(resolvConf: string, dns: DnsConfig | undefined): string {
  if (dns === undefined) return resolvConf;
  const lines = resolvConf.split('\n').filter((line) => line !== '');
  const isOf = (keyword: string) => (line: string) => line.startsWith(`${keyword} `);
  const keeps = (keyword: string, given: readonly string[], line: string) =>
    given.length === 0 || !isOf(keyword)(line);
  const hasOwnServer = lines.includes(`nameserver ${NETWORK_NAME_SERVER}`);
  const servers = hasOwnServer ? [] : dns.nameServers;
  const search = dns.search.filter((domain) => domain !== '.');
  return [
    ...lines.filter(
      (line) =>
        keeps('nameserver', servers, line) &&
        keeps('search', dns.search, line) &&
        keeps('options', dns.options, line),
    ),
    ...servers.map((server) => `nameserver ${server}`),
    ...(search.length > 0 ? [`search ${search.join(' ')}`] : []),
    ...(dns.options.length > 0 ? [`options ${dns.options.join(' ')}`] : []),
    '',
  ].join('\n');
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
  const nameServers = task.container.dns?.nameServers ?? [];
  const own = nameServers.length > 0 && { nameServers };
  return { id, ports, attachments, ...own, ...(instead && { instead }) };
}

/** The labels that cAdvisor, dashboards and log collectors look for on Swarm's containers. */
function taskLabels(task: Task, serviceName: string): Record<string, string> {
  return {
    'com.docker.swarm.node.id': task.nodeId,
    'com.docker.swarm.service.id': task.serviceId,
    'com.docker.swarm.service.name': serviceName,
    'com.docker.swarm.task': '',
    'com.docker.swarm.task.id': task.id,
    'com.docker.swarm.task.name': `${taskName(serviceName, task)}.${task.id}`,
  };
}
