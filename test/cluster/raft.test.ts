// Managers' logs as real processes on hosts of their own: killed, cut off, out of room, replaced. Whatever happens,
// what was acknowledged stays, and what clients saw can be explained by one order of events.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import type { Member } from '../../proto/generated/raft.ts';
import { unexplainedRegister } from '../sim/linearizability.ts';
import { eventually } from '../support/eventually.ts';
import { NetnsLan } from '../support/netns-lan.ts';
import { RaftCluster, type RaftClusterOptions, type RaftProcess } from '../support/raft-cluster.ts';
import { RegisterClients } from '../support/register-clients.ts';

const skip = process.getuid?.() === 0 ? false : 'needs root for network namespaces';
const PORT = 2377;
let lans = 0;

interface Lab {
  readonly lan: NetnsLan;
  readonly cluster: RaftCluster;
}

async function lab(
  stack: AsyncDisposableStack,
  {
    founders,
    spares = 0,
    ...options
  }: { founders: number; spares?: number } & Pick<
    RaftClusterOptions,
    'snapshotInterval' | 'directory' | 'state'
  >,
): Promise<Lab> {
  const lan = stack.use(new NetnsLan(`tr${++lans}x`, founders + spares));
  const addresses = lan.hosts.map((_, position) => `${lan.addressOf(position)}:${PORT}`);
  const cluster = stack.use(
    await RaftCluster.start({
      ...options,
      addresses: addresses.slice(0, founders),
      spares: addresses.slice(founders),
      namespaces: lan.hosts,
    }),
  );
  return { lan, cluster };
}

/** All members have applied the same. */
async function agree(processes: readonly RaftProcess[]): Promise<void> {
  await eventually(async () => {
    const states = await Promise.all(processes.map((process) => process.status()));
    const [first] = states;
    for (const state of states) {
      assert.equal(state.appliedIndex, first?.appliedIndex);
      assert.deepEqual(state.registers.toSorted(), first?.registers.toSorted());
    }
    return true;
  });
}

function checkHistory({ history }: RegisterClients): void {
  assert.equal(unexplainedRegister(history), undefined, 'the history of this register is not linearizable');
}

for (const founders of [3, 5])
  test(`${founders} managers lose no acknowledged write while one after the other is killed`, {
    skip,
  }, async () => {
    await using stack = new AsyncDisposableStack();
    const { cluster } = await lab(stack, { founders, snapshotInterval: 300 });
    const clients = new RegisterClients(cluster.processes);

    for (let round = 0; round < 6; round++) {
      await delay(150);
      const victim = round % 2 === 0 ? await cluster.leader() : cluster.processes[round % founders];
      await victim?.kill();
      await delay(100);
      await victim?.start();
    }
    await cluster.leader();
    await delay(200);
    await clients.stop();

    assert.ok(clients.writes > 100, `only ${clients.writes} writes`);
    await agree(cluster.processes);
    checkHistory(clients);
  });

test('a leader that is cut off stops answering, and the others go on', { skip }, async () => {
  await using stack = new AsyncDisposableStack();
  const { lan, cluster } = await lab(stack, { founders: 3 });
  const clients = new RegisterClients(cluster.processes);
  const old = await cluster.leader();
  const position = cluster.processes.indexOf(old);
  const others = [0, 1, 2].filter((other) => other !== position);

  for (const isBothWays of [true, false]) {
    await delay(100);
    lan.cut(position, others, isBothWays);
    await eventually(() => cluster.processes.some((process) => process !== old && process.isLeader));
    await eventually(() => !old.isLeader);
    const before = clients.writes;
    await eventually(() => clients.writes > before);
    lan.heal();
    await agree([...cluster.processes].filter(({ isLeader }) => !isLeader));
    await cluster.processes[position]?.status();
    const leader = await cluster.leader();
    if (leader !== old) await leader.request({ op: 'transfer' });
    await eventually(async () => (await cluster.leader()).isUp);
  }
  await clients.stop();

  checkHistory(clients);
});

test('without a majority nothing is acknowledged; with it again, all goes on', { skip }, async () => {
  await using stack = new AsyncDisposableStack();
  const { cluster } = await lab(stack, { founders: 3 });
  const leader = await cluster.leader();
  await leader.request({ op: 'write', register: 1, value: 1 });
  const others = cluster.processes.filter((process) => process !== leader);
  for (const process of others) await process.kill();

  await assert.rejects(
    leader.request({ op: 'write', register: 1, value: 2 }),
    /may have been stored|no leader/,
  );
  await assert.rejects(leader.request({ op: 'read', register: 1 }));
  for (const process of others) await process.start();

  const next = await cluster.leader();
  await next.request({ op: 'write', register: 1, value: 3 });
  assert.equal((await next.request<{ value: number }>({ op: 'read', register: 1 })).value, 3);
});

test('a new manager learns everything before it votes, by a snapshot of any size', { skip }, async () => {
  await using stack = new AsyncDisposableStack();
  const state = { snapshotPadding: 100_000 };
  const { cluster } = await lab(stack, { founders: 3, spares: 1, snapshotInterval: 200, state });
  const leader = await cluster.leader();
  for (let register = 0; register < 600; register++)
    await leader.request({ op: 'write', register, value: register });
  const joiner = cluster.processes[3] as RaftProcess;
  await joiner.start();

  await leader.request({ op: 'add', kind: 'add-learner', member: joiner.member });
  await agree(cluster.processes);
  await leader.request({ op: 'add', kind: 'add-voter', member: joiner.member });
  const [leaver] = cluster.processes.filter((process) => process !== leader);
  await leader.request({ op: 'remove', member: leaver?.member as Member });
  await agree([leader, joiner]);

  const { configuration, registers } = await joiner.status();
  assert.equal(registers.length, 600);
  assert.ok(configuration.voters.includes(joiner.member.id));
  assert.equal(configuration.removed.length, 1);
});

