// From flags to a ServiceSpec: a new one for `service create`, a changed one for `service update`. Pure; the caller
// reads files and hands in the environment.

import path from 'node:path';
import { newServiceSpec } from '../../core/defaults.ts';
import { invalidField, messageOf } from '../../core/errors.ts';
import type {
  ContainerSpec,
  EndpointSpec,
  GenericResource,
  LogDriver,
  Mount,
  NetworkAttachment,
  PortConfig,
  ServiceMode,
  ServiceSpec,
  TaskSpec,
  UpdateConfig,
} from '../../core/generated/objects.ts';
import { parseImageReference } from '../../core/image-reference.ts';
import { isJob } from '../../core/service-mode.ts';
import {
  applyContainerOptions,
  applyLimits,
  changedContainerOptions,
  newContainerOptions,
  type SeccompProfiles,
} from './container-options.ts';
import { readEnv, readEnvFile } from './environment.ts';
import { mergeFiles } from './files.ts';
import type { FlagValues } from './flag.ts';
import { mergeHealthCheck } from './health-check.ts';
import { mergeLabels } from './labels.ts';
import type { createFlags, updateFlags } from './service-flags.ts';
import { changedMode, newMode } from './service-mode.ts';
import { splitKeyValue } from './words.ts';

export type CreateFlags = FlagValues<typeof createFlags>;
export type UpdateFlags = FlagValues<typeof updateFlags>;

export interface SpecSource {
  readonly environment: Readonly<Record<string, string | undefined>>;
  /** Relative bind sources start here. */
  readonly workdir: string;
  readonly seccompProfiles: SeccompProfiles;
}

export interface CreateInput extends SpecSource {
  readonly name: string;
  readonly image: string;
  readonly args: readonly string[];
  /** Lines of all --env-file, in order. */
  readonly envFileLines: readonly string[];
}

export function newSpec(flags: CreateFlags, input: CreateInput): ServiceSpec {
  const base = newServiceSpec(input.name, { image: familiarImage(input.image), args: [...input.args] });
  const spec = withMode(base, newMode(flags.mode ?? 'replicated', flags));
  const { task } = spec;
  const withLists: ServiceSpec = {
    ...spec,
    labels: Object.fromEntries(flags.label),
    task: {
      ...task,
      container: {
        ...task.container,
        groups: unique(flags.group),
        env: mergeEnv([], readEnv([...readEnvFile(input.envFileLines), ...flags.env], input.environment)),
        labels: Object.fromEntries(flags['container-label']),
        mounts: [...absoluteMounts(flags.mount, input.workdir), ...flags.tmpfs],
        ...newContainerOptions(flags, input.seccompProfiles),
        secrets: flags.secret,
        configs: flags.config,
      },
      placement: {
        ...task.placement,
        constraints: unique(flags.constraint),
        preferences: unique(flags['placement-pref']),
        affinities: unique(flags['placement-affinity']),
      },
      resources: { ...task.resources, generic: flags['generic-resource'] },
      networks: flags.network,
    },
    endpoint: { ...spec.endpoint, ports: flags.publish.flat() },
  };
  return applyScalars(withLists, flags);
}

/** A job that says nothing of restarts tries again until it has completed. */
function withMode(spec: ServiceSpec, mode: ServiceMode): ServiceSpec {
  if (!isJob(mode)) return { ...spec, mode };
  return {
    ...spec,
    mode,
    task: { ...spec.task, restart: { ...spec.task.restart, condition: 'on-failure' } },
  };
}

export interface UpdateInput extends SpecSource {
  /** Ids of the networks that flags name. */
  readonly networkIds: ReadonlyMap<string, string>;
}

