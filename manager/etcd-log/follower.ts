// Keeps the replica equal to etcd: reads all objects at one revision, then watches from the next. A watch that breaks goes
// on where it was; when etcd has discarded that history meanwhile, everything is read again.

import type { IEvent, IKeyValue } from 'etcd3';
import { type Clock, sleep } from '../../core/clock.ts';
import { messageOf, SwarmError } from '../../core/errors.ts';
import { type EtcdCommit, EtcdCommitCodec } from '../../proto/generated/etcd.ts';
import { decode } from '../../proto/wire.ts';
import { logLog } from '../log.ts';
import { payloadsOf } from './commit-record.ts';
import { CompactedError, type EtcdClient } from './etcd-client.ts';
import { found, get, type Keys, revisionOf } from './keys.ts';
import type { Replica } from './replica.ts';
import { watch } from './watch.ts';

export interface FollowerOptions {
  readonly client: EtcdClient;
  readonly keys: Keys;
  readonly clusterId: string;
  readonly replica: Replica;
  readonly clock: Clock;
  /** What etcd holds is not the continuation of what this manager knows. */
  readonly onFatal: (error: unknown) => void;
}

// Objects are small; the largest ones, a page of them, still are a message that both ends take.
const PAGE_OBJECTS = 500;
const RETRY_MS = 200;
// etcd may compact while a large cluster is read; that often in a row is no coincidence.
const RESTORE_ATTEMPTS = 5;

export class Follower {
  readonly #options: FollowerOptions;
  /** Everything up to this revision has been seen. */
  #seenRevision = 0;

  constructor(options: FollowerOptions) {
    this.#options = options;
  }

  /** Reads everything. Rejects when etcd cannot be reached or does not hold this cluster. */
  async restore(signal: AbortSignal): Promise<void> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await this.#restoreOnce(signal);
      } catch (error) {
        if (!(error instanceof CompactedError) || attempt === RESTORE_ATTEMPTS) throw error;
      }
    }
  }

  /** Until the signal aborts. */
  async follow(signal: AbortSignal): Promise<void> {
    const { client, keys, clock, onFatal, replica } = this.#options;
    this.#seenRevision = Math.max(this.#seenRevision, replica.revision);
    while (!signal.aborted) {
      try {
        await this.#checkContinuation(signal);
        const end = await watch(
          client,
          {
            range: keys.all,
            fromRevision: this.#seenRevision + 1,
            onRevision: (revision, events) => this.#onRevision(revision, events),
          },
          signal,
        );
        if (end === 'compacted' && !signal.aborted) {
          logLog.info(
            { revision: this.#seenRevision },
            'etcd compacted what was not read yet; reading everything',
          );
          await this.restore(signal);
        }
      } catch (error) {
        if (signal.aborted) return;
        if (error instanceof SwarmError && error.code === 'failed-precondition') return onFatal(error);
        logLog.warn({ error: messageOf(error) }, 'changes of etcd cannot be followed, will retry');
        await sleep(clock, RETRY_MS, signal).catch(() => {});
      }
    }
  }

  #onRevision(revision: number, events: readonly IEvent[]): void {
    const { keys, replica } = this.#options;
    const values = new Map<string, Uint8Array>();
    let commit: EtcdCommit | undefined;
    for (const { kv } of events) {
      const name = keys.objectName(kv.key);
      if (name !== undefined) values.set(name, kv.value);
      else if (kv.key.equals(keys.commit) && kv.value.length > 0) commit = decode(EtcdCommitCodec, kv.value);
    }
    if (commit !== undefined && revision > replica.revision) {
      for (const { index, payload } of payloadsOf(commit, (name) => values.get(name)))
        replica.apply(index, payload);
      replica.complete(commit.index, revision);
    }
    this.#seenRevision = Math.max(this.#seenRevision, revision);
  }

  /** etcd may have been emptied, or set back to a backup, while nobody looked. */
  async #checkContinuation(signal: AbortSignal): Promise<void> {
    const { replica } = this.#options;
    const { commit, commitRevision, revision } = await this.#readHead(signal);
    if (revision >= this.#seenRevision && commit.index >= replica.index) {
      // Nothing is missing up to here, whatever etcd discards. Headers of a watch do not say so: they run ahead of it.
      if (commitRevision === replica.revision) this.#seenRevision = revision;
      return;
    }
    throw new SwarmError(
      'failed-precondition',
      `etcd was set back: it is at entry ${commit.index}, this manager at ${replica.index}`,
      { hint: 'The manager starts again from what etcd has.' },
    );
  }

  async #readHead(
    signal: AbortSignal,
  ): Promise<{ commit: EtcdCommit; commitRevision: number; revision: number }> {
    const { client, keys, clusterId } = this.#options;
    const { header, responses } = await client.call(
      'read the state',
      (member, options) => member.kv.txn({ success: [get(keys.cluster), get(keys.commit)] }, options),
      { signal },
    );
    const [cluster, commit] = responses.map(found);
    requireCluster(cluster, clusterId);
    if (commit === undefined)
      throw new SwarmError('failed-precondition', 'the key "commit" is missing in etcd');
    return {
      commit: decode(EtcdCommitCodec, commit.value),
      commitRevision: revisionOf(commit.mod_revision),
      revision: revisionOf(header.revision),
    };
  }

  async #restoreOnce(signal: AbortSignal): Promise<void> {
    const { commit, commitRevision, revision } = await this.#readHead(signal);
    await this.#options.replica.restore(commit.index, commitRevision, this.#readObjects(revision, signal));
    this.#seenRevision = revision;
  }

  async *#readObjects(revision: number, signal: AbortSignal): AsyncIterable<readonly Uint8Array[]> {
    const { client, keys } = this.#options;
    const range = keys.objects;
    for (let start = range.key; ; ) {
      const { kvs, more } = await client.call(
        'read the objects',
        (member, options) =>
          member.kv.range({ ...range, key: start, revision, limit: PAGE_OBJECTS }, options),
        { signal },
      );
      yield kvs.map(({ value }) => value);
      const last = kvs.at(-1);
      if (!more || last === undefined) return;
      start = Buffer.concat([last.key, Buffer.of(0)]);
    }
  }
}

function requireCluster(kv: IKeyValue | undefined, clusterId: string): void {
  if (kv === undefined)
    throw new SwarmError(
      'failed-precondition',
      `etcd has nothing of cluster ${clusterId} under this prefix`,
      {
        hint: 'Restore etcd from a backup, or correct --store and --store-prefix.',
      },
    );
  const owner = kv.value.toString();
  if (owner !== clusterId)
    throw new SwarmError(
      'failed-precondition',
      `the prefix in etcd belongs to cluster ${owner}, not to ${clusterId}`,
    );
}
