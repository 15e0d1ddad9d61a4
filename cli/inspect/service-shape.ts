// A service in Docker's field names, as JSON. Pure.

import type {
  ContainerSpec,
  FileReference,
  HealthCheck,
  Mount,
  Network,
  NetworkAttachment,
  PortConfig,
  ResourceRequirements,
  Service,
  ServiceSpec,
  TaskSpec,
  UpdateConfig,
  UpdateStatus,
  VirtualAddress,
} from '../../core/generated/objects.ts';
import { contains, parseAddress, parsePrefix } from '../../core/ip-address.ts';
import { portsOfService } from '../output/ports.ts';
import { formatTime, toNanos } from './time.ts';

/** The cluster's networks say which subnet an address is of. */
export function toDockerService(service: Service, networks: readonly Network[] = []): object {
  const ports = portsOfService(service);
  return {
    ID: service.id,
    Version: { Index: service.meta.version },
    CreatedAt: formatTime(service.meta.createdAtMs),
    UpdatedAt: formatTime(service.meta.updatedAtMs),
    Spec: toDockerSpec(service.spec),
    ...(service.previousSpec && { PreviousSpec: toDockerSpec(service.previousSpec) }),
    Endpoint: {
      Spec: endpointSpec(service.spec),
      ...(ports.length > 0 && { Ports: ports.map(port) }),
      ...(service.virtualAddresses.length > 0 && {
        VirtualIPs: service.virtualAddresses.map((given) => virtualIp(given, networks)),
      }),
    },
    ...(service.updateStatus && { UpdateStatus: updateStatus(service.updateStatus) }),
  };
}

function toDockerSpec(spec: ServiceSpec): object {
  return {
    Name: spec.name,
    Labels: spec.labels,
    TaskTemplate: taskTemplate(spec.task),
    Mode: { Replicated: { Replicas: spec.mode.replicated?.replicas ?? 0 } },
    UpdateConfig: updateConfig(spec.update),
    RollbackConfig: updateConfig(spec.rollback),
    EndpointSpec: endpointSpec(spec),
  };
}

function taskTemplate(task: TaskSpec): object {
  const { placement, restart } = task;
  return {
    ContainerSpec: containerSpec(task.container),
    Resources: resources(task.resources),
    RestartPolicy: {
      Condition: restart.condition,
      Delay: toNanos(restart.delayMs),
      MaxAttempts: restart.maxAttempts,
      ...(restart.windowMs > 0 && { Window: toNanos(restart.windowMs) }),
    },
    Placement: {
      ...(placement.constraints.length > 0 && { Constraints: placement.constraints }),
      ...(placement.maxReplicasPerNode > 0 && { MaxReplicas: placement.maxReplicasPerNode }),
      ...(placement.platforms.length > 0 && {
        Platforms: placement.platforms.map(({ os, architecture }) => ({
          Architecture: architecture,
          OS: os,
        })),
      }),
    },
    ...(task.logDriver && { LogDriver: { Name: task.logDriver.name, Options: task.logDriver.options } }),
    ...(task.networks.length > 0 && { Networks: task.networks.map(attachment) }),
    ForceUpdate: task.forceUpdate,
    Runtime: 'container',
  };
}

function containerSpec(container: ContainerSpec): object {
  return {
    Image: container.image,
    ...(Object.keys(container.labels).length > 0 && { Labels: container.labels }),
    ...(container.command.length > 0 && { Command: container.command }),
    ...(container.args.length > 0 && { Args: container.args }),
    ...(container.hostname !== '' && { Hostname: container.hostname }),
    ...(container.env.length > 0 && { Env: container.env }),
    ...(container.workdir !== '' && { Dir: container.workdir }),
    ...(container.user !== '' && { User: container.user }),
    ...(container.groups.length > 0 && { Groups: container.groups }),
    ...(container.tty && { TTY: true }),
    ...(container.readOnly && { ReadOnly: true }),
    ...(container.mounts.length > 0 && { Mounts: container.mounts.map(mount) }),
    ...(container.secrets.length > 0 && { Secrets: container.secrets.map((one) => file('Secret', one)) }),
    ...(container.configs.length > 0 && { Configs: container.configs.map((one) => file('Config', one)) }),
    ...(container.stopSignal !== '' && { StopSignal: container.stopSignal }),
    ...(container.stopGracePeriodMs !== undefined && {
      StopGracePeriod: toNanos(container.stopGracePeriodMs),
    }),
    ...(container.healthCheck && { Healthcheck: healthCheck(container.healthCheck) }),
    ...(container.pullPolicy !== 'auto' && { PullPolicy: container.pullPolicy }),
    Isolation: 'default',
  };
}

