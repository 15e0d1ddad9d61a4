// From flags to the options of a container: the fields that `service-spec.ts` does not care for. Pure.

import {
  type ContainerSpec,
  type DnsConfig,
  emptyDnsConfig,
  emptySecurityOptions,
  type ResourceLimits,
  type SecurityOptions,
} from '../../core/generated/objects.ts';
import type { containerScalarFlags, createContainerFlags, updateContainerFlags } from './container-flags.ts';
import {
  applySecurityWord,
  RESET_CAPABILITIES,
  type SecurityWord,
  withoutHost,
  withoutSecurity,
} from './container-values.ts';
import type { FlagValues } from './flag.ts';
import { mergeLabels } from './labels.ts';

type ScalarFlags = FlagValues<typeof containerScalarFlags>;
/** Contents of the files that --security-opt seccomp= names. */
export type SeccompProfiles = ReadonlyMap<string, string>;

export function newContainerOptions(
  flags: FlagValues<typeof createContainerFlags>,
  profiles: SeccompProfiles,
): Partial<ContainerSpec> {
  const dns: DnsConfig = {
    nameServers: unique(flags.dns),
    search: unique(flags['dns-search']),
    options: unique(flags['dns-option']),
  };
  const security = applyWords(emptySecurityOptions, flags['security-opt'], profiles);
  return {
    annotations: Object.fromEntries(flags.annotation),
    devices: byKey([], [...flags.device, ...flags.gpus.flat()], ({ pathInContainer }) => pathInContainer),
    deviceCgroupRules: unique(flags['device-cgroup-rule']),
    hosts: unique(flags.host),
    sysctls: Object.fromEntries(flags.sysctl),
    ulimits: byKey([], flags.ulimit, ({ name }) => name),
    ...(hasDns(dns) && { dns }),
    ...(flags['security-opt'].length > 0 && { security }),
  };
}

/** The lists of `current` with what was removed and added. */
export function changedContainerOptions(
  current: ContainerSpec,
  flags: FlagValues<typeof updateContainerFlags>,
  profiles: SeccompProfiles,
): ContainerSpec {
  const { dns: oldDns, security: oldSecurity, ...rest } = current;
  const dns = changedDns(oldDns ?? emptyDnsConfig, flags);
  const kept = flags['security-opt-rm'].reduce(withoutSecurity, oldSecurity ?? emptySecurityOptions);
  const security = applyWords(kept, flags['security-opt-add'], profiles);
  const isSaid = oldSecurity !== undefined || flags['security-opt-add'].length > 0;
  const without = <T>(list: readonly T[], removed: readonly string[], keyOf: (item: T) => string) =>
    list.filter((item) => !removed.includes(keyOf(item)));
  const pathOf = ({ pathInContainer }: { pathInContainer: string }) => pathInContainer;
  const nameOf = ({ name }: { name: string }) => name;
  return {
    ...rest,
    annotations: mergeLabels(current.annotations, flags['annotation-rm'], flags['annotation-add']),
    devices: byKey(without(current.devices, flags['device-rm'], pathOf), flags['device-add'], pathOf),
    deviceCgroupRules: changedList(
      current.deviceCgroupRules,
      flags['device-cgroup-rule-rm'],
      flags['device-cgroup-rule-add'],
    ),
    hosts: unique([...flags['host-rm'].reduce(withoutHost, current.hosts), ...flags['host-add']]),
    sysctls: mergeLabels(current.sysctls, flags['sysctl-rm'], flags['sysctl-add']),
    ulimits: byKey(without(current.ulimits, flags['ulimit-rm'], nameOf), flags['ulimit-add'], nameOf),
    ...(hasDns(dns) && { dns }),
    ...(isSaid && hasSecurity(security) && { security }),
  };
}

function changedDns(current: DnsConfig, flags: FlagValues<typeof updateContainerFlags>): DnsConfig {
  return {
    nameServers: changedList(current.nameServers, flags['dns-rm'], flags['dns-add']),
    search: changedList(current.search, flags['dns-search-rm'], flags['dns-search-add']),
    options: changedList(current.options, flags['dns-option-rm'], flags['dns-option-add']),
  };
}

