// The replicated log of a manager that is alone, on a real directory.

import { randomBytes } from 'node:crypto';
import { noPeers } from '../../manager/raft-host/peers.ts';
import { RaftHost } from '../../manager/raft-host/raft-host.ts';
import { RealDisk } from '../../manager/raft-host/real-disk.ts';
import { systemClock } from '../../node/system-clock.ts';

const SELF = { id: 1, nodeId: 'n1', address: '127.0.0.1:2377' };

/** Not open yet: the store opens it. A disk that fails ends the process. */
export async function newLoneRaft(directory: string, snapshotInterval: number): Promise<RaftHost> {
  const onFatal = (error: unknown) => {
    throw error;
  };
  return new RaftHost({
    log: { disk: await RealDisk.open(directory), randomBytes, onFatal },
    clusterId: 'cluster',
    self: SELF,
    founders: [SELF],
    openNetwork: noPeers,
    clock: systemClock,
    random: Math.random,
    defer: setImmediate,
    snapshotInterval: () => snapshotInterval,
  });
}
