// The mounts of a specification: Docker's defaults, those that were asked for, and the files of /etc. Pure.

import type { Mount } from '../../../core/generated/objects.ts';
import { isKernelFrom } from '../../../core/seccomp-profile.ts';
import type { ContainerFile } from '../engine.ts';
import type { Machine } from '../machine.ts';
import type { HostDevice } from './devices.ts';

export interface OciMount {
  readonly destination: string;
  readonly type: string;
  readonly source: string;
  readonly options: readonly string[];
}

/** A mount whose source is a path of this machine, if it has one. */
export interface HostMount extends Mount {
  /** What the source is mounted with: "noexec". */
  readonly restrictions?: readonly string[];
}

export interface MountsInput {
  readonly mounts: readonly HostMount[];
  readonly files: readonly ContainerFile[];
  readonly filesDirectory: string;
  readonly initProgram?: string | undefined;
  readonly initPlace: string;
  readonly ipcMode: string;
  readonly privileged: boolean;
  readonly shmSizeBytes: number;
  readonly machine: Machine;
}

const SHM_BYTES = 64 * 2 ** 20;
// Of mount_setattr, which makes a whole tree of mounts read-only.
const RECURSIVE_READ_ONLY_KERNEL = '5.12';
const TMPFS_DEFAULTS: readonly string[] = ['noexec', 'nosuid', 'nodev'];

export function composeMounts(input: MountsInput): OciMount[] {
  const { initProgram, initPlace, machine } = input;
  const init = { destination: initPlace, type: 'bind', source: initProgram ?? '', options: ['bind', 'ro'] };
  return [
    ...defaultMounts(input),
    ...input.mounts.map((mount) => customMount(mount, machine)),
    ...input.files.map(fileMount),
    ...networkFiles(input.filesDirectory),
    ...(initProgram === undefined ? [] : [init]),
  ];
}

function defaultMounts(input: MountsInput): OciMount[] {
  const mount = (destination: string, type: string, source: string, options: string): OciMount => ({
    destination,
    type,
    source,
    options: options.split(','),
  });
  const access = input.privileged ? 'rw' : 'ro';
  return [
    mount('/proc', 'proc', 'proc', 'nosuid,noexec,nodev'),
    mount('/dev', 'tmpfs', 'tmpfs', 'nosuid,strictatime,mode=755,size=65536k'),
    mount('/dev/pts', 'devpts', 'devpts', 'nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5'),
    mount('/sys', 'sysfs', 'sysfs', `nosuid,noexec,nodev,${access}`),
    mount('/sys/fs/cgroup', 'cgroup', 'cgroup', `${access},nosuid,noexec,nodev`),
    ...ipcMounts(input, mount),
  ];
}

function ipcMounts(
  { ipcMode, shmSizeBytes, machine }: MountsInput,
  mount: (...words: Words) => OciMount,
): OciMount[] {
  if (ipcMode === 'host')
    return machine.ipcPlaces.map((place) => mount(place, 'bind', place, 'rbind,nosuid,noexec,nodev'));
  const size = shmSizeBytes || SHM_BYTES;
  const queues = mount('/dev/mqueue', 'mqueue', 'mqueue', 'nosuid,noexec,nodev');
  if (ipcMode === 'none') return [queues];
  return [queues, mount('/dev/shm', 'tmpfs', 'shm', `nosuid,noexec,nodev,mode=1777,size=${size}`)];
}

type Words = [destination: string, type: string, source: string, options: string];

function customMount(mount: HostMount, machine: Machine): OciMount {
  const destination = mount.target;
  if (mount.type === 'tmpfs') {
    const size = mount.tmpfsSizeBytes > 0 ? [`size=${mount.tmpfsSizeBytes}`] : [];
    const mode = [`mode=${(mount.tmpfsMode || 0o1777).toString(8)}`];
    const kept = TMPFS_DEFAULTS.filter((word) => !mount.tmpfsOptions.includes(word.slice('no'.length)));
    const further = mount.tmpfsOptions.filter((word) => !kept.includes(word));
    const options = [...kept, mount.readOnly ? 'ro' : 'rw', ...size, ...mode, ...further];
    return { destination, type: 'tmpfs', source: 'tmpfs', options };
  }
  const propagation = mount.bindPropagation || 'rprivate';
  const isTree = mount.bindRecursive !== 'disabled';
  // A recursive propagation makes the bind recursive as well, for crun.
  const kind = isTree
    ? ['rbind', propagation]
    : ['bind', propagation.replace(/^r(?=private|shared|slave)/, '')];
  const restrictions = mount.restrictions ?? [];
  const isReadOnly = mount.readOnly || mount.type === 'image';
  const access = isReadOnly ? readOnlyOptions(mount, machine) : restrictions.includes('ro') ? [] : ['rw'];
  const further = restrictions.filter((flag) => !access.includes(flag));
  const [bind = '', last = ''] = kind;
  return { destination, type: 'bind', source: mount.source, options: [bind, ...access, ...further, last] };
}

/** As Docker does: with what is mounted below, where the kernel can. */
function readOnlyOptions({ type, bindRecursive, bindPropagation }: Mount, { kernel }: Machine): string[] {
  const isPrivate = bindPropagation === '' || bindPropagation === 'rprivate';
  const isOfTree = type === 'bind' && (bindRecursive === '' || bindRecursive === 'enabled') && isPrivate;
  const isRecursive = bindRecursive === 'readonly' || isOfTree;
  return isRecursive && isKernelFrom(kernel, RECURSIVE_READ_ONLY_KERNEL) ? ['ro', 'rro'] : ['ro'];
}

/** The machine's own device file in place of one that is made for the container. */
export function deviceMount({ source, node }: HostDevice): OciMount {
  return { destination: node.path, type: 'bind', source, options: ['bind', 'nosuid', 'noexec'] };
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
