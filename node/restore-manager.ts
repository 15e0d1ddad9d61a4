// Lays a manager's log from a backup file, before the manager is started on it.

import { randomBytes } from 'node:crypto';
import path from 'node:path';
import { readBackup } from '../manager/raft-host/backup.ts';
import { newMemberId } from '../manager/raft-host/member-id.ts';
import { RealDisk } from '../manager/raft-host/real-disk.ts';
import { restoreBackup } from '../manager/raft-host/recovery.ts';

export interface RestoreOptions {
  /** Of the manager's state; must be empty. */
  readonly directory: string;
  readonly nodeId: string;
  readonly advertiseAddress: string;
  /** Empty: the backup is not encrypted. */
  readonly unlockKey: string;
}

/** Returns the id of the cluster in the backup. Throws when the file is damaged or does not open. */
export async function restoreManager(
  { directory, nodeId, advertiseAddress, unlockKey }: RestoreOptions,
  file: AsyncIterable<Uint8Array>,
): Promise<string> {
  const backup = await readBackup(file, unlockKey === '' ? undefined : unlockKey);
  const disk = await RealDisk.open(path.join(directory, 'log'));
  let failure: unknown;
  const onFatal = (error: unknown) => {
    failure = error;
  };
  const self = { id: newMemberId(randomBytes), nodeId, address: advertiseAddress };
  const clusterId = await restoreBackup({ disk, randomBytes, onFatal }, backup, self);
  if (failure !== undefined) throw failure;
  return clusterId;
}
