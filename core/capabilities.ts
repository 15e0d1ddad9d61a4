// The capabilities of Linux, and what a list of those to add and to drop comes to. Pure.

/** In the kernel's order: the place of a name is its bit. */
export const CAPABILITIES: readonly string[] = [
  'CAP_CHOWN',
  'CAP_DAC_OVERRIDE',
  'CAP_DAC_READ_SEARCH',
  'CAP_FOWNER',
  'CAP_FSETID',
  'CAP_KILL',
  'CAP_SETGID',
  'CAP_SETUID',
  'CAP_SETPCAP',
  'CAP_LINUX_IMMUTABLE',
  'CAP_NET_BIND_SERVICE',
  'CAP_NET_BROADCAST',
  'CAP_NET_ADMIN',
  'CAP_NET_RAW',
  'CAP_IPC_LOCK',
  'CAP_IPC_OWNER',
  'CAP_SYS_MODULE',
  'CAP_SYS_RAWIO',
  'CAP_SYS_CHROOT',
  'CAP_SYS_PTRACE',
  'CAP_SYS_PACCT',
  'CAP_SYS_ADMIN',
  'CAP_SYS_BOOT',
  'CAP_SYS_NICE',
  'CAP_SYS_RESOURCE',
  'CAP_SYS_TIME',
  'CAP_SYS_TTY_CONFIG',
  'CAP_MKNOD',
  'CAP_LEASE',
  'CAP_AUDIT_WRITE',
  'CAP_AUDIT_CONTROL',
  'CAP_SETFCAP',
  'CAP_MAC_OVERRIDE',
  'CAP_MAC_ADMIN',
  'CAP_SYSLOG',
  'CAP_WAKE_ALARM',
  'CAP_BLOCK_SUSPEND',
  'CAP_AUDIT_READ',
  'CAP_PERFMON',
  'CAP_BPF',
  'CAP_CHECKPOINT_RESTORE',
];

export const ALL_CAPABILITIES = 'ALL';

/** "net_admin" and "CAP_NET_ADMIN" are the same; "ALL" stays. Undefined for what is none. */
export function parseCapability(text: string): string | undefined {
  const name = text.trim().toUpperCase();
  if (name === ALL_CAPABILITIES || name === `CAP_${ALL_CAPABILITIES}`) return ALL_CAPABILITIES;
  const full = name.startsWith('CAP_') ? name : `CAP_${name}`;
  return CAPABILITIES.includes(full) ? full : undefined;
}

export interface CapabilityChange {
  readonly added: readonly string[];
  readonly dropped: readonly string[];
}

/** What a process may have: `usual` with the change, "ALL" being those in `available`. */
export function effectiveCapabilities(
  { added, dropped }: CapabilityChange,
  usual: readonly string[],
  available: readonly string[],
): readonly string[] {
  if (added.includes(ALL_CAPABILITIES)) return available.filter((name) => !dropped.includes(name));
  if (dropped.includes(ALL_CAPABILITIES)) return added;
  const kept = usual.filter((name) => !dropped.includes(name));
  return [...kept, ...added.filter((name) => !kept.includes(name))];
}
