// A service in Docker's field names, as JSON. Pure.

import { defaultUpdateConfig } from '../../core/defaults.ts';
import type {
  GenericResource,
  Network,
  NetworkAttachment,
  PortConfig,
  ResourceRequirements,
  Service,
  ServiceMode,
  ServiceSpec,
  TaskSpec,
  UpdateConfig,
  UpdateStatus,
  VirtualAddress,
} from '../../core/generated/objects.ts';
import { contains, parseAddress, parsePrefix } from '../../core/ip-address.ts';
import { parsePlacementPreference } from '../../core/placement-preference.ts';
import { isJob } from '../../core/service-mode.ts';
import { portsOfService } from '../output/ports.ts';
import { containerSpec } from './container-shape.ts';
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
    ...(isJob(service.spec.mode) && { JobStatus: { JobIteration: { Index: service.specVersion } } }),
    ...(service.updateStatus && { UpdateStatus: updateStatus(service.updateStatus) }),
  };
}

function toDockerSpec(spec: ServiceSpec): object {
  return {
    Name: spec.name,
    Labels: spec.labels,
    TaskTemplate: taskTemplate(spec.task),
    ...(spec.stopped && { Stopped: true }),
    Mode: mode(spec.mode),
    ...(!isJob(spec.mode) && {
      UpdateConfig: updateConfig(spec.update),
      RollbackConfig: updateConfig(spec.rollback),
    }),
    EndpointSpec: endpointSpec(spec),
  };
}

function mode({ replicated, replicatedJob, global }: ServiceMode): object {
  if (replicated !== undefined) return { Replicated: { Replicas: replicated.replicas } };
  if (replicatedJob !== undefined) {
    const { totalCompletions, maxConcurrent } = replicatedJob;
    return {
      ReplicatedJob: { MaxConcurrent: maxConcurrent || totalCompletions, TotalCompletions: totalCompletions },
    };
  }
  return global !== undefined ? { Global: {} } : { GlobalJob: {} };
}

/** What the tasks of a service are made from. */
export function taskTemplate(task: TaskSpec): object {
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
      ...(placement.preferences.length > 0 && {
        Preferences: placement.preferences.map((text) => ({
          Spread: { SpreadDescriptor: parsePlacementPreference(text).key },
        })),
      }),
      ...(placement.affinities.length > 0 && { Affinities: placement.affinities }),
      ...(placement.strategy !== 'spread' && { Strategy: placement.strategy }),
      ...(placement.rebalance && { Rebalance: true }),
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

/** Docker has a list in which each name is an entry of its own. */
export function genericShape({ kind, count, names }: GenericResource): object[] {
  if (names.length === 0) return [{ DiscreteResourceSpec: { Kind: kind, Value: count } }];
  return names.map((name) => ({ NamedResourceSpec: { Kind: kind, Value: name } }));
}

function resources({ limits, reservations, generic }: ResourceRequirements): object {
  const limit = {
    ...(limits.cpuNanos > 0 && { NanoCPUs: limits.cpuNanos }),
    ...(limits.memoryBytes > 0 && { MemoryBytes: limits.memoryBytes }),
    ...(limits.pids > 0 && { Pids: limits.pids }),
    // From here on named as in the configuration of a container of Docker, whose services have none of it.
    ...(limits.cpuShares > 0 && { CpuShares: limits.cpuShares }),
    ...(limits.cpusetCpus !== '' && { CpusetCpus: limits.cpusetCpus }),
    ...(limits.cpusetMems !== '' && { CpusetMems: limits.cpusetMems }),
    ...(limits.blkioWeight > 0 && { BlkioWeight: limits.blkioWeight }),
  };
  const reserved = {
    ...(reservations.cpuNanos > 0 && { NanoCPUs: reservations.cpuNanos }),
    ...(reservations.memoryBytes > 0 && { MemoryBytes: reservations.memoryBytes }),
    ...(generic.length > 0 && { GenericResources: generic.flatMap(genericShape) }),
  };
  return {
    ...(Object.keys(limit).length > 0 && { Limits: limit }),
    ...(Object.keys(reserved).length > 0 && { Reservations: reserved }),
    ...(limits.swapBytes !== undefined && { SwapBytes: limits.swapBytes }),
    ...(limits.memorySwappiness !== undefined && { MemorySwappiness: limits.memorySwappiness }),
  };
}

function updateConfig(config: UpdateConfig): object {
  return {
    Parallelism: config.parallelism,
    ...(config.delayMs > 0 && { Delay: toNanos(config.delayMs) }),
    FailureAction: config.failureAction,
    Monitor: toNanos(config.monitorMs),
    MaxFailureRatio: config.maxFailureRatio,
    ...(config.deadlineMs !== defaultUpdateConfig.deadlineMs && { Deadline: toNanos(config.deadlineMs) }),
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
    ...(status.noProgressSinceMs !== undefined && { NoProgressSince: formatTime(status.noProgressSinceMs) }),
  };
}
