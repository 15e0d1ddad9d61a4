// Namespaces, and work inside those of networks. A namespace belongs to a thread, so whatever happens inside one is one synchronous block:
// an await would run other code, or a file system call of the thread pool, in the wrong network.

import { closeSync, openSync, statfsSync, unlinkSync } from 'node:fs';
import { stat } from 'node:fs/promises';
import { check, libcFunctions } from './libc.ts';

const CLONE_NEWNET = 0x40000000;
const MS_BIND = 0x1000;
const MNT_DETACH = 2;
const NSFS_MAGIC = 0x6e736673;

/** Of the calling thread; /proc/self would be the main thread's. */
const OWN_NAMESPACE = '/proc/thread-self/ns/net';

/**
 * To be awaited before the first visit to another namespace: the threads of Node's pool start with the first job and
 * inherit the namespace of the thread that gives it. All of them start at once.
 */
export async function startThreadPool(): Promise<void> {
  await stat('/');
}

/** Runs `action` inside the namespace that `path` pins. */
export function withinNamespace<T>(path: string, action: () => T): T {
  const home = openSync(OWN_NAMESPACE, 'r');
  try {
    enter(path);
    return returningTo(home, action);
  } finally {
    closeSync(home);
  }
}

function enter(path: string): void {
  const target = openSync(path, 'r');
  try {
    check(libcFunctions.setns(target, CLONE_NEWNET), `enter network namespace ${path}`);
  } finally {
    closeSync(target);
  }
}

/**
 * Makes a network namespace, pins it at `path` and runs `configure` inside it, with a file descriptor that names it
 * for as long as `configure` runs. When that throws, the pin is gone again. `made` is the pin of one that is there
 * and to be used instead.
 */
export function createNamespace<T>(path: string, configure: (namespaceFd: number) => T, made?: string): T {
  closeSync(openSync(path, 'wx'));
  const home = openSync(OWN_NAMESPACE, 'r');
  try {
    if (made === undefined) check(libcFunctions.unshare(CLONE_NEWNET), 'make a network namespace');
    else enter(made);
    return returningTo(home, () => {
      check(libcFunctions.mount(OWN_NAMESPACE, path, 'none', MS_BIND, null), `pin network namespace ${path}`);
      const namespaceFd = openSync(path, 'r');
      try {
        return configure(namespaceFd);
      } finally {
        closeSync(namespaceFd);
      }
    });
  } catch (error) {
    removeNamespace(path);
    throw error;
  } finally {
    closeSync(home);
  }
}

/** Keeps the namespace of a process at `path` when that process is gone. */
export function pinNamespace(source: string, path: string): void {
  closeSync(openSync(path, 'wx'));
  try {
    check(libcFunctions.mount(source, path, 'none', MS_BIND, null), `pin namespace ${source}`);
  } catch (error) {
    unlinkSync(path);
    throw error;
  }
}

/** Unpins; the kernel frees the namespace when its last process is gone. A path that does not exist is fine. */
export function removeNamespace(path: string): void {
  try {
    // More than one mount when a crash came between two of them.
    while (isPinnedNamespace(path)) check(libcFunctions.umount2(path, MNT_DETACH), `unpin ${path}`);
    // Also frees copies of the mount in other mount namespaces.
    unlinkSync(path);
  } catch (error) {
    if (isMissing(error)) return;
    throw error;
  }
}

/** False for what is not there and for a plain file that a crash left. */
export function isPinnedNamespace(path: string): boolean {
  try {
    return statfsSync(path).type === NSFS_MAGIC;
  } catch (error) {
    if (isMissing(error)) return false;
    throw error;
  }
}

function returningTo<T>(home: number, action: () => T): T {
  try {
    return action();
  } finally {
    // A thread that cannot return would do all later work in the wrong network.
    if (libcFunctions.setns(home, CLONE_NEWNET) < 0) process.abort();
  }
}

function isMissing(error: unknown): boolean {
  return (error as NodeJS.ErrnoException).code === 'ENOENT';
}
