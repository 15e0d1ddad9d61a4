// The OCI runtime specification of a container: Docker's defaults, and what the container's configuration adds. Pure.

import { SwarmError } from '../../../core/errors.ts';
import type { Mount, ResourceLimits } from '../../../core/generated/objects.ts';
import type { ContainerFile } from '../engine.ts';
import type { ImageConfiguration } from '../images/manifest.ts';
import type { Machine } from '../machine.ts';
import { seccompProfile } from './seccomp.ts';

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

const DEFAULT_PATH = 'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';
const OPEN_FILES = 1_048_576;
const SHM_BYTES = 64 * 2 ** 20;
const CPU_PERIOD_MICROS = 100_000;
// The kernel refuses a quota below 1 ms.
const CPU_QUOTA_MICROS_MIN = 1000;

interface OciMount {
  readonly destination: string;
  readonly type: string;
  readonly source: string;
  readonly options: readonly string[];
}

export interface ProcessUser {
  readonly uid: number;
  readonly gid: number;
  readonly additionalGids: readonly number[];
}

export interface SpecInput {
  readonly id: string;
  readonly engineId: string;
  readonly image: ImageConfiguration;
  readonly command: readonly string[];
  readonly args: readonly string[];
  readonly env: readonly string[];
  readonly workdir: string;
  readonly user: ProcessUser;
  readonly hostname: string;
  /** Volumes are resolved to directories by now. */
  readonly mounts: readonly Mount[];
  readonly files: readonly ContainerFile[];
  readonly readOnly: boolean;
  readonly tty: boolean;
  readonly limits: ResourceLimits;
  readonly reservedMemoryBytes: number;
  /** Absent: a network namespace of its own with loopback only. */
  readonly networkNamespacePath?: string;
  /** Directory with the container's hostname, hosts and resolv.conf. */
  readonly filesDirectory: string;
  /** The seccomp profile in the form that crun has compiled it to. */
  readonly seccompFilter?: string | undefined;
  readonly machine: Machine;
}

// Shims serve several containers each: it saves their memory and some of the start. Creation is serialized in a shim.
const SHIM_GROUPS = 4;

/** Which of the shims serves the container. */
export function shimGroup(id: string): string {
  let hash = 0;
  for (let i = 0; i < id.length; i += 1) hash = (hash * 31 + id.charCodeAt(i)) >>> 0;
  return `tsswarm-${hash % SHIM_GROUPS}`;
}

export function cgroupsPath(engineId: string, id: string): string {
  return `${engineCgroup(engineId)}/${id}`;
}

/** The parent of all containers' cgroups. */
export function engineCgroup(engineId: string): string {
  return `/tsswarm/${engineId}`;
}

/** What the container runs. A command of its own does away with the image's arguments, as in Docker. */
export function processArguments(input: Pick<SpecInput, 'command' | 'args' | 'image'>): string[] {
  const entrypoint = input.command.length > 0 ? input.command : input.image.entrypoint;
  const imageArgs = input.command.length > 0 ? [] : input.image.command;
  const all = [...entrypoint, ...(input.args.length > 0 ? input.args : imageArgs)];
  if (all.length === 0)
    throw new SwarmError('invalid-argument', 'no command specified', {
      hint: 'The image has no default command: give one.',
    });
  return all;
}

/** Later entries replace earlier ones of the same name; a name without "=" removes it. */
export function mergeEnvironment(...lists: readonly (readonly string[])[]): string[] {
  const merged = new Map<string, string>();
  for (const entry of lists.flat()) {
    const at = entry.indexOf('=');
    if (at > 0) merged.set(entry.slice(0, at), entry);
    else if (at < 0) merged.delete(entry);
  }
  return [...merged.values()];
}

/** The specification as containerd takes it. */
export function composeSpec(input: SpecInput): Readonly<Record<string, unknown>> {
  const capabilities = DEFAULT_CAPABILITIES;
  const held = input.user.uid === 0 ? capabilities : [];
  const { machine } = input;
  const seccomp = seccompProfile(capabilities, process.arch);
  return {
    ociVersion: '1.0.2-dev',
    hostname: input.hostname,
    root: { path: 'rootfs', readonly: input.readOnly },
    annotations: {
      'io.containerd.runc.v2.group': shimGroup(input.id),
      // A crun that does not know it, and runc, compile linux.seccomp.
      ...(input.seccompFilter !== undefined && { 'run.oci.seccomp_bpf_data': input.seccompFilter }),
    },
    process: {
      terminal: input.tty,
      user: input.user,
      args: processArguments(input),
      env: environment(input),
      cwd: input.workdir || input.image.workdir || '/',
      capabilities: { bounding: capabilities, permitted: held, effective: held },
      rlimits: [openFilesLimit(machine)],
      noNewPrivileges: false,
      oomScoreAdj: 0,
    },
    mounts: [
      ...defaultMounts(),
      ...input.mounts.map(customMount),
      ...input.files.map(fileMount),
      ...networkFiles(input.filesDirectory),
    ],
    linux: {
      cgroupsPath: cgroupsPath(input.engineId, input.id),
      // Else crun cuts every tie to the machine's mounts before it binds the first.
      ...(input.files.length > 0 && { rootfsPropagation: 'rslave' }),
      namespaces: namespaces(input),
      maskedPaths: MASKED_PATHS,
      readonlyPaths: READ_ONLY_PATHS,
      sysctl: { 'net.ipv4.ip_unprivileged_port_start': '0', 'net.ipv4.ping_group_range': '0 2147483647' },
      resources: resources(input),
      ...(seccomp && { seccomp }),
    },
  };
}

