// Leadership that moves by itself, in simulated time: whole members, each on a disk of its own.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { defined } from '../core/assert.ts';
import { setLogLevel } from '../rpc/logger.ts';
import { HostWorld, type HostWorldOptions, type Machine } from './sim/host-world.ts';

setLogLevel('silent');

const SEEDS = [1, 2, 3];

async function aCluster(
  seed: number,
  options: HostWorldOptions = {},
): Promise<{ world: HostWorld; leader: Machine }> {
  const world = new HostWorld(seed, { size: 3, isCalm: true, ...options });
  world.begin();
  await world.advance(5_000);
  return { world, leader: defined(world.leader, `seed ${seed}: nobody leads`) };
}

function handOvers(machine: Machine) {
  return defined(machine.host, 'it runs').status.handOvers;
}

for (const seed of SEEDS) {
  test(`a leader whose disk became slow hands leadership to a healthy one, once (seed ${seed})`, async () => {
    const { world, leader } = await aCluster(seed);

    leader.diskDelayMs = 400;
    await world.advance(20_000);

    const next = defined(world.leader, 'nobody leads');
    assert.notEqual(next, leader);
    assert.deepEqual(handOvers(leader), { 'slow-disk': 1, 'low-disk': 0, 'full-disk': 0 });
    const { term } = defined(next.host, 'it runs').status;
    const answered = world.history.length;
    await world.advance(10_000);
    assert.equal(world.leader?.host?.status.term, term);
    assert.ok(world.history.length > answered + 500, `${world.history.length - answered} calls`);
  });

  test(`where all disks are slow leadership moves once a minute at most (seed ${seed})`, async () => {
    const { world } = await aCluster(seed);

    for (const machine of world.machines) machine.diskDelayMs = 400;
    const minutes = 4;
    await world.advance(minutes * 60_000);

    for (const machine of world.machines) assert.ok(handOvers(machine)['slow-disk'] <= minutes + 1);
  });

  test(`a leader hands over while there is still some room, and no call fails (seed ${seed})`, async () => {
    const { world, leader } = await aCluster(seed, { lowWatermarkBytes: 256 * 1024 });
    const host = defined(leader.host, 'it runs');

    leader.disk.capacityBytes = leader.disk.usedBytes + 200 * 1024;
    await world.advance(15_000);

    assert.notEqual(world.leader, leader);
    assert.equal(host.status.space, 'low');
    assert.equal(host.status.isDiskFull, false);
    assert.deepEqual(handOvers(leader), { 'slow-disk': 0, 'low-disk': 1, 'full-disk': 0 });
    // Whoever has it now gives it back.
    await Promise.all([world.leader?.host?.transferLeadership(leader.member.id), world.advance(10_000)]);
    assert.equal(world.leader, leader);
    leader.disk.capacityBytes = Number.POSITIVE_INFINITY;
    await world.advance(15_000);
    assert.equal(host.status.space, 'ok');
  });
}