function healthCheck(check: HealthCheck): object {
  const time = (name: string, ms: number) => (ms > 0 ? { [name]: toNanos(ms) } : {});
  return {
    ...(check.test.length > 0 && { Test: check.test }),
    ...time('Interval', check.intervalMs),
    ...time('Timeout', check.timeoutMs),
    ...time('StartPeriod', check.startPeriodMs),
    ...time('StartInterval', check.startIntervalMs),
    ...(check.retries > 0 && { Retries: check.retries }),
  };
}

/** `kind` is in the names of Docker's fields. */
function file(kind: 'Secret' | 'Config', reference: FileReference): object {
  const { sourceId, sourceName, target, uid, gid, mode, version, signal } = reference;
  return {
    File: { Name: target, UID: String(uid), GID: String(gid), Mode: mode },
    [`${kind}ID`]: sourceId,
    [`${kind}Name`]: sourceName,
    ...(version > 0 && { Version: version }),
    ...(signal !== '' && { Signal: signal }),
  };
}

function mount(item: Mount): object {
  const { tmpfsSizeBytes, tmpfsMode } = item;
  return {
    Type: item.type,
    ...(item.source !== '' && { Source: item.source }),
    Target: item.target,
    ...(item.readOnly && { ReadOnly: true }),
    ...(item.bindPropagation !== '' && { BindOptions: { Propagation: item.bindPropagation } }),
    ...((tmpfsSizeBytes > 0 || tmpfsMode > 0) && {
      TmpfsOptions: {
        ...(tmpfsSizeBytes > 0 && { SizeBytes: tmpfsSizeBytes }),
        ...(tmpfsMode > 0 && { Mode: tmpfsMode }),
      },
    }),
  };
}

function resources({ limits, reservations }: ResourceRequirements): object {
  const limit = {
    ...(limits.cpuNanos > 0 && { NanoCPUs: limits.cpuNanos }),
    ...(limits.memoryBytes > 0 && { MemoryBytes: limits.memoryBytes }),
    ...(limits.pids > 0 && { Pids: limits.pids }),
  };
  const reserved = {
    ...(reservations.cpuNanos > 0 && { NanoCPUs: reservations.cpuNanos }),
    ...(reservations.memoryBytes > 0 && { MemoryBytes: reservations.memoryBytes }),
  };
  return {
    ...(Object.keys(limit).length > 0 && { Limits: limit }),
    ...(Object.keys(reserved).length > 0 && { Reservations: reserved }),
  };
}

function updateConfig(config: UpdateConfig): object {
  return {
    Parallelism: config.parallelism,
    ...(config.delayMs > 0 && { Delay: toNanos(config.delayMs) }),
    FailureAction: config.failureAction,
    Monitor: toNanos(config.monitorMs),
    MaxFailureRatio: config.maxFailureRatio,
    Order: config.order,
  };
}

function attachment({ networkId, aliases, virtualAddresses, options }: NetworkAttachment): object {
  return {
    Target: networkId,
    ...(aliases.length > 0 && { Aliases: aliases }),
    ...(Object.keys(options).length > 0 && { DriverOpts: options }),
    ...(virtualAddresses.length > 0 && { VirtualIPs: virtualAddresses }),
  };
}

/** With the length of its subnet, as Docker writes it. */
function virtualIp({ networkId, address }: VirtualAddress, networks: readonly Network[]): object {
  const subnets = networks.find(({ id }) => id === networkId)?.subnets ?? [];
  const parsed = parseAddress(address);
  const prefix = subnets
    .map(({ subnet }) => parsePrefix(subnet))
    .find((candidate) => candidate !== undefined && parsed !== undefined && contains(candidate, parsed));
  return { NetworkID: networkId, Addr: prefix === undefined ? address : `${address}/${prefix.length}` };
}

function endpointSpec({ endpoint }: ServiceSpec): object {
  const { mode, ports, affinity, weightLabel, drainMs } = endpoint;
  return {
    Mode: mode,
    ...(ports.length > 0 && { Ports: ports.map(port) }),
    ...(affinity !== 'none' && { Affinity: affinity }),
    ...(weightLabel !== '' && { WeightLabel: weightLabel }),
    ...(drainMs > 0 && { DrainTime: toNanos(drainMs) }),
  };
}

function port(item: PortConfig): object {
  return {
    Protocol: item.protocol,
    TargetPort: item.targetPort,
    ...(item.publishedPort > 0 && { PublishedPort: item.publishedPort }),
    PublishMode: item.publishMode,
    ...(item.hostAddress !== '' && { HostAddress: item.hostAddress }),
    ...(item.hostInterface !== '' && { HostInterface: item.hostInterface }),
    ...(item.locality !== 'any' && { Locality: item.locality }),
  };
}

function updateStatus(status: UpdateStatus): object {
  return {
    State: status.state.replaceAll('-', '_'),
    StartedAt: formatTime(status.startedAtMs),
    ...(status.completedAtMs > 0 && { CompletedAt: formatTime(status.completedAtMs) }),
    Message: status.message,
  };
}
