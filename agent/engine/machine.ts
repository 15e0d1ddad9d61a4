// What this machine can do: cgroup version, capabilities of this process, limits. Read once at start.

import { existsSync, readdirSync, readFileSync, rmdirSync } from 'node:fs';
import path from 'node:path';

export interface Machine {
  readonly cgroupVersion: '1' | '2';
  /** v1 controllers with an empty unified hierarchy beside them. */
  readonly isHybrid: boolean;
  readonly hasSwapAccounting: boolean;
  readonly hasSysResource: boolean;
  /** Hard limit of open files. */
  readonly openFilesMax: number;
}

const CAP_SYS_RESOURCE = 24n;

/** The hard limit of open files in the text of /proc/<pid>/limits. */
export function parseOpenFilesLimit(text: string): number {
  const hard = /^Max open files\s+\S+\s+(\S+)/m.exec(text)?.[1];
  return hard === undefined || hard === 'unlimited' ? Number.MAX_SAFE_INTEGER : Number(hard);
}

/** True when the effective set in the text of /proc/<pid>/status holds the capability. */
export function hasCapability(text: string, capability: bigint): boolean {
  const effective = /^CapEff:\s+([0-9a-f]+)$/m.exec(text)?.[1] ?? '0';
  return ((BigInt(`0x${effective}`) >> capability) & 1n) === 1n;
}

export function inspectMachine(): Machine {
  const isUnified = existsSync('/sys/fs/cgroup/cgroup.controllers');
  return {
    cgroupVersion: isUnified ? '2' : '1',
    isHybrid: !isUnified && existsSync('/sys/fs/cgroup/unified/cgroup.controllers'),
    hasSwapAccounting: isUnified
      ? existsSync('/proc/swaps')
      : existsSync('/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes'),
    hasSysResource: hasCapability(readFileSync('/proc/self/status', 'utf8'), CAP_SYS_RESOURCE),
    openFilesMax: parseOpenFilesLimit(readFileSync('/proc/self/limits', 'utf8')),
  };
}

/** What an operator should know that this machine lacks. */
export function machineWarnings(machine: Machine): string[] {
  const warnings: string[] = [];
  if (!machine.hasSysResource)
    warnings.push(
      `The daemon lacks CAP_SYS_RESOURCE: containers get at most ${machine.openFilesMax} open files, and cannot be shielded from the OOM killer.`,
    );
  if (!machine.hasSwapAccounting)
    warnings.push('The kernel does not account swap: a memory limit does not limit swap.');
  if (machine.isHybrid)
    warnings.push('This machine has the hybrid cgroup layout: containers use the cgroup v1 hierarchies.');
  return warnings;
}

/** Removes a cgroup that has no processes and no children, in every hierarchy, and its parent with the last child. */
export function removeCgroup(machine: Machine, group: string): void {
  const root = '/sys/fs/cgroup';
  const hierarchies = machine.cgroupVersion === '2' ? [''] : readdirSync(root);
  for (const hierarchy of hierarchies) {
    const directory = path.join(root, hierarchy, group);
    if (existsSync(directory)) rmdirSync(directory);
    const parent = path.dirname(directory);
    const hasChildren = (folder: string) =>
      readdirSync(folder, { withFileTypes: true }).some((entry) => entry.isDirectory());
    if (existsSync(parent) && parent !== path.join(root, hierarchy) && !hasChildren(parent))
      rmdirSync(parent);
  }
}
