// Which unlock key the log of this manager wants. It is the one that counts: the manager wraps its log's keys anew when the
// cluster says so, and the node's own key follows.

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
