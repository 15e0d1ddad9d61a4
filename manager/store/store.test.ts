import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { after, type TestContext } from 'node:test';
import { systemClock } from '../../node/system-clock.ts';
import { setLogLevel } from '../../rpc/logger.ts';
import { newEtcdLog } from '../../test/support/etcd-cluster.ts';
import { MemoryLog } from '../../test/support/memory-log.ts';
import { missingForEtcd, RealEtcd } from '../../test/support/real-etcd.ts';
import { describeStore } from '../../test/support/store-contract.ts';
import { newMemberId } from '../raft-host/member-id.ts';
import { noPeers } from '../raft-host/peers.ts';
import { RaftHost } from '../raft-host/raft-host.ts';
import { RealDisk } from '../raft-host/real-disk.ts';
import type { ReplicatedLog } from './replicated-log.ts';

setLogLevel('silent');

async function newRaftLog(t: TestContext): Promise<ReplicatedLog> {
  const directory = await mkdtemp(path.join(os.tmpdir(), 'tsw-store-'));
  const self = { id: newMemberId(randomBytes), nodeId: 'n1', address: '127.0.0.1:2377' };
  const onFatal = (error: unknown) => {
    throw error;
  };
  const log = new RaftHost({
    log: { disk: await RealDisk.open(directory), randomBytes, onFatal },
    clusterId: 'cluster',
    self,
    founders: [self],
    openNetwork: noPeers,
    clock: systemClock,
    random: Math.random,
    defer: setImmediate,
    snapshotInterval: 10_000,
  });
  t.after(async () => {
    // A log that is open still makes files.
    await log[Symbol.asyncDispose]();
    await rm(directory, { recursive: true });
  });
  return log;
}

let etcd: Promise<RealEtcd> | undefined;
let prefixes = 0;
after(async () => (await etcd)?.[Symbol.asyncDispose]());

describeStore({ name: 'a log in memory', newLog: async () => new MemoryLog() });
describeStore({ name: 'Raft', newLog: newRaftLog });
describeStore({
  name: 'etcd',
  skip: missingForEtcd,
  newLog: async () => {
    etcd ??= RealEtcd.start();
    return newEtcdLog((await etcd).settings({ prefix: `/tsswarm/${++prefixes}` }));
  },
});