function environment({ hostname, tty, image, env }: SpecInput): string[] {
  const own = [DEFAULT_PATH, `HOSTNAME=${hostname}`, ...(tty ? ['TERM=xterm'] : [])];
  return mergeEnvironment(own, image.env, env);
}

function openFilesLimit(machine: Machine): { type: string; soft: number; hard: number } {
  const limit = machine.hasSysResource ? OPEN_FILES : Math.min(OPEN_FILES, machine.openFilesMax);
  return { type: 'RLIMIT_NOFILE', soft: limit, hard: limit };
}

function namespaces({ networkNamespacePath, machine }: SpecInput): { type: string; path?: string }[] {
  const network =
    networkNamespacePath === undefined
      ? { type: 'network' }
      : { type: 'network', path: networkNamespacePath };
  const cgroup = machine.cgroupVersion === '2' ? [{ type: 'cgroup' }] : [];
  return [{ type: 'mount' }, { type: 'uts' }, { type: 'pid' }, { type: 'ipc' }, network, ...cgroup];
}

function defaultMounts(): OciMount[] {
  const mount = (destination: string, type: string, source: string, options: string): OciMount => ({
    destination,
    type,
    source,
    options: options.split(','),
  });
  return [
    mount('/proc', 'proc', 'proc', 'nosuid,noexec,nodev'),
    mount('/dev', 'tmpfs', 'tmpfs', 'nosuid,strictatime,mode=755,size=65536k'),
    mount('/dev/pts', 'devpts', 'devpts', 'nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5'),
    mount('/sys', 'sysfs', 'sysfs', 'nosuid,noexec,nodev,ro'),
    mount('/sys/fs/cgroup', 'cgroup', 'cgroup', 'ro,nosuid,noexec,nodev'),
    mount('/dev/mqueue', 'mqueue', 'mqueue', 'nosuid,noexec,nodev'),
    mount('/dev/shm', 'tmpfs', 'shm', `nosuid,noexec,nodev,mode=1777,size=${SHM_BYTES}`),
  ];
}

function customMount(mount: Mount): OciMount {
  const destination = mount.target;
  if (mount.type === 'tmpfs') {
    const size = mount.tmpfsSizeBytes > 0 ? [`size=${mount.tmpfsSizeBytes}`] : [];
    const mode = [`mode=${(mount.tmpfsMode || 0o1777).toString(8)}`];
    const options = ['noexec', 'nosuid', 'nodev', mount.readOnly ? 'ro' : 'rw', ...size, ...mode];
    return { destination, type: 'tmpfs', source: 'tmpfs', options };
  }
  const options = ['rbind', mount.readOnly ? 'ro' : 'rw', mount.bindPropagation || 'rprivate'];
  return { destination, type: 'bind', source: mount.source, options };
}

/** A slave of the machine's mount: that is how mounts over it arrive in the container. */
function fileMount({ source, target }: ContainerFile): OciMount {
  const options = ['bind', 'ro', 'rslave', 'nosuid', 'nodev', 'noexec'];
  return { destination: target, type: 'bind', source, options };
}

function networkFiles(directory: string): OciMount[] {
  return ['hostname', 'hosts', 'resolv.conf'].map((name) => ({
    destination: `/etc/${name}`,
    type: 'bind',
    source: `${directory}/${name}`,
    options: ['rbind', 'rprivate'],
  }));
}

function resources({ limits, reservedMemoryBytes, machine }: SpecInput): Record<string, unknown> {
  const { memoryBytes, cpuNanos, pids } = limits;
  const quota = Math.max(Math.round((cpuNanos * CPU_PERIOD_MICROS) / 1e9), CPU_QUOTA_MICROS_MIN);
  const memory = {
    // Docker gives as much swap as memory.
    ...(memoryBytes > 0 && { limit: memoryBytes }),
    ...(memoryBytes > 0 && machine.hasSwapAccounting && { swap: memoryBytes * 2 }),
    ...(reservedMemoryBytes > 0 && { reservation: reservedMemoryBytes }),
  };
  return {
    devices: deviceRules(),
    ...(Object.keys(memory).length > 0 && { memory }),
    ...(cpuNanos > 0 && { cpu: { period: CPU_PERIOD_MICROS, quota } }),
    ...(pids > 0 && { pids: { limit: pids } }),
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

function deviceRules(): unknown[] {
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
  ];
}
