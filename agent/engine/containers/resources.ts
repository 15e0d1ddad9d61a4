// The cgroup's part of a specification: limits, weights, and which devices may be opened. Pure.

import type { ResourceLimits } from '../../../core/generated/objects.ts';
import { DEVICE_RULE } from '../../../core/validate-options.ts';
import type { Machine } from '../machine.ts';
import type { DeviceRule, HostDevice } from './devices.ts';

const CPU_PERIOD_MICROS = 100_000;
// The kernel refuses a quota below 1 ms.
const CPU_QUOTA_MICROS_MIN = 1000;
const CPU_SHARES_DEFAULT = 1024;
// Where crun writes -1 so that the kernel refuses it: more processes than there are numbers for, and the longest quota that the
// kernel takes (MAX_BW of kernel/sched/sched.h).
const PIDS_MAX = 4_194_304;
const CPU_QUOTA_MICROS_MAX = 2 ** 44 - 1;

interface ResourcesInput {
  readonly limits: ResourceLimits;
  readonly reservedMemoryBytes: number;
  readonly hostDevices: readonly HostDevice[];
  readonly deviceCgroupRules: readonly string[];
  readonly privileged: boolean;
  readonly machine: Machine;
}

export function composeResources(input: ResourcesInput): Record<string, unknown> {
  const { pids, blkioWeight } = input.limits;
  const memory = memoryLimits(input);
  const cpu = cpuLimits(input.limits);
  return {
    devices: deviceRules(input),
    ...(Object.keys(memory).length > 0 && { memory }),
    ...(Object.keys(cpu).length > 0 && { cpu }),
    ...(pids > 0 && { pids: { limit: pids } }),
    ...(blkioWeight > 0 && { blockIO: { weight: blkioWeight } }),
  };
}

/**
 * For a container that runs: what is not limited any more has to be said. The rest of the limits is for new containers
 * only.
 */
export function changedResources(
  input: Pick<ResourcesInput, 'limits' | 'reservedMemoryBytes' | 'machine'>,
): Record<string, unknown> {
  const { cpuNanos, cpuShares, memoryBytes, pids } = input.limits;
  const { limits, reservedMemoryBytes, machine } = input;
  const hasSwap = machine.hasSwapAccounting;
  const unlimited = { limit: -1, ...(hasSwap && { swap: -1 }) };
  const quotaMax = machine.cgroupVersion === '1' ? CPU_QUOTA_MICROS_MAX : -1;
  const memory = memoryLimits({
    limits: { ...limits, memorySwappiness: undefined },
    reservedMemoryBytes,
    machine,
  });
  return {
    memory: {
      ...(memoryBytes > 0 ? memory : unlimited),
      reservation: reservedMemoryBytes > 0 ? reservedMemoryBytes : -1,
      // Where the kernel would end processes instead of refusing.
      checkBeforeUpdate: true,
    },
    cpu: {
      period: CPU_PERIOD_MICROS,
      ...(cpuNanos > 0 ? cpuLimits({ ...limits, cpusetCpus: '', cpusetMems: '' }) : { quota: quotaMax }),
      shares: cpuShares > 0 ? cpuShares : CPU_SHARES_DEFAULT,
    },
    pids: { limit: pids > 0 ? pids : PIDS_MAX },
  };
}

type MemoryInput = Pick<ResourcesInput, 'reservedMemoryBytes' | 'machine'> & {
  readonly limits: Omit<ResourceLimits, 'memorySwappiness'> & {
    readonly memorySwappiness?: number | undefined;
  };
};

function memoryLimits({ limits, reservedMemoryBytes, machine }: MemoryInput): object {
  // Docker gives as much swap as memory.
  const { memoryBytes, swapBytes = memoryBytes, memorySwappiness } = limits;
  const hasSwapLimit = memoryBytes > 0 && machine.hasSwapAccounting;
  return {
    ...(memoryBytes > 0 && { limit: memoryBytes }),
    ...(hasSwapLimit && { swap: swapBytes < 0 ? -1 : memoryBytes + swapBytes }),
    ...(reservedMemoryBytes > 0 && { reservation: reservedMemoryBytes }),
    ...(memorySwappiness !== undefined && { swappiness: memorySwappiness }),
  };
}

function cpuLimits({ cpuNanos, cpuShares, cpusetCpus, cpusetMems }: ResourceLimits): object {
  const quota = Math.max(Math.round((cpuNanos * CPU_PERIOD_MICROS) / 1e9), CPU_QUOTA_MICROS_MIN);
  return {
    ...(cpuNanos > 0 && { period: CPU_PERIOD_MICROS, quota }),
    ...(cpuShares > 0 && { shares: cpuShares }),
    ...(cpusetCpus !== '' && { cpus: cpusetCpus }),
    ...(cpusetMems !== '' && { mems: cpusetMems }),
  };
}

// null, zero, full, random, urandom, tty, ptmx, pts; nodes of any kind may be made, but not opened.
const DEVICES: readonly (readonly [major: number, minor?: number])[] = [
  [1, 3],
  [1, 5],
  [1, 7],
  [1, 8],
  [1, 9],
  [5, 0],
  [5, 2],
  [136],
];

function deviceRules({ privileged, hostDevices, deviceCgroupRules }: ResourcesInput): DeviceRule[] {
  if (privileged) return [{ allow: true, access: 'rwm' }];
  return [
    { allow: false, access: 'rwm' },
    { allow: true, type: 'c', access: 'm' },
    { allow: true, type: 'b', access: 'm' },
    ...DEVICES.map(([major, minor]) => ({
      allow: true,
      type: 'c',
      major,
      ...(minor === undefined ? undefined : { minor }),
      access: 'rwm',
    })),
    ...hostDevices.map(({ rule }) => rule),
    ...deviceCgroupRules.map(parseDeviceRule),
  ];
}

function parseDeviceRule(text: string): DeviceRule {
  const [, type = '', major = '', minor = '', access = ''] = DEVICE_RULE.exec(text) ?? [];
  return {
    allow: true,
    ...(type !== 'a' && { type }),
    ...(major !== '*' && { major: Number(major) }),
    ...(minor !== '*' && { minor: Number(minor) }),
    access,
  };
}
