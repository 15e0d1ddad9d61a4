// The files of tasks in a tmpfs for each, which the kernel does not swap out. What a container gets is a read-only bind
// of one file, at any place. Such a bind stays with its file whatever is renamed below it; so a file is replaced by a
// mount over it: the binds in containers are slaves of ours, and the kernel repeats there what is mounted here.
//
//   <root>/<task>/store   the tmpfs. "0.0" is what the container has bound, "0.1", "0.2" … what came later
//   <root>/<task>/source  the same, read-only and private: each new mount is made from it, and a group of its own
//   <root>/<task>/shown   the same, read-only and shared: binds are made from it, and new mounts put over its files

import {
  closeSync,
  existsSync,
  fchmodSync,
  fchownSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';
import { check, libcFunctions, SystemCallError } from '../linux/libc.ts';
import { secretsLog } from '../log.ts';
import type { TaskFile, TaskFiles } from './task-files.ts';

const MS_RDONLY = 1;
const MS_NOSUID = 2;
const MS_NODEV = 4;
const MS_NOEXEC = 8;
const MS_REMOUNT = 0x20;
const MS_BIND = 0x1000;
const MS_PRIVATE = 1 << 18;
const MS_SHARED = 1 << 20;
const MNT_DETACH = 2;
const GUARDS = MS_NOSUID | MS_NODEV | MS_NOEXEC;
/** Who has opened an earlier content can read on until there are this many newer ones. */
const CONTENTS_KEPT = 4;
/** Above the largest config. */
const FILE_BYTES_MAX = 2 ** 20;

export class MemoryFiles implements TaskFiles {
  readonly #root: string;
  #hasWarned = false;

  /** `root` is in the run directory. */
  constructor(root: string) {
    this.#root = root;
    mkdirSync(root, { recursive: true, mode: 0o700 });
  }

  write(taskId: string, files: readonly TaskFile[]): string[] {
    this.remove(taskId);
    const places = this.#places(taskId);
    for (const place of Object.values(places)) mkdirSync(place, { recursive: true, mode: 0o700 });
    this.#mountMemory(places.store, files.length * (CONTENTS_KEPT + 1) * FILE_BYTES_MAX);
    mount('none', places.store, MS_PRIVATE);
    for (const place of [places.source, places.shown]) {
      mount(places.store, place, MS_BIND);
      mount('none', place, MS_REMOUNT | MS_BIND | MS_RDONLY | GUARDS);
    }
    mount('none', places.source, MS_PRIVATE);
    mount('none', places.shown, MS_SHARED);
    return files.map((file, position) => {
      writeNew(path.join(places.store, `${position}.0`), file);
      return path.join(places.shown, `${position}.0`);
    });
  }

  read(taskId: string, position: number): Uint8Array | undefined {
    const file = path.join(this.#places(taskId).shown, `${position}.0`);
    return existsSync(file) ? readFileSync(file) : undefined;
  }

  replace(taskId: string, position: number, file: TaskFile): void {
    const { store, source, shown } = this.#places(taskId);
    const earlier = contentsOf(store, position);
    const name = `${position}.${(earlier.at(-1) ?? 0) + 1}`;
    writeNew(path.join(store, name), file);
    mount(path.join(source, name), path.join(shown, `${position}.0`), MS_BIND);
    // The file itself is below a mount and cannot go before its task.
    for (const number of earlier.slice(0, 1 - CONTENTS_KEPT))
      truncateSync(path.join(store, `${position}.${number}`));
  }

  remove(taskId: string): void {
    // Most tasks have none.
    if (!existsSync(path.join(this.#root, taskId))) return;
    const { store, source, shown } = this.#places(taskId);
    // A mount over a mount, when a crash came between two steps.
    for (const place of [shown, source, store]) while (isMountPoint(place)) unmount(place);
    rmSync(path.join(this.#root, taskId), { recursive: true, force: true });
  }

  list(): string[] {
    return readdirSync(this.#root);
  }

  /** A task is named by its id, which has no "/". */
  #places(taskId: string): { readonly store: string; readonly source: string; readonly shown: string } {
    const directory = path.join(this.#root, taskId);
    return {
      store: path.join(directory, 'store'),
      source: path.join(directory, 'source'),
      shown: path.join(directory, 'shown'),
    };
  }

  #mountMemory(place: string, bytes: number): void {
    const options = `size=${bytes},mode=0700`;
    const call = `mount ${place}`;
    try {
      check(libcFunctions.mount('tmpfs', place, 'tmpfs', GUARDS, `${options},noswap`), call);
    } catch (error) {
      if (!(error instanceof SystemCallError) || error.errnoName !== 'EINVAL') throw error;
      // Linux before 6.4.
      check(libcFunctions.mount('tmpfs', place, 'tmpfs', GUARDS, options), call);
      if (!this.#hasWarned && hasSwap())
        secretsLog.warn('this kernel may swap secrets out: encrypt its swap, or turn it off');
      this.#hasWarned = true;
    }
  }
}

/** Takes away the files of all tasks: the daemon is removed from the machine. */
export function destroyMemoryFiles(root: string): void {
  if (!existsSync(root)) return;
  const files = new MemoryFiles(root);
  for (const taskId of files.list()) files.remove(taskId);
}

/** Nobody but root can open it before it is whole and its owner's. */
function writeNew(place: string, { data, uid, gid, mode }: TaskFile): void {
  rmSync(place, { force: true });
  const file = openSync(place, 'wx', 0o600);
  try {
    writeFileSync(file, data);
    fchownSync(file, uid, gid);
    fchmodSync(file, mode);
  } finally {
    closeSync(file);
  }
}

/** Numbers of the contents that a file had, in order. */
function contentsOf(store: string, position: number): number[] {
  return readdirSync(store)
    .filter((name) => name.startsWith(`${position}.`))
    .map((name) => Number(name.slice(`${position}.`.length)))
    .sort((a, b) => a - b);
}

function mount(source: string, target: string, flags: number): void {
  check(libcFunctions.mount(source, target, 'none', flags, null), `mount ${target}`);
}

function unmount(place: string): void {
  check(libcFunctions.umount2(place, MNT_DETACH), `unmount ${place}`);
}

function isMountPoint(place: string): boolean {
  return readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .some((line) => line.split(' ')[4] === place.replaceAll(' ', '\\040'));
}

function hasSwap(): boolean {
  return readFileSync('/proc/swaps', 'utf8').trim().split('\n').length > 1;
}
