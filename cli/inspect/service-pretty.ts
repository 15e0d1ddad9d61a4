// `service inspect --pretty`. Pure.

import type {
  Network,
  ResourceLimits,
  Service,
  ServiceSpec,
  TaskSpec,
  UpdateConfig,
} from '../../core/generated/objects.ts';
import { isJob, type ModeName, modeName } from '../../core/service-mode.ts';
import { formatBinarySize, formatElapsed, formatGoDuration } from '../output/human.ts';
import { portsOfService } from '../output/ports.ts';
import { containerLines } from './container-pretty.ts';

interface Shown {
  readonly service: Service;
  /** Those of the cluster, for their names. */
  readonly networks: readonly Network[];
  /** Who gave it its spec; empty: the managers. */
  readonly updatedBy: string;
}

export function prettyService({ service, networks, updatedBy }: Shown, nowMs: number): string {
  const { spec } = service;
  const lines = [
    '',
    `ID:\t\t${service.id}`,
    `Name:\t\t${spec.name}`,
    ...labelLines('Labels', spec.labels),
    ...modeLines(spec),
    `Updated by:\t${updatedBy || 'the managers'}`,
    ...updateStatusLines(service, nowMs),
    ...placementLines(spec.task),
    ...(isJob(spec.mode) ? [] : updateConfigLines('UpdateConfig', 'Update', spec.update)),
    ...(isJob(spec.mode) ? [] : updateConfigLines('RollbackConfig', 'Rollback', spec.rollback)),
    ...containerLines(spec.task),
    ...resourceLines(spec.task),
    ...networkLines(service, networks),
    ...portLines(service),
  ];
  return `${lines.join('\n')}\n`;
}

const MODE_TITLES: Record<ModeName, string> = {
  replicated: 'Replicated',
  global: 'Global',
  'replicated-job': 'ReplicatedJob',
  'global-job': 'GlobalJob',
};

function modeLines({ mode, stopped }: ServiceSpec): string[] {
  const { replicated, replicatedJob } = mode;
  const suffix = stopped ? ' (stopped)' : '';
  const title = MODE_TITLES[modeName(mode)];
  if (replicated !== undefined)
    return [`Service Mode:\t${title}`, ` Replicas:\t${replicated.replicas}${suffix}`];
  if (replicatedJob === undefined) return [`Service Mode:\t${title}${suffix}`];
  const { totalCompletions, maxConcurrent } = replicatedJob;
  return [
    `Service Mode:\t${title}${suffix}`,
    ` Max Concurrent:\t${maxConcurrent || totalCompletions}`,
    ` Total Completions:\t${totalCompletions}`,
  ];
}

function updateStatusLines({ updateStatus }: Service, nowMs: number): string[] {
  if (updateStatus === undefined) return [];
  const { state, startedAtMs, completedAtMs, message } = updateStatus;
  return [
    'UpdateStatus:',
    ` State:\t\t${state.replaceAll('-', '_')}`,
    ` Started:\t${formatElapsed(nowMs - startedAtMs)} ago`,
    ...(completedAtMs > 0 ? [` Completed:\t${formatElapsed(nowMs - completedAtMs)} ago`] : []),
    ` Message:\t${message}`,
  ];
}

function placementLines({ placement }: TaskSpec): string[] {
  const lines: string[] = [];
  if (placement.constraints.length > 0) lines.push(` Constraints:\t[${placement.constraints.join(' ')}]`);
  if (placement.preferences.length > 0) lines.push(` Preferences:\t[${placement.preferences.join(' ')}]`);
  if (placement.affinities.length > 0) lines.push(` Affinities:\t[${placement.affinities.join(' ')}]`);
  if (placement.strategy !== 'spread') lines.push(` Strategy:\t${placement.strategy}`);
  if (placement.rebalance) lines.push(' Rebalance:\ttrue');
  if (placement.maxReplicasPerNode > 0)
    lines.push(` Max Replicas Per Node:\t${placement.maxReplicasPerNode}`);
  return ['Placement:', ...lines];
}

