// What holds a container back: capabilities, system calls, hidden paths, AppArmor and SELinux. Docker's defaults, and what
// the container's configuration changes. Pure.

import { effectiveCapabilities } from '../../../core/capabilities.ts';
import type { SeLinuxLabel } from '../../../core/generated/objects.ts';
import { parseSeccompProfile, resolveProfile } from '../../../core/seccomp-profile.ts';
import type { ContainerOptions } from '../engine.ts';
import type { Machine } from '../machine.ts';
import { hasSameSeccompProfile, seccompProfile } from './seccomp.ts';

/** Docker's default set. */
export const DEFAULT_CAPABILITIES: readonly string[] = [
  'CAP_CHOWN',
  'CAP_DAC_OVERRIDE',
  'CAP_FSETID',
  'CAP_FOWNER',
  'CAP_MKNOD',
  'CAP_NET_RAW',
  'CAP_SETGID',
  'CAP_SETUID',
  'CAP_SETFCAP',
  'CAP_SETPCAP',
  'CAP_NET_BIND_SERVICE',
  'CAP_SYS_CHROOT',
  'CAP_KILL',
  'CAP_AUDIT_WRITE',
];

const MASKED_PATHS: readonly string[] = [
  '/proc/asound',
  '/proc/acpi',
  '/proc/kcore',
  '/proc/keys',
  '/proc/latency_stats',
  '/proc/timer_list',
  '/proc/timer_stats',
  '/proc/sched_debug',
  '/proc/scsi',
  '/sys/firmware',
  '/sys/devices/virtual/powercap',
];

const READ_ONLY_PATHS: readonly string[] = [
  '/proc/bus',
  '/proc/fs',
  '/proc/irq',
  '/proc/sys',
  '/proc/sysrq-trigger',
];

// As in Go.
const ARCHITECTURES: Readonly<Record<string, string>> = { x64: 'amd64' };

type SecurityInput = Pick<
  ContainerOptions,
  'capabilitiesAdded' | 'capabilitiesDropped' | 'privileged' | 'security'
>;

export interface ComposedSecurity {
  readonly capabilities: readonly string[];
  /** What belongs to the specification's process and to its Linux part. */
  readonly process: object;
  readonly linux: object;
  /** The profile is the one that crun has compiled beforehand. */
  readonly isDefaultSeccomp: boolean;
}

export function composeSecurity(input: SecurityInput, machine: Machine): ComposedSecurity {
  const { privileged, security } = input;
  const capabilities = capabilitiesOf(input, machine);
  const chosen = security?.seccomp ?? '';
  const isUnconfined = chosen === 'unconfined' || (privileged && chosen === '');
  const seccomp = isUnconfined ? undefined : profileOf(chosen, capabilities, machine);
  const isOpen = privileged || (security?.systemPathsUnconfined ?? false);
  const appArmor = security?.appArmor ?? '';
  const label = security?.seLinux;
  const hasLabel = label !== undefined && !label.disabled;
  return {
    capabilities,
    process: {
      ...(appArmor !== '' && machine.hasAppArmor && { apparmorProfile: appArmor }),
      ...(hasLabel && { selinuxLabel: labelText(label) }),
    },
    linux: {
      maskedPaths: isOpen ? [] : MASKED_PATHS,
      readonlyPaths: isOpen ? [] : READ_ONLY_PATHS,
      ...(seccomp && { seccomp }),
      ...(hasLabel && { mountLabel: fileLabelText(label) }),
    },
    isDefaultSeccomp:
      !isUnconfined && chosen === '' && hasSameSeccompProfile(capabilities, DEFAULT_CAPABILITIES),
  };
}

function capabilitiesOf(input: SecurityInput, machine: Machine): readonly string[] {
  if (input.privileged) return machine.capabilities;
  const change = { added: input.capabilitiesAdded, dropped: input.capabilitiesDropped };
  return effectiveCapabilities(change, DEFAULT_CAPABILITIES, machine.capabilities);
}

function profileOf(text: string, capabilities: readonly string[], machine: Machine): object | undefined {
  if (text === '') return seccompProfile(capabilities, process.arch);
  const architecture = ARCHITECTURES[process.arch] ?? process.arch;
  return resolveProfile(parseSeccompProfile(text), { capabilities, architecture, kernel: machine.kernel });
}

function labelText({ user, role, type, level }: SeLinuxLabel): string {
  return [user || 'system_u', role || 'system_r', type || 'container_t', level || 's0'].join(':');
}

/** Of the files that the container is to have for itself. */
function fileLabelText({ user, level }: SeLinuxLabel): string {
  return [user || 'system_u', 'object_r', 'container_file_t', level || 's0'].join(':');
}
