import { mkdtemp, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { after, type TestContext } from 'node:test';
import { setLogLevel } from '../../rpc/logger.ts';
import { newEtcdLog } from '../../test/support/etcd-cluster.ts';
import { newLoneRaft } from '../../test/support/lone-raft.ts';
import { MemoryLog } from '../../test/support/memory-log.ts';
import { missingForEtcd, RealEtcd } from '../../test/support/real-etcd.ts';
import { describeStore } from '../../test/support/store-contract.ts';
import type { ReplicatedLog } from './replicated-log.ts';

setLogLevel('silent');

async function newRaftLog(t: TestContext): Promise<ReplicatedLog> {
  const directory = await mkdtemp(path.join(os.tmpdir(), 'tsw-store-'));
  const log = await newLoneRaft(directory, 10_000);
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
