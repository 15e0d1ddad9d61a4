// Founding a cluster in etcd, and removing it: what `init` and the end of the last manager do, outside any leadership.

import type { Clock } from '../../core/clock.ts';
import { hasCode, SwarmError } from '../../core/errors.ts';
import { EtcdCommitCodec, emptyEtcdCommit } from '../../proto/generated/etcd.ts';
import { encode } from '../../proto/wire.ts';
import { EtcdClient } from './etcd-client.ts';
import { found, get, Keys, put, remove } from './keys.ts';
import type { EtcdSettings } from './settings.ts';

/** Takes an empty prefix for the cluster. Doing it twice is harmless; any other content is left alone. */
export async function foundInEtcd(settings: EtcdSettings, clusterId: string, clock: Clock): Promise<void> {
  const { keys, client } = open(settings, clock);
  try {
    const request = client.call('begin a cluster', (member, options) =>
      member.kv.txn(
        {
          compare: [{ ...keys.all, target: 'Create', result: 'Equal', create_revision: 0 }],
          success: [
            put(keys.cluster, Buffer.from(clusterId)),
            put(keys.commit, encode(EtcdCommitCodec, emptyEtcdCommit)),
          ],
          failure: [get(keys.cluster)],
        },
        options,
      ),
    );
    const { succeeded, responses } = await request.catch((error: unknown) => {
      // "unavailable" would mean this node's own daemon to whoever asked it.
      if (!hasCode(error, 'unavailable')) throw error;
      throw new SwarmError('failed-precondition', error.message, { ...(error.hint && { hint: error.hint }) });
    });
    const owner = succeeded ? clusterId : found(responses[0])?.value.toString();
    if (owner === clusterId) return;
    const holder = owner === undefined ? 'keys of something else' : `cluster ${owner}`;
    throw new SwarmError('failed-precondition', `etcd already holds ${holder} under ${settings.prefix}`, {
      hint: `Choose another --store-prefix, or remove it: etcdctl del --prefix ${settings.prefix}/`,
    });
  } finally {
    client.close();
  }
}

/** Removes everything of the cluster, if it is the one that lies there. */
export async function eraseFromEtcd(settings: EtcdSettings, clusterId: string, clock: Clock): Promise<void> {
  const { keys, client } = open(settings, clock);
  try {
    await client.call('erase the cluster', (member, options) =>
      member.kv.txn(
        {
          compare: [{ key: keys.cluster, target: 'Value', result: 'Equal', value: Buffer.from(clusterId) }],
          success: [remove(keys.all)],
        },
        options,
      ),
    );
  } finally {
    client.close();
  }
}

function open(settings: EtcdSettings, clock: Clock): { keys: Keys; client: EtcdClient } {
  return { keys: new Keys(settings.prefix), client: new EtcdClient(settings, clock) };
}
