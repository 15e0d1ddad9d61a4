// The OCI runtime specification of a container: Docker's defaults, and what the container's configuration adds. Pure.

import path from 'node:path';
import { SwarmError } from '../../../core/errors.ts';
import type { ResourceLimits } from '../../../core/generated/objects.ts';
import { IDS_PER_NAMESPACE } from '../../linux/user-namespace.ts';
import { type ContainerFile, type ContainerOptions, HOST_NETWORK, type UserMapping } from '../engine.ts';
import type { ImageConfiguration } from '../images/manifest.ts';
import type { Machine } from '../machine.ts';
import type { CdiEdits } from './cdi.ts';
import type { HostDevice } from './devices.ts';
import { composeMounts, deviceMount, type HostMount } from './oci-mounts.ts';
import { composeResources } from './resources.ts';
import { composeSecurity } from './security.ts';

const DEFAULT_PATH = 'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';
const OPEN_FILES = 1_048_576;
// RLIM_INFINITY, which is beyond what numbers hold.
const RLIMIT_INFINITY = rawJson('18446744073709551615');
/** Where the init of a container is found inside it: Docker's place. */
const INIT_PLACE = '/sbin/docker-init';

export interface ProcessUser {
  readonly uid: number;
  readonly gid: number;
  readonly additionalGids: readonly number[];
}