function updateConfigLines(title: string, verb: string, config: UpdateConfig): string[] {
  return [
    `${title}:`,
    ` Parallelism:\t${config.parallelism}`,
    ...(config.delayMs > 0 ? [` Delay:\t\t${formatGoDuration(config.delayMs)}`] : []),
    ` On failure:\t${config.failureAction}`,
    ` Monitoring Period: ${formatGoDuration(config.monitorMs)}`,
    ` Max failure ratio: ${config.maxFailureRatio}`,
    ...(config.deadlineMs > 0 ? [` Deadline:\t${formatGoDuration(config.deadlineMs)}`] : []),
    ` ${verb} order:      ${config.order}`,
  ];
}

function resourceLines({ resources: { limits, reservations } }: TaskSpec): string[] {
  const lines = (cpuNanos: number, memoryBytes: number) => [
    ...(cpuNanos > 0 ? [` CPU:\t\t${cpuNanos / 1e9}`] : []),
    ...(memoryBytes > 0 ? [` Memory:\t${formatBinarySize(memoryBytes)}`] : []),
  ];
  const reserved = lines(reservations.cpuNanos, reservations.memoryBytes);
  const limited = lines(limits.cpuNanos, limits.memoryBytes);
  if (limits.pids > 0) limited.push(` Pids:\t\t${limits.pids}`);
  limited.push(...weightLines(limits));
  return [
    'Resources:',
    ...(reserved.length > 0 ? ['Reservations:', ...reserved] : []),
    ...(limited.length > 0 ? ['Limits:', ...limited] : []),
  ];
}

function weightLines(limits: ResourceLimits): string[] {
  const { swapBytes, memorySwappiness, cpusetCpus, cpusetMems, cpuShares, blkioWeight } = limits;
  const swap = swapBytes === undefined ? '' : swapBytes < 0 ? 'unlimited' : formatBinarySize(swapBytes);
  const lines: [title: string, value: string | number][] = [
    ['Swap', swap],
    ['Swappiness', memorySwappiness ?? ''],
    ['Cpuset', cpusetCpus],
    ['Memory nodes', cpusetMems],
    ['CPU shares', cpuShares || ''],
    ['Block IO weight', blkioWeight || ''],
  ];
  return lines.filter(([, value]) => value !== '').map(([title, value]) => ` ${title}:\t${value}`);
}

function networkLines({ spec, virtualAddresses }: Service, networks: readonly Network[]): string[] {
  const nameOf = (id: string) => networks.find((network) => network.id === id)?.spec.name ?? id;
  const names = spec.task.networks.map(({ networkId }) => nameOf(networkId));
  return [
    ...(names.length === 0 ? [] : [`Networks:\t${names.join(' ')}`]),
    ...virtualAddresses.map(({ networkId, address }) => ` ${nameOf(networkId)}: ${address}`),
  ];
}

function portLines(service: Service): string[] {
  const { mode, affinity, weightLabel, drainMs } = service.spec.endpoint;
  const ports = portsOfService(service);
  return [
    `Endpoint Mode:\t${mode}`,
    ...(affinity === 'none' ? [] : [`Affinity:\t${affinity}`]),
    ...(weightLabel === '' ? [] : [`Weight Label:\t${weightLabel}`]),
    ...(drainMs === 0 ? [] : [`Drain Time:\t${formatGoDuration(drainMs)}`]),
    ...(ports.length === 0 ? [] : ['Ports:']),
    ...ports.flatMap((port) => [
      ...(port.publishedPort > 0 ? [` PublishedPort = ${port.publishedPort}`] : []),
      `  Protocol = ${port.protocol}`,
      `  TargetPort = ${port.targetPort}`,
      `  PublishMode = ${port.publishMode}`,
      ...(port.hostAddress === '' ? [] : [`  HostAddress = ${port.hostAddress}`]),
      ...(port.hostInterface === '' ? [] : [`  HostInterface = ${port.hostInterface}`]),
      ...(port.locality === 'any' ? [] : [`  Locality = ${port.locality}`]),
    ]),
  ];
}

function labelLines(title: string, labels: Readonly<Record<string, string>>): string[] {
  const entries = Object.entries(labels).sort(([a], [b]) => (a < b ? -1 : 1));
  return entries.length === 0 ? [] : [`${title}:`, ...entries.map(([key, value]) => ` ${key}=${value}`)];
}
