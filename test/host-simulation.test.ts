// Whole members in simulated time: host, core and log on disks that fail. TSSWARM_TEST_SEED repeats one run.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setLogLevel } from '../rpc/logger.ts';
import { HostWorld } from './sim/host-world.ts';

setLogLevel('silent');

const DURATION_MS = 20_000;
const FIXED = Array.from({ length: 30 }, (_, position) => position + 1);
const FRESH = 20;

async function live(seed: number): Promise<HostWorld> {
  const world = new HostWorld(seed);
  try {
    await world.run(DURATION_MS);
  } catch (error) {
    throw new Error(`TSSWARM_TEST_SEED=${seed}\n${world.describe()}`, { cause: error });
  }
  return world;
}

const chosen = process.env['TSSWARM_TEST_SEED'];
const first = Math.floor(Math.random() * 2 ** 31);
const fresh = Array.from({ length: FRESH }, (_, position) => first + position);

test('members keep their promises, whatever their disks, network and processes do', async (t) => {
  const seeds = chosen === undefined ? [...FIXED, ...fresh] : [Number(chosen)];
  t.diagnostic(`fresh seeds from ${first}`);
  const faults = new Set<string>();
  let answered = 0;
  for (const seed of seeds) {
    const world = await live(seed);
    for (const name of world.faults.keys()) faults.add(name);
    answered += world.history.filter(({ returned }) => returned !== undefined).length;
  }
  if (chosen !== undefined) return;
  // The runs were about something.
  assert.ok(answered > 10_000, `${answered} calls`);
  assert.equal(faults.size, 15, [...faults].join());
});

test('a seed repeats its run', async () => {
  const [one, other] = [await live(7), await live(7)];

  assert.deepEqual(one.history, other.history);
  assert.equal(one.time.events, other.time.events);
});
