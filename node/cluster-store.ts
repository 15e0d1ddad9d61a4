// Where a cluster's state lies, as far as the daemon has to know: what of it begins before the first manager, and ends
// after the last.

import { messageOf, SwarmError } from '../core/errors.ts';
import type { EtcdSettings } from '../manager/etcd-log/settings.ts';
import type { Identity } from './identity.ts';
import { nodeLog } from './log.ts';
import { systemClock } from './system-clock.ts';

/** A cluster in etcd begins before its first manager does: what stands in the way is then the answer to `init`. */
export async function foundClusterStore(etcd: EtcdSettings | undefined, clusterId: string): Promise<void> {
  if (etcd === undefined) return;
  const { foundInEtcd } = await import('../manager/etcd-log/cluster-prefix.ts');
  await foundInEtcd(etcd, clusterId, systemClock);
}

/** The last manager takes the cluster with it, also out of etcd. */
export async function eraseClusterStore(etcd: EtcdSettings | undefined, clusterId: string): Promise<void> {
  if (etcd === undefined) return;
  try {
    const { eraseFromEtcd } = await import('../manager/etcd-log/cluster-prefix.ts');
    await eraseFromEtcd(etcd, clusterId, systemClock);
  } catch (error) {
    nodeLog.error(
      { error: messageOf(error), 'cluster.id': clusterId },
      'the cluster could not be removed from etcd',
    );
  }
}

/** A manager with the wrong store would begin an empty cluster, and this node's containers would be none of it. */
export function requireSameStore({ store }: Identity, configured: 'raft' | 'etcd'): void {
  if (store === configured) return;
  throw new SwarmError(
    'failed-precondition',
    `this node's cluster keeps its state in ${store}, but the daemon is told to use ${configured}`,
    {
      hint: `Start it with "--store ${store === 'raft' ? 'raft' : 'etcd=HOST:PORT'}", as when the cluster began.`,
    },
  );
}
