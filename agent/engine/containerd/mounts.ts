// Mount propagation between this process and containerd. Where crun is used on a hybrid cgroup machine, containerd
// runs in a mount namespace of its own; only what is mounted under the shared run directory afterwards reaches it.

import {
  existsSync,
  mkdirSync,
  readFileSync,
  realpathSync,
  statfsSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { check, libcFunctions } from '../../linux/libc.ts';

const MS_RDONLY = 1;
const MS_NOSUID = 2;
const MS_NODEV = 4;
const MS_REMOUNT = 0x20;
const MS_BIND = 0x1000;
const MS_REC = 0x4000;
const MS_SHARED = 1 << 20;
const MNT_DETACH = 2;
const TMPFS_MAGIC = 0x01021994;

interface MountPoint {
  readonly path: string;
  readonly isShared: boolean;
  /** "rw", "noexec": of the mount, not of its file system. */
  readonly flags: readonly string[];
}

/** The mount points of this process, the last one on top. */
export function parseMountInfo(text: string): MountPoint[] {
  return text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => {
      const fields = line.split(' ');
      const optional = fields.slice(6, fields.indexOf('-'));
      return {
        path: unescapeOctal(fields[4] ?? ''),
        isShared: optional.some((field) => field.startsWith('shared:')),
        flags: (fields[5] ?? '').split(','),
      };
    });
}

function unescapeOctal(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, digits: string) =>
    String.fromCharCode(Number.parseInt(digits, 8)),
  );
}

function mountPoints(): MountPoint[] {
  return parseMountInfo(readFileSync('/proc/self/mountinfo', 'utf8'));
}

function mountAt(directory: string): MountPoint | undefined {
  return mountPoints().findLast((point) => point.path === directory);
}

// What a bind mount of the place has to keep. Runtimes give it only what they are told.
const KEPT_FLAGS: readonly string[] = ['ro', 'nosuid', 'nodev', 'noexec'];

/** What forbids something at a path, by the mounts that it lies on; for each path. */
export function restrictionsAt(places: readonly string[]): string[][] {
  if (places.length === 0) return [];
  const points = mountPoints();
  return places.map((place) => {
    const real = realpathSync(place);
    const holds = ({ path }: MountPoint) => path === '/' || real === path || real.startsWith(`${path}/`);
    const deepest = points.reduce<MountPoint | undefined>(
      (best, point) => (holds(point) && point.path.length >= (best?.path.length ?? 0) ? point : best),
      undefined,
    );
    return KEPT_FLAGS.filter((flag) => deepest?.flags.includes(flag));
  });
}

/**
 * Makes the directory a shared mount point of its own, in memory: where /run is on a disk, a new tmpfs. Does nothing
 * when it is one.
 */
export function shareDirectory(directory: string): void {
  mkdirSync(directory, { recursive: true });
  const real = realpathSync(directory);
  if (mountAt(real)?.isShared) return;
  if (statfsSync(real).type === TMPFS_MAGIC) {
    // Recursive, so that what is mounted below already stays visible.
    check(libcFunctions.mount(real, real, 'none', MS_BIND | MS_REC, null), `bind mount ${real}`);
  } else
    check(libcFunctions.mount('tmpfs', real, 'tmpfs', MS_NOSUID | MS_NODEV, 'mode=711'), `mount ${real}`);
  check(libcFunctions.mount('none', real, 'none', MS_SHARED, null), `share mount ${real}`);
}

/** Undoes `shareDirectory`, however often it was mounted over. What is mounted below goes as well. */
export function unshareDirectory(directory: string): void {
  unmountAll(realpathSync(directory));
}

/** Makes a file appear at another place, where nobody can write to it. Does nothing when it is there. */
export function bindReadOnly(file: string, place: string): void {
  if (!existsSync(place)) writeFileSync(place, '');
  const real = realpathSync(place);
  if (!isSameFile(file, real)) {
    unmountAll(real);
    check(libcFunctions.mount(file, real, 'none', MS_BIND, null), `bind mount ${file}`);
  }
  // In a second step: the kernel ignores the flag when it makes a bind mount.
  const flags = MS_REMOUNT | MS_BIND | MS_RDONLY;
  check(libcFunctions.mount('none', real, 'none', flags, null), `make ${real} read-only`);
}

export function isMountPoint(directory: string): boolean {
  return mountAt(realpathSync(directory)) !== undefined;
}

function isSameFile(one: string, other: string): boolean {
  const [first, second] = [statSync(one), statSync(other)];
  return first.dev === second.dev && first.ino === second.ino;
}

/** Takes away what is mounted at a path, however often. */
export function unmountAll(place: string): void {
  while (mountAt(place) !== undefined) check(libcFunctions.umount2(place, MNT_DETACH), `unmount ${place}`);
}