export interface SpecInput extends ContainerOptions {
  readonly id: string;
  readonly engineId: string;
  readonly image: ImageConfiguration;
  readonly command: readonly string[];
  readonly args: readonly string[];
  readonly env: readonly string[];
  readonly workdir: string;
  readonly user: ProcessUser;
  readonly hostname: string;
  /** Volumes and images are resolved to directories by now. */
  readonly mounts: readonly HostMount[];
  readonly files: readonly ContainerFile[];
  readonly readOnly: boolean;
  readonly tty: boolean;
  readonly limits: ResourceLimits;
  readonly reservedMemoryBytes: number;
  /** Of the devices that are asked for, or of all when privileged. */
  readonly hostDevices: readonly HostDevice[];
  /** Of vendors' devices. */
  readonly edits?: Pick<CdiEdits, 'env' | 'mounts' | 'hooks'>;
  /** Program that is to be the first process; absent: none. */
  readonly initProgram?: string | undefined;
  /** Absent: the machine's. */
  readonly users?: UserMapping | undefined;
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

/** `parent` is what was asked for; empty: the engine's. */
export function cgroupsPath(engineId: string, id: string, parent = ''): string {
  const above = parent === '' ? engineCgroup(engineId) : path.posix.join('/', parent);
  return path.posix.join(above, id);
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
  const { machine, initProgram, users } = input;
  const security = composeSecurity(input, machine);
  const args = processArguments(input);
  const held = input.user.uid === 0 ? security.capabilities : [];
  const resources = composeResources(input);
  return {
    ociVersion: '1.0.2-dev',
    ...(input.utsMode !== 'host' && { hostname: input.hostname }),
    root: { path: 'rootfs', readonly: input.readOnly },
    annotations: annotations(input, security.isDefaultSeccomp),
    process: {
      terminal: input.tty,
      user: input.user,
      args: initProgram === undefined ? args : [INIT_PLACE, '--', ...args],
      env: environment(input),
      cwd: input.workdir || input.image.workdir || '/',
      capabilities: { bounding: security.capabilities, permitted: held, effective: held },
      rlimits: rlimits(input),
      noNewPrivileges: input.security?.noNewPrivileges ?? false,
      oomScoreAdj: input.oomScoreAdj,
      ...security.process,
    },
    mounts: [
      ...composeMounts({ ...input, initPlace: INIT_PLACE }),
      // Nobody makes device files inside a user namespace.
      ...(users === undefined ? [] : input.hostDevices.map(deviceMount)),
      ...(input.edits?.mounts ?? []),
    ],
    ...(input.edits && { hooks: input.edits.hooks }),
    linux: {
      cgroupsPath: cgroupsPath(input.engineId, input.id, input.cgroupParent),
      // Else crun cuts every tie to the machine's mounts before it binds the first.
      ...(input.files.length > 0 && { rootfsPropagation: 'rslave' }),
      namespaces: namespaces(input),
      ...idMappings(input),
      sysctl: { ...defaultSysctls(input), ...input.sysctls },
      resources,
      ...(input.hostDevices.length > 0 &&
        users === undefined && { devices: input.hostDevices.map(({ node }) => node) }),
      ...security.linux,
    },
  };
}

function annotations(input: SpecInput, isDefaultSeccomp: boolean): Record<string, string> {
  const filter = isDefaultSeccomp ? input.seccompFilter : undefined;
  return {
    ...input.annotations,
    'io.containerd.runc.v2.group': shimGroup(input.id),
    // A crun that does not know it, and runc, compile linux.seccomp.
    ...(filter !== undefined && { 'run.oci.seccomp_bpf_data': filter }),
  };
}

function environment({ hostname, tty, image, env, edits }: SpecInput): string[] {
  const own = [DEFAULT_PATH, `HOSTNAME=${hostname}`, ...(tty ? ['TERM=xterm'] : [])];
  return mergeEnvironment(own, image.env, env, edits?.env ?? []);
}

interface ProcessLimit {
  readonly type: string;
  readonly soft: number | object;
  readonly hard: number | object;
}

function rlimits({ machine, ulimits }: SpecInput): ProcessLimit[] {
  const usual = machine.hasSysResource ? OPEN_FILES : Math.min(OPEN_FILES, machine.openFilesMax);
  const openFiles = { type: 'RLIMIT_NOFILE', soft: usual, hard: usual };
  const asked = ulimits.map(({ name, soft, hard }) => ({
    type: `RLIMIT_${name.toUpperCase()}`,
    soft: soft < 0 ? RLIMIT_INFINITY : soft,
    hard: hard < 0 ? RLIMIT_INFINITY : hard,
  }));
  return asked.some(({ type }) => type === openFiles.type) ? asked : [openFiles, ...asked];
}

function namespaces(input: SpecInput): { type: string; path?: string }[] {
  const { networkNamespacePath, machine, cgroupnsMode, users } = input;
  const own = (type: string, mode: string) => (mode === 'host' ? [] : [{ type }]);
  const hasCgroup = cgroupnsMode === 'private' || (cgroupnsMode === '' && machine.cgroupVersion === '2');
  return [
    { type: 'mount' },
    ...own('uts', input.utsMode),
    ...own('pid', input.pidMode),
    ...own('ipc', input.ipcMode),
    ...(networkNamespacePath === undefined
      ? [{ type: 'network' }]
      : networkNamespacePath === HOST_NETWORK
        ? []
        : [{ type: 'network', path: networkNamespacePath }]),
    ...(hasCgroup ? [{ type: 'cgroup' }] : []),
    ...(users === undefined ? [] : [{ type: 'user', path: users.userNamespace }]),
  ];
}

/** Those that its user namespace has: runtimes do without looking them up. */
function idMappings({ users }: SpecInput): object {
  if (users === undefined) return {};
  const mappings = [{ containerID: 0, hostID: users.firstId, size: IDS_PER_NAMESPACE }];
  return { uidMappings: mappings, gidMappings: mappings };
}

/** They are the machine's own in its own network. */
function defaultSysctls({ networkNamespacePath, users }: SpecInput): Record<string, string> {
  if (networkNamespacePath === HOST_NETWORK) return {};
  const lastGroup = users === undefined ? 2 ** 31 - 1 : IDS_PER_NAMESPACE - 1;
  return { 'net.ipv4.ip_unprivileged_port_start': '0', 'net.ipv4.ping_group_range': `0 ${lastGroup}` };
}

/** A number in JSON just as it is written. */
function rawJson(text: string): object {
  return (JSON as unknown as { rawJSON(text: string): object }).rawJSON(text);
}

/** A specification as it was composed, numbers that are too large for JavaScript included. */
export function readSpec(text: string): { readonly process?: object } {
  const revive = (_key: string, value: unknown, context?: { source?: string }) =>
    typeof value === 'number' && !Number.isSafeInteger(value) && /^\d+$/.test(context?.source ?? '')
      ? rawJson(context?.source ?? '0')
      : value;
  return JSON.parse(text, revive) as { process?: object };
}