function hasDns({ nameServers, search, options }: DnsConfig): boolean {
  return nameServers.length + search.length + options.length > 0;
}

function hasSecurity({ seLinux, ...rest }: SecurityOptions): boolean {
  return seLinux !== undefined || Object.values(rest).some(Boolean);
}

function applyWords(
  current: SecurityOptions,
  words: readonly SecurityWord[],
  profiles: SeccompProfiles,
): SecurityOptions {
  return words.reduce((options, word) => applySecurityWord(options, word, profiles), current);
}

export function applyContainerOptions(container: ContainerSpec, flags: ScalarFlags): ContainerSpec {
  const init = flags.init ?? container.init;
  return {
    ...container,
    ...changedCapabilities(container, flags['cap-add'], flags['cap-drop']),
    ...(init !== undefined && { init }),
    oomScoreAdj: flags['oom-score-adj'] ?? container.oomScoreAdj,
    cgroupParent: flags['cgroup-parent'] ?? container.cgroupParent,
    cgroupnsMode: flags.cgroupns ?? container.cgroupnsMode,
    ipcMode: flags.ipc ?? container.ipcMode,
    pidMode: flags.pid ?? container.pidMode,
    privileged: flags.privileged ?? container.privileged,
    runtime: flags.runtime ?? container.runtime,
    shmSizeBytes: flags['shm-size'] ?? container.shmSizeBytes,
    usernsMode: flags.userns ?? container.usernsMode,
    utsMode: flags.uts ?? container.utsMode,
  };
}

/** What is added is dropped no longer, and the other way round; adding wins. "ALL" stands for itself alone. */
function changedCapabilities(
  { capabilitiesAdded, capabilitiesDropped }: ContainerSpec,
  add: readonly string[],
  drop: readonly string[],
): Pick<ContainerSpec, 'capabilitiesAdded' | 'capabilitiesDropped'> {
  const isName = (name: string) => name !== RESET_CAPABILITIES;
  const added = add.filter(isName);
  const dropped = drop.filter((name) => isName(name) && !added.includes(name));
  const keptAdded = add.includes(RESET_CAPABILITIES) ? [] : capabilitiesAdded;
  const keptDropped = drop.includes(RESET_CAPABILITIES) ? [] : capabilitiesDropped;
  return {
    capabilitiesAdded: listed([...keptAdded.filter((name) => !dropped.includes(name)), ...added]),
    capabilitiesDropped: listed([...keptDropped.filter((name) => !added.includes(name)), ...dropped]),
  };
}

function listed(names: readonly string[]): string[] {
  return names.includes('ALL') ? ['ALL'] : unique(names).sort();
}

export function applyLimits(limits: ResourceLimits, flags: ScalarFlags): ResourceLimits {
  const { swapBytes: oldSwap, memorySwappiness: oldSwappiness, ...rest } = limits;
  const swapBytes = flags['memory-swap'] ?? oldSwap;
  const swappiness = flags['memory-swappiness'] ?? oldSwappiness ?? -1;
  return {
    ...rest,
    cpusetCpus: flags['cpuset-cpus'] ?? limits.cpusetCpus,
    cpusetMems: flags['cpuset-mems'] ?? limits.cpusetMems,
    cpuShares: flags['cpu-shares'] ?? limits.cpuShares,
    blkioWeight: flags['blkio-weight'] ?? limits.blkioWeight,
    ...(swapBytes !== undefined && { swapBytes }),
    ...(swappiness !== -1 && { memorySwappiness: swappiness }),
  };
}

function changedList(
  current: readonly string[],
  removed: readonly string[],
  added: readonly string[],
): string[] {
  return unique([...current.filter((entry) => !removed.includes(entry)), ...added]);
}

/** A later entry of a key takes the place of an earlier one. */
function byKey<T>(current: readonly T[], added: readonly T[], keyOf: (item: T) => string): T[] {
  return [...new Map([...current, ...added].map((item) => [keyOf(item), item])).values()];
}

function unique(values: readonly string[]): string[] {
  return [...new Set(values)];
}