test('a manager comes back on another address', { skip }, async () => {
  await using stack = new AsyncDisposableStack();
  const { lan, cluster } = await lab(stack, { founders: 3 });
  const mover = cluster.processes.find(({ isLeader }) => !isLeader) as RaftProcess;
  await mover.kill();
  const host = lan.addressOf(cluster.processes.indexOf(mover));
  const moved = { ...mover.member, address: `${host}:${PORT + 1}` };

  await (await cluster.leader()).request({ op: 'move', member: moved });
  await mover.start({ self: moved });

  await (await cluster.leader()).request({ op: 'write', register: 1, value: 7 });
  await agree(cluster.processes);
});

test('one manager of three goes on alone when that is forced, with everything it had', {
  skip,
}, async () => {
  await using stack = new AsyncDisposableStack();
  const { cluster } = await lab(stack, { founders: 3 });
  const leader = await cluster.leader();
  for (let value = 1; value <= 50; value++) await leader.request({ op: 'write', register: value, value });
  await agree(cluster.processes);
  for (const process of cluster.processes) await process.kill();

  await leader.start({ forceNewCluster: true });
  await eventually(async () => (await leader.status()).role === 'leader');
  await leader.request({ op: 'write', register: 1, value: 99 });
  // The others come back with their old idea of the cluster, and are not heard.
  for (const process of cluster.processes) if (process !== leader) await process.start();
  await delay(300);

  const { configuration, registers, role } = await leader.status();
  assert.equal(role, 'leader');
  assert.deepEqual(configuration.voters, [leader.member.id]);
  assert.equal(configuration.removed.length, 2);
  assert.equal(registers.length, 50);
  assert.equal(new Map(registers).get(1), 99);
});

/** One of three managers leads on a disk of 24 MiB. */
async function leaderOnSmallDisk(
  stack: AsyncDisposableStack,
  lowWatermarkBytes: number,
): Promise<{ cluster: RaftCluster; leader: RaftProcess }> {
  const directory = mkdtempSync(path.join(os.tmpdir(), 'tsw-full-'));
  stack.defer(() => rmSync(directory, { recursive: true }));
  const { cluster } = await lab(stack, { founders: 3, directory });
  const leader = await cluster.leader();
  await leader.kill();
  mkdirSync(leader.config.directory, { recursive: true });
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=24m', 'tmpfs', leader.config.directory]);
  stack.defer(() => {
    execFileSync('umount', [leader.config.directory]);
  });
  stack.defer(() => leader.kill());
  // An empty directory: it comes back as what it is, a member that has lost its disk, under a new id.
  const fresh = { ...leader.member, id: 9 };
  // Whoever leads at first may not stay: one of the others is gone for good.
  const acting = await eventually(async () => {
    const next = await cluster.leader();
    await next.request({ op: 'remove', member: leader.member });
    return next;
  });
  await acting.request({ op: 'add', kind: 'add-learner', member: fresh });
  const { founders: _, ...config } = leader.config;
  await leader.start({ ...config, self: fresh, founders: undefined, lowWatermarkBytes } as never);
  await agree(cluster.processes);
  await acting.request({ op: 'add', kind: 'add-voter', member: fresh });
  await acting.request({ op: 'transfer', to: fresh.id });
  await eventually(() => leader.isLeader);
  return { cluster, leader };
}

test('a manager whose disk is full holds up nobody, and takes part again when there is room', {
  skip,
}, async () => {
  await using stack = new AsyncDisposableStack();
  const { cluster, leader } = await leaderOnSmallDisk(stack, 0);

  writeFileSync(path.join(leader.config.directory, 'filler'), Buffer.alloc(14 * 2 ** 20));
  const write = async () =>
    (await cluster.leader()).request({ op: 'write', register: 1, value: 1, padding: 100_000 });
  await eventually(async () => {
    await write();
    return (await leader.status()).isDiskFull;
  });
  await eventually(() => !leader.isLeader);
  await write();

  rmSync(path.join(leader.config.directory, 'filler'));
  await agree(cluster.processes);
});

test('a leader with little room hands over before a change is refused', { skip }, async () => {
  await using stack = new AsyncDisposableStack();
  const { cluster, leader } = await leaderOnSmallDisk(stack, 8 * 2 ** 20);
  const clients = new RegisterClients(cluster.processes);

  writeFileSync(path.join(leader.config.directory, 'filler'), Buffer.alloc(14 * 2 ** 20));
  await eventually(() => !leader.isLeader, 20_000);
  const before = clients.writes;
  await eventually(() => clients.writes > before + 10);
  await clients.stop();

  const { space, isDiskFull, handOvers } = await leader.status();
  assert.deepEqual({ space, isDiskFull }, { space: 'low', isDiskFull: false });
  assert.equal(handOvers['low-disk'], 1);
  await agree(cluster.processes);
  checkHistory(clients);
});