/** `current` with the changes asked for; what no flag names stays as it is. */
export function changedSpec(current: ServiceSpec, flags: UpdateFlags, source: UpdateInput): ServiceSpec {
  const { task } = current;
  const { container } = task;
  const changed: ServiceSpec = {
    ...current,
    labels: mergeLabels(current.labels, flags['label-rm'], flags['label-add']),
    task: {
      ...task,
      container: {
        ...changedContainerOptions(container, flags, source.seccompProfiles),
        ...(flags.image !== undefined && { image: familiarImage(flags.image) }),
        ...(flags.args !== undefined && { args: flags.args }),
        groups: mergeList(container.groups, flags['group-rm'], flags['group-add']),
        env: mergeEnv(
          container.env.filter((entry) => !flags['env-rm'].includes(splitKeyValue(entry).key)),
          readEnv(flags['env-add'], source.environment),
        ),
        labels: mergeLabels(container.labels, flags['container-label-rm'], flags['container-label-add']),
        mounts: mergeMounts(
          container.mounts,
          [...flags['mount-rm'], ...flags['tmpfs-rm']],
          [...absoluteMounts(flags['mount-add'], source.workdir), ...flags['tmpfs-add']],
        ),
        secrets: mergeFiles('secret', container.secrets, flags['secret-rm'], flags['secret-add']),
        configs: mergeFiles('config', container.configs, flags['config-rm'], flags['config-add']),
      },
      placement: {
        ...task.placement,
        ...(flags.image !== undefined && { platforms: [] }),
        constraints: mergeList(task.placement.constraints, flags['constraint-rm'], flags['constraint-add']),
        preferences: mergeList(
          task.placement.preferences,
          flags['placement-pref-rm'],
          flags['placement-pref-add'],
        ),
        affinities: mergeList(
          task.placement.affinities,
          flags['placement-affinity-rm'],
          flags['placement-affinity-add'],
        ),
      },
      resources: {
        ...task.resources,
        generic: mergeGeneric(
          task.resources.generic,
          flags['generic-resource-rm'],
          flags['generic-resource-add'],
        ),
      },
      forceUpdate: task.forceUpdate + (flags.force ? 1 : 0),
      networks: mergeNetworks(task.networks, flags['network-rm'], flags['network-add'], source.networkIds),
    },
    endpoint: {
      ...current.endpoint,
      ports: mergePorts(current.endpoint.ports, flags['publish-rm'], flags['publish-add'].flat()),
    },
  };
  return applyScalars(changed, flags);
}

function mergeGeneric(
  current: readonly GenericResource[],
  removed: readonly string[],
  added: readonly GenericResource[],
): GenericResource[] {
  const gone = new Set([...removed, ...added.map(({ kind }) => kind)]);
  return [...current.filter(({ kind }) => !gone.has(kind)), ...added];
}

/** The name as people write it, with its tag: "nginx" is "nginx:latest". */
export function familiarImage(image: string): string {
  try {
    return parseImageReference(image).familiar;
  } catch (error) {
    throw invalidField('image', messageOf(error));
  }
}

type ScalarFlags = { readonly [K in keyof CreateFlags & keyof UpdateFlags]: CreateFlags[K] };

function applyScalars(spec: ServiceSpec, flags: ScalarFlags): ServiceSpec {
  return {
    ...spec,
    mode: changedMode(spec.mode, flags),
    task: applyTaskScalars(spec.task, flags),
    endpoint: applyEndpointScalars(spec.endpoint, flags),
    update: applyUpdateConfig(spec.update, {
      parallelism: flags['update-parallelism'],
      delayMs: flags['update-delay'],
      order: flags['update-order'],
      monitorMs: flags['update-monitor'],
      failureAction: flags['update-failure-action'],
      maxFailureRatio: flags['update-max-failure-ratio'],
      deadlineMs: flags['update-deadline'],
    }),
    rollback: applyUpdateConfig(spec.rollback, {
      parallelism: flags['rollback-parallelism'],
      delayMs: flags['rollback-delay'],
      order: flags['rollback-order'],
      monitorMs: flags['rollback-monitor'],
      failureAction: flags['rollback-failure-action'],
      maxFailureRatio: flags['rollback-max-failure-ratio'],
      deadlineMs: flags['rollback-deadline'],
    }),
  };
}

function applyTaskScalars(task: TaskSpec, flags: ScalarFlags): TaskSpec {
  const { limits, reservations } = task.resources;
  const { restart } = task;
  const logDriver = mergeLogDriver(task.logDriver, flags['log-driver'], flags['log-opt']);
  return {
    ...task,
    container: applyContainerScalars(task.container, flags),
    resources: {
      limits: {
        ...applyLimits(limits, flags),
        cpuNanos: flags['limit-cpu'] ?? limits.cpuNanos,
        memoryBytes: flags['limit-memory'] ?? limits.memoryBytes,
        pids: flags['limit-pids'] ?? limits.pids,
      },
      reservations: {
        cpuNanos: flags['reserve-cpu'] ?? reservations.cpuNanos,
        memoryBytes: flags['reserve-memory'] ?? reservations.memoryBytes,
      },
      generic: task.resources.generic,
    },
    restart: {
      condition: flags['restart-condition'] ?? restart.condition,
      delayMs: flags['restart-delay'] ?? restart.delayMs,
      maxAttempts: flags['restart-max-attempts'] ?? restart.maxAttempts,
      windowMs: flags['restart-window'] ?? restart.windowMs,
    },
    placement: {
      ...task.placement,
      maxReplicasPerNode: flags['replicas-max-per-node'] ?? task.placement.maxReplicasPerNode,
      strategy: flags['placement-strategy'] ?? task.placement.strategy,
      ...(flags.rebalance !== undefined && { rebalance: flags.rebalance }),
    },
    ...(logDriver && { logDriver }),
  };
}

