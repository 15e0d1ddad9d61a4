// How a log begins, how it goes on alone after a majority is lost, and how it comes back from a backup.

import { SwarmError } from '../../core/errors.ts';
import {
  type Configuration,
  type ConfigurationChange,
  ConfigurationChangeCodec,
  type Entry,
  emptyConfiguration,
  type Member,
} from '../../proto/generated/raft.ts';
import { decode, encode } from '../../proto/wire.ts';
import { logLog } from '../log.ts';
import { applyChange, initialConfiguration, isJoint, isVoter } from '../raft/configuration.ts';
import type { RaftStart } from '../raft/contract.ts';
import type { Backup } from './backup.ts';
import { LogOnDisk, type LogOptions, type Recovered } from './log-on-disk.ts';

/**
 * Begins an empty log. The first entry of every founder's says who they are, and is committed by being there; who is no
 * founder hears all from the leader that adds it. Durable when it resolves.
 */
export async function beginLog(log: LogOnDisk, founders: readonly Member[] | undefined): Promise<RaftStart> {
  if (founders === undefined)
    return { hardState: { term: 0, vote: 0, commit: 0 }, snapshot: undefined, entries: [] };
  const change = { steps: founders.map((member) => ({ kind: 'add-voter' as const, member })) };
  const founded = {
    hardState: { term: 1, vote: 0, commit: 1 },
    entries: [configurationEntry(change, { index: 1, term: 1 })],
  };
  await log.append(founded);
  return { ...founded, snapshot: undefined };
}

/** Throws when the log is of another cluster. */
export function requireCluster(clusterId: string, { member }: Recovered): void {
  if (member.clusterId !== clusterId)
    throw new SwarmError(
      'failed-precondition',
      `the log belongs to cluster ${member.clusterId}, not to ${clusterId}`,
    );
}

/**
 * Makes this member the only one: everybody else is removed, and all that is in its log counts as committed, so that
 * nothing which was ever acknowledged and reached this disk is lost. Durable when it resolves.
 */
export async function forceNewCluster(
  log: LogOnDisk,
  recovered: Recovered,
  self: Member,
): Promise<RaftStart> {
  const term = recovered.hardState.term + 1;
  const entries = [...recovered.entries];
  let configuration = recovered.snapshot?.configuration ?? emptyConfiguration;
  for (const { kind, payload } of entries)
    if (kind === 'configuration')
      configuration = applyChange(configuration, decode(ConfigurationChangeCodec, payload));
  const first = (entries.at(-1)?.index ?? recovered.snapshot?.index ?? 0) + 1;
  const changes = changesToBeAlone(configuration, self);
  const added = changes.map((change, position) =>
    configurationEntry(change, { index: first + position, term }),
  );
  const commit = first + added.length - 1;
  const hardState = { term, vote: 0, commit };
  await log.append({ hardState, entries: added });
  const removed = configuration.members.filter(({ id }) => id !== self.id).map(({ nodeId }) => nodeId);
  logLog.warn({ 'raft.removed': removed }, 'a new cluster is forced: this manager goes on alone');
  return { hardState, snapshot: recovered.snapshot, entries: [...entries, ...added] };
}

/**
 * Makes the log of a new cluster of one from a backup: the same state, and `self` as the only member. Nothing is there
 * under the log's names before all of the file was read and checked. Returns the cluster's id.
 */
export async function restoreBackup(options: LogOptions, backup: Backup, self: Member): Promise<string> {
  const { clusterId, index, term, rootHash, members } = backup.head;
  const log = await LogOnDisk.create(options, { clusterId, memberId: self.id });
  try {
    const configuration = { ...initialConfiguration([self]), removed: [...members] };
    const receiver = await log.receiveSnapshot({ index, term, configuration, stateHash: 0 }, rootHash);
    try {
      for await (const records of backup.records) await receiver.write(records);
    } catch (error) {
      await receiver.abort();
      throw error;
    }
    await log.append({ hardState: { term, vote: 0, commit: 0 }, entries: [] });
    await receiver.finish();
  } finally {
    await log[Symbol.asyncDispose]();
  }
  return clusterId;
}

/** One simple change at a time: this member votes, then the others go. */
function changesToBeAlone(configuration: Configuration, self: Member): ConfigurationChange[] {
  const changes: ConfigurationChange[] = isJoint(configuration) ? [{ steps: [] }] : [];
  const kind = isVoter(configuration, self.id) ? ('move' as const) : ('add-voter' as const);
  changes.push({ steps: [{ kind, member: self }] });
  for (const member of configuration.members)
    if (member.id !== self.id) changes.push({ steps: [{ kind: 'remove', member }] });
  return changes;
}

function configurationEntry(change: ConfigurationChange, at: { index: number; term: number }): Entry {
  return { ...at, kind: 'configuration', payload: encode(ConfigurationChangeCodec, change) };
}
