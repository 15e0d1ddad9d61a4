// A manager whose state is not that of the others finds out, in simulated time. That nobody does whose state is theirs is
// checked by every run of host-simulation.test.ts.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { defined } from '../core/assert.ts';
import { setLogLevel } from '../rpc/logger.ts';
import { HostWorld, isDivergence, type Machine } from './sim/host-world.ts';

setLogLevel('silent');

async function aCluster(seed: number): Promise<{ world: HostWorld; leader: Machine; follower: Machine }> {
  const world = new HostWorld(seed, { size: 3, isCalm: true });
  world.begin();
  await world.advance(5_000);
  const leader = defined(world.leader, `seed ${seed}: nobody leads`);
  const follower = defined(
    world.machines.find((machine) => machine !== leader),
    'a follower',
  );
  return { world, leader, follower };
}

/** A bit in memory turns over. */
function spoil({ registers }: Machine): void {
  registers.values = registers.values.map((value) => value ^ 4);
}

function diverged(machine: Machine): boolean {
  return machine.fatal.some(isDivergence);
}

function verified({ host }: Machine): number {
  return defined(host, 'it runs').status.verifiedIndex;
}

for (const seed of [1, 2, 3, 4]) {
  test(`members that agree know it, and none of them ends (seed ${seed})`, async () => {
    const { world } = await aCluster(seed);

    await world.advance(3_000);

    for (const machine of world.machines) {
      const { appliedIndex } = defined(machine.host, 'it runs').status;
      assert.ok(verified(machine) > appliedIndex / 2, `${verified(machine)} of ${appliedIndex}`);
      assert.deepEqual(machine.fatal, []);
    }
  });

  test(`a follower whose state is another ends, the others go on (seed ${seed})`, async () => {
    const { world, leader, follower } = await aCluster(seed);

    spoil(follower);
    await world.advance(3_000);

    assert.ok(diverged(follower));
    for (const machine of world.machines) if (machine !== follower) assert.ok(!diverged(machine));
    assert.equal(world.leader, leader);
  });

  test(`a leader whose state is another ends, not those who differ from it (seed ${seed})`, async () => {
    const { world, leader } = await aCluster(seed);

    spoil(leader);
    await world.advance(5_000);

    assert.ok(diverged(leader));
    assert.ok(world.leader !== undefined);
    for (const machine of world.machines) if (machine !== leader) assert.ok(!diverged(machine));
  });
}