function applyEndpointScalars(endpoint: EndpointSpec, flags: ScalarFlags): EndpointSpec {
  return {
    ...endpoint,
    mode: flags['endpoint-mode'] ?? endpoint.mode,
    affinity: flags.affinity ?? endpoint.affinity,
    weightLabel: flags['weight-label'] ?? endpoint.weightLabel,
    drainMs: flags['drain-time'] ?? endpoint.drainMs,
  };
}

function applyContainerScalars(container: ContainerSpec, flags: ScalarFlags): ContainerSpec {
  const stopGracePeriodMs = flags['stop-grace-period'] ?? container.stopGracePeriodMs;
  const { healthCheck: current, ...rest } = applyContainerOptions(container, flags);
  const healthCheck = mergeHealthCheck(current, flags);
  return {
    ...rest,
    command: flags.entrypoint ?? container.command,
    workdir: flags.workdir ?? container.workdir,
    user: flags.user ?? container.user,
    hostname: flags.hostname ?? container.hostname,
    stopSignal: flags['stop-signal'] ?? container.stopSignal,
    ...(stopGracePeriodMs !== undefined && { stopGracePeriodMs }),
    readOnly: flags['read-only'] ?? container.readOnly,
    tty: flags.tty ?? container.tty,
    openStdin: flags.interactive ?? container.openStdin,
    pullPolicy: flags.pull ?? container.pullPolicy,
    ...(healthCheck && { healthCheck }),
  };
}

type UpdateConfigChange = { readonly [K in keyof UpdateConfig]: UpdateConfig[K] | undefined };

function applyUpdateConfig(config: UpdateConfig, change: UpdateConfigChange): UpdateConfig {
  const given = Object.entries(change).filter(([, value]) => value !== undefined);
  return { ...config, ...Object.fromEntries(given) };
}

/** New options replace all old ones, as in Docker; options alone are for the driver that is there. */
function mergeLogDriver(
  current: LogDriver | undefined,
  name: string | undefined,
  options: readonly (readonly [string, string])[],
): LogDriver | undefined {
  if (name === undefined && options.length === 0) return current;
  return { name: name ?? current?.name ?? 'json-file', options: Object.fromEntries(options) };
}

/** Later entries replace earlier ones of the same name and keep their place. */
function mergeEnv(current: readonly string[], added: readonly string[]): string[] {
  const byName = new Map(current.map((entry) => [splitKeyValue(entry).key, entry]));
  for (const entry of added) byName.set(splitKeyValue(entry).key, entry);
  return [...byName.values()];
}

function mergeList(
  current: readonly string[],
  removed: readonly string[],
  added: readonly string[],
): string[] {
  return unique([...current.filter((entry) => !removed.includes(entry)), ...added]);
}

function mergeMounts(
  current: readonly Mount[],
  removed: readonly string[],
  added: readonly Mount[],
): Mount[] {
  const byTarget = new Map(current.map((mount) => [mount.target, mount]));
  for (const target of removed) byTarget.delete(target);
  for (const mount of added) byTarget.set(mount.target, mount);
  return [...byTarget.values()];
}

/** A network added again takes the place of what was said of it before. */
function mergeNetworks(
  current: readonly NetworkAttachment[],
  removed: readonly string[],
  added: readonly NetworkAttachment[],
  ids: ReadonlyMap<string, string>,
): NetworkAttachment[] {
  const idOf = (name: string) => ids.get(name) ?? name;
  const byId = new Map(current.map((attachment) => [attachment.networkId, attachment]));
  for (const name of removed) byId.delete(idOf(name));
  for (const attachment of added) {
    const networkId = idOf(attachment.networkId);
    byId.set(networkId, { ...attachment, networkId });
  }
  return [...byId.values()];
}

type PortKey = Pick<PortConfig, 'targetPort' | 'protocol'>;

/** A port added for a target that is published already in the same mode and place takes its place. */
function mergePorts(
  current: readonly PortConfig[],
  removed: readonly PortKey[],
  added: readonly PortConfig[],
): PortConfig[] {
  const isSameTarget = (a: PortKey, b: PortKey) => a.targetPort === b.targetPort && a.protocol === b.protocol;
  const kept = current.filter(
    (port) =>
      !removed.some((other) => isSameTarget(port, other)) &&
      !added.some((other) => isSameTarget(port, other) && isSamePlace(port, other)),
  );
  return [...kept, ...added];
}

function isSamePlace(a: PortConfig, b: PortConfig): boolean {
  return (
    a.publishMode === b.publishMode && a.hostAddress === b.hostAddress && a.hostInterface === b.hostInterface
  );
}

function absoluteMounts(mounts: readonly Mount[], workdir: string): Mount[] {
  return mounts.map((mount) =>
    mount.type === 'bind' && /^\.\.?(\/|$)/.test(mount.source)
      ? { ...mount, source: path.resolve(workdir, mount.source) }
      : mount,
  );
}

function unique(values: readonly string[]): string[] {
  return [...new Set(values)];
}
