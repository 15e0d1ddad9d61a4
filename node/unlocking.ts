// Which unlock key the log of this manager wants. It is the one that counts: the manager wraps its log's keys anew when the
// cluster says so, and the node's own key follows.

import { setTimeout as delay } from 'node:timers/promises';
import { hasCode } from '../core/errors.ts';
import { loadKeyFile } from '../manager/raft-host/key-file.ts';
import { RealDisk } from '../manager/raft-host/real-disk.ts';

/** Whether the log in the directory opens with this key, or (undefined) without one; a log that is not there does. */
export async function logOpens(directory: string, unlockKey: string | undefined): Promise<boolean> {
  try {
    await loadKeyFile(await RealDisk.open(directory), unlockKey);
    return true;
  } catch (error) {
    // Locked, or another key.
    if (hasCode(error, 'failed-precondition') || hasCode(error, 'permission-denied')) return false;
    throw error;
  }
}

const POLL_MS = 50;

/** The unlock key of a node, which follows the cluster's. Without one it is empty. */
export class NodeLock {
  readonly #logDirectory: string;
  #key: string;
  #logKeys: readonly string[];

  constructor(logDirectory: string, key: string) {
    this.#logDirectory = logDirectory;
    this.#key = key;
    this.#logKeys = keysOf(key);
  }

  /** What the node's own key is locked with. */
  get key(): string {
    return this.#key;
  }

  /** What the log may be wrapped with, the newest first. */
  get logKeys(): readonly string[] {
    return this.#logKeys;
  }

  /**
   * Resolves when the log opens with this key, or the cluster does not want it any more. True: the node's own key is to be
   * locked with it now, and was not; what a crash leaves in between can be opened.
   */
  async change(unlockKey: string, isWanted: () => boolean, signal: AbortSignal): Promise<boolean> {
    if (unlockKey === this.#key && this.#logKeys.length <= 1) return false;
    this.#logKeys = [...new Set([...keysOf(unlockKey), ...this.#logKeys])];
    while (!(await logOpens(this.#logDirectory, unlockKey === '' ? undefined : unlockKey))) {
      if (!isWanted()) return false;
      await delay(POLL_MS, undefined, { signal });
    }
    const isOther = unlockKey !== this.#key;
    this.#key = unlockKey;
    this.#logKeys = keysOf(unlockKey);
    return isOther;
  }

  /** There is no log any more. */
  clear(): void {
    this.#key = '';
    this.#logKeys = [];
  }
}

function keysOf(unlockKey: string): readonly string[] {
  return unlockKey === '' ? [] : [unlockKey];
}
