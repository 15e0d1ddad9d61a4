// What this machine can do: cgroup version, capabilities of this process, limits. Read once at start.

import { existsSync, readdirSync, readFileSync, rmdirSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { CAPABILITIES } from '../../core/capabilities.ts';
import { isKernelFrom } from '../../core/seccomp-profile.ts';

export interface Machine {
  readonly cgroupVersion: '1' | '2';
  /** v1 controllers with an empty unified hierarchy beside them. */
  readonly isHybrid: boolean;
  readonly hasSwapAccounting: boolean;
  readonly hasSysResource: boolean;
  /** Hard limit of open files. */
  readonly openFilesMax: number;
  readonly hostname: string;
  /** "6.1.0" */
  readonly kernel: string;
  /** Those that this process may pass on. */
  readonly capabilities: readonly string[];
  readonly hasAppArmor: boolean;
  readonly hasSeLinux: boolean;
  readonly hasBlockWeight: boolean;
  /** Where it keeps shared memory and message queues, as far as it has them. */
  readonly ipcPlaces: readonly string[];
  /** Hard limits of this process by ulimit's names; without CAP_SYS_RESOURCE nothing is above them. */
  readonly hardLimits: Readonly<Record<string, number>>;
}

/** Overlay file systems take layers that are mounted with other owners. */
export const OWN_USERS_KERNEL = '5.19';
const CAP_SYS_RESOURCE = 24n;
const LIMIT_NAMES: Readonly<Record<string, string>> = {
  'Max cpu time': 'cpu',
  'Max file size': 'fsize',
  'Max data size': 'data',
  'Max stack size': 'stack',
  'Max core file size': 'core',
  'Max resident set': 'rss',
  'Max processes': 'nproc',
  'Max open files': 'nofile',
  'Max locked memory': 'memlock',
  'Max file locks': 'locks',
  'Max pending signals': 'sigpending',
  'Max msgqueue size': 'msgqueue',
  'Max nice priority': 'nice',
  'Max realtime priority': 'rtprio',
  'Max realtime timeout': 'rttime',
};

/** The hard limit of open files in the text of /proc/<pid>/limits. */
export function parseOpenFilesLimit(text: string): number {
  return parseHardLimits(text)['nofile'] ?? Number.MAX_SAFE_INTEGER;
}

/** The limits in the text of /proc/<pid>/limits that are limits. */
export function parseHardLimits(text: string): Record<string, number> {
  const lines = text.matchAll(/^(Max [a-z ]+?) {2,}\S+ +(\d+) /gm);
  return Object.fromEntries(
    [...lines].map(([, title = '', hard]) => [LIMIT_NAMES[title] ?? title, Number(hard)]),
  );
}

/** True when the effective set in the text of /proc/<pid>/status holds the capability. */
export function hasCapability(text: string, capability: bigint): boolean {
  const effective = /^CapEff:\s+([0-9a-f]+)$/m.exec(text)?.[1] ?? '0';
  return ((BigInt(`0x${effective}`) >> capability) & 1n) === 1n;
}

/** The bounding set in the text of /proc/<pid>/status. */
export function boundingCapabilities(text: string): string[] {
  const bits = BigInt(`0x${/^CapBnd:\s+([0-9a-f]+)$/m.exec(text)?.[1] ?? '0'}`);
  return CAPABILITIES.filter((_, bit) => (bits >> BigInt(bit)) & 1n);
}

export function inspectMachine(): Machine {
  const isUnified = existsSync('/sys/fs/cgroup/cgroup.controllers');
  const status = readFileSync('/proc/self/status', 'utf8');
  const limits = readFileSync('/proc/self/limits', 'utf8');
  const weightFiles = ['blkio.weight', 'blkio.bfq.weight'];
  return {
    cgroupVersion: isUnified ? '2' : '1',
    isHybrid: !isUnified && existsSync('/sys/fs/cgroup/unified/cgroup.controllers'),
    hasSwapAccounting: isUnified
      ? existsSync('/proc/swaps')
      : existsSync('/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes'),
    hasSysResource: hasCapability(status, CAP_SYS_RESOURCE),
    openFilesMax: parseOpenFilesLimit(limits),
    hostname: os.hostname(),
    kernel: os.release(),
    capabilities: boundingCapabilities(status),
    hasAppArmor: existsSync('/sys/kernel/security/apparmor/profiles'),
    hasSeLinux: existsSync('/sys/fs/selinux/enforce'),
    ipcPlaces: ['/dev/mqueue', '/dev/shm'].filter((place) => existsSync(place)),
    hardLimits: parseHardLimits(limits),
    hasBlockWeight: isUnified || weightFiles.some((file) => existsSync(`/sys/fs/cgroup/blkio/${file}`)),
  };
}

/** What an operator should know that this machine lacks. */
export function machineWarnings(
  machine: Pick<Machine, 'hasSwapAccounting' | 'hasSysResource' | 'isHybrid' | 'kernel' | 'openFilesMax'>,
): string[] {
  const warnings: string[] = [];
  if (!machine.hasSysResource)
    warnings.push(
      `The daemon lacks CAP_SYS_RESOURCE: containers get at most ${machine.openFilesMax} open files, and cannot be shielded from the OOM killer.`,
    );
  if (!machine.hasSwapAccounting)
    warnings.push('The kernel does not account swap: a memory limit does not limit swap.');
  if (!isKernelFrom(machine.kernel, OWN_USERS_KERNEL))
    warnings.push(
      `The kernel is older than ${OWN_USERS_KERNEL}: containers cannot have users of their own (userns).`,
    );
  if (machine.isHybrid)
    warnings.push('This machine has the hybrid cgroup layout: containers use the cgroup v1 hierarchies.');
  return warnings;
}

/** Removes a cgroup that has no processes and no children, in every hierarchy, and its parent with the last child. */
export function removeCgroup(machine: Machine, group: string): void {
  for (const hierarchy of hierarchies(machine)) {
    const directory = path.join(hierarchy, group);
    if (existsSync(directory)) rmdirSync(directory);
    const parent = path.dirname(directory);
    if (existsSync(parent) && parent !== hierarchy && childrenOf(parent).length === 0) rmdirSync(parent);
  }
}

/** Removes cgroups of nobody below one: a runtime that was killed leaves them, without processes. */
export function removeOrphanCgroups(
  machine: Machine,
  group: string,
  isKnown: (name: string) => boolean,
): void {
  for (const hierarchy of hierarchies(machine)) {
    const parent = path.join(hierarchy, group);
    const orphans = existsSync(parent) ? childrenOf(parent).filter((name) => !isKnown(name)) : [];
    for (const name of orphans) rmdirSync(path.join(parent, name));
  }
}

function hierarchies({ cgroupVersion }: Machine): string[] {
  const root = '/sys/fs/cgroup';
  return cgroupVersion === '2' ? [root] : readdirSync(root).map((name) => path.join(root, name));
}

function childrenOf(directory: string): string[] {
  return readdirSync(directory, { withFileTypes: true }).flatMap((entry) =>
    entry.isDirectory() ? [entry.name] : [],
  );
}
