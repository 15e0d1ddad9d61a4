// Reads files of an image without starting it. Links inside the image never lead out of it.

import { closeSync, fstatSync, mkdtempSync, readSync, rmdirSync } from 'node:fs';
import path from 'node:path';
import { SwarmError } from '../../../core/errors.ts';
import type { SnapshotMount } from '../../../proto/generated/containerd-types.ts';
import { check, libcFunctions, SystemCallError } from '../../linux/libc.ts';

const SYS_OPENAT2 = 437;
const O_DIRECTORY_PATH = 0o200000 | 0o10000000;
const O_READ = 0o4000 | 0o2000000;
const O_DIRECTORY_READ = 0o200000 | 0o2000000;
// RESOLVE_IN_ROOT and RESOLVE_NO_MAGICLINKS.
const IN_IMAGE = 0x12n;
const O_PATH = 0o10000000 | 0o2000000;
// RESOLVE_BENEATH and RESOLVE_NO_MAGICLINKS.
const BENEATH = 0xan;
const ABSENT = ['ENOENT', 'ENOTDIR', 'ELOOP'];
const AT_FDCWD = -100;
const MS_READ_ONLY = 1;
const MS_REMOUNT = 0x20;
const MS_BIND = 0x1000;
const MNT_DETACH = 2;
// The kernel takes one page of mount options.
const MOUNT_OPTIONS_MAX = 4000;
// Real passwd files have a few KiB.
const FILE_BYTES_MAX = 4 * 2 ** 20;

/** The files' contents, in order; empty for one that is not there. `mounts` are those of a read-only snapshot. */
export async function readImageFiles(
  mounts: readonly SnapshotMount[],
  scratchDirectory: string,
  files: readonly string[],
): Promise<string[]> {
  return withImageRoot(mounts, scratchDirectory, async (root) => files.map((file) => readInRoot(root, file)));
}

/** The same for the root directory of a container that runs; no link in it leads out of it. */
export async function readRootFiles(root: string, files: readonly string[]): Promise<string[]> {
  return withDirectory(root, async (directory) => files.map((file) => readInRoot(directory, file)));
}

/** Runs the action with a descriptor of the image's root directory. */
export async function withImageRoot<T>(
  mounts: readonly SnapshotMount[],
  scratchDirectory: string,
  use: (root: number) => Promise<T>,
): Promise<T> {
  const mount = onlyMount(mounts);
  // An image of one layer is a plain directory.
  if (mount.type === 'bind') return withDirectory(mount.source, use);
  const target = mkdtempSync(path.join(scratchDirectory, 'image-'));
  try {
    mountOverlay(mount, target);
    try {
      return await withDirectory(target, use);
    } finally {
      check(libcFunctions.umount2(target, MNT_DETACH), `unmount ${target}`);
    }
  } finally {
    rmdirSync(target);
  }
}

/** Mounts a read-only snapshot at a directory that is there. */
export function mountSnapshot(mounts: readonly SnapshotMount[], target: string): void {
  const mount = onlyMount(mounts);
  if (mount.type !== 'bind') {
    mountOverlay(mount, target);
    return;
  }
  check(libcFunctions.mount(mount.source, target, 'none', MS_BIND, null), `bind mount on ${target}`);
  // In a second step: the kernel ignores the flag when it makes a bind mount.
  const flags = MS_REMOUNT | MS_BIND | MS_READ_ONLY;
  check(libcFunctions.mount('none', target, 'none', flags, null), `make ${target} read-only`);
}

function onlyMount(mounts: readonly SnapshotMount[]): SnapshotMount {
  const mount = mounts[0];
  if (mounts.length !== 1 || mount === undefined)
    throw new SwarmError('internal', `snapshot has ${mounts.length} mounts`);
  return mount;
}

/** A descriptor of what is inside a directory; fails with EXDEV when links or dots lead out of it. */
export function openPath(root: string, inside: string): number {
  const directory = openat2(AT_FDCWD, root, O_DIRECTORY_PATH, 0n);
  try {
    return openat2(directory, inside, O_PATH, BENEATH);
  } finally {
    closeSync(directory);
  }
}

/** A directory of the image, or undefined when it has none there. */
export function openInImage(root: number, directory: string): number | undefined {
  return ifPresent(() => openat2(root, directory, O_DIRECTORY_READ, IN_IMAGE));
}

function mountOverlay(mount: SnapshotMount, target: string): void {
  const options = mount.options.filter((option) => option !== 'ro');
  const joined = options.join(',');
  const call = (text: string) =>
    check(
      libcFunctions.mount('overlay', target, 'overlay', MS_READ_ONLY, text),
      `mount overlay on ${target}`,
    );
  if (joined.length < MOUNT_OPTIONS_MAX) {
    call(joined);
    return;
  }
  // Many layers: paths relative to the directory that they share are short. Nothing else runs meanwhile.
  const lower = options.find((option) => option.startsWith('lowerdir=')) ?? 'lowerdir=';
  const directories = lower.slice('lowerdir='.length).split(':');
  const base = path.dirname(path.dirname(directories[0] ?? '/'));
  const relative = directories.map((directory) => path.relative(base, directory)).join(':');
  const before = process.cwd();
  process.chdir(base);
  try {
    call([...options.filter((option) => option !== lower), `lowerdir=${relative}`].join(','));
  } finally {
    process.chdir(before);
  }
}

function openat2(directory: number, file: string, flags: number, resolve: bigint): number {
  const how = Buffer.alloc(24);
  how.writeBigUInt64LE(BigInt(flags), 0);
  how.writeBigUInt64LE(resolve, 16);
  return check(Number(libcFunctions.openat2(SYS_OPENAT2, directory, file, how, how.length)), `open ${file}`);
}

async function withDirectory<T>(directory: string, use: (root: number) => Promise<T>): Promise<T> {
  const root = openat2(AT_FDCWD, directory, O_DIRECTORY_PATH, 0n);
  try {
    return await use(root);
  } finally {
    closeSync(root);
  }
}

function ifPresent(open: () => number): number | undefined {
  try {
    return open();
  } catch (error) {
    const isAbsent = error instanceof SystemCallError && ABSENT.includes(error.errnoName);
    if (isAbsent) return undefined;
    throw error;
  }
}

function readInRoot(root: number, file: string): string {
  const fd = ifPresent(() => openat2(root, file, O_READ, IN_IMAGE));
  if (fd === undefined) return '';
  try {
    const stat = fstatSync(fd);
    if (!stat.isFile()) return '';
    if (stat.size > FILE_BYTES_MAX)
      throw new SwarmError('invalid-argument', `${file} of the image is too large`);
    const bytes = Buffer.alloc(stat.size);
    const length = readSync(fd, bytes, 0, bytes.length, 0);
    return bytes.toString('utf8', 0, length);
  } finally {
    closeSync(fd);
  }
}
