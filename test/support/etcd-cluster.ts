// Managers' logs over one etcd, several in this process.

import { foundInEtcd } from '../../manager/etcd-log/cluster-prefix.ts';
import { EtcdLog, type EtcdLogOptions, type EtcdTiming } from '../../manager/etcd-log/etcd-log.ts';
import type { EtcdSettings } from '../../manager/etcd-log/settings.ts';
import { Store } from '../../manager/store/store.ts';
import { systemClock } from '../../node/system-clock.ts';

/** Of the shortest lease that etcd grants: what waits for its end does not wait long. */
export const LEASE_SECONDS = 2;
export const TEST_TIMING: EtcdTiming = {
  leaseSeconds: LEASE_SECONDS,
  historyMs: 3_600_000,
  callLimitMs: 4_000,
};
const CLUSTER_ID = 'cluster';

/** The log of a manager in a cluster that begins with it, or exists already. */
export async function newEtcdLog(
  settings: EtcdSettings,
  nodeId = 'n1',
  options: Partial<EtcdLogOptions> = {},
): Promise<EtcdLog> {
  await foundInEtcd(settings, CLUSTER_ID, systemClock);
  return new EtcdLog({ ...aManager(settings, nodeId), ...options });
}

export function aManager(settings: EtcdSettings, nodeId = 'n1'): EtcdLogOptions {
  return {
    settings,
    clusterId: CLUSTER_ID,
    self: { nodeId, address: `${nodeId}:2377` },
    clock: systemClock,
    defer: setImmediate,
    onFatal: (error) => {
      throw error;
    },
    timing: TEST_TIMING,
  };
}

export interface EtcdManagerUnderTest extends AsyncDisposable {
  readonly log: EtcdLog;
  readonly store: Store;
}

/** A manager that has opened its store. */
export async function startEtcdManager(
  settings: EtcdSettings,
  nodeId: string,
  options: Partial<EtcdLogOptions> = {},
): Promise<EtcdManagerUnderTest> {
  const log = await newEtcdLog(settings, nodeId, options);
  const store = new Store(log, systemClock);
  await store.open();
  return { log, store, [Symbol.asyncDispose]: () => log[Symbol.asyncDispose]() };
}
