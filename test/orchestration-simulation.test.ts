// The orchestration in simulated time: three managers with every loop of theirs, machines with tasks, and operators, while
// leaders change, machines crash or come back as others and messages are lost. What must hold is in
// sim/orchestration-checks.ts, sim/service-checks.ts, sim/placement-checks.ts and sim/orchestration-rest.ts. TSSWARM_TEST_SEED repeats one run; `npm run simulate -- --world
// orchestration` hunts with fresh seeds.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import path from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { setLogLevel } from '../rpc/logger.ts';
import { orchestrationMutantFits } from './sim/orchestration-mutants.ts';
import { OrchestrationWorld } from './sim/orchestration-world.ts';
import { RollingUpdate } from './sim/rolling-update.ts';

setLogLevel('silent');

const DURATION_MS = 60_000;
/** Between them they check every rule. Fresh ones are for the hunt. */
const FIXED = [
  3, 7, 9, 16, 28, 32, 116828792, 116828843, 116828901, 116828961, 116829006, 116829017, 116829020, 595178173,
];
/** Each is noticed within so many seeds. All planted bugs: `npm run simulate -- --world orchestration --mutant all`. */
const SEEDS_MAX = 16;
const MUTANTS = [
  'an allocator forgets what tasks have when it begins',
  'a completed slot of a job begins again',
  'the reaper forgets tasks that still run',
  'a card is given to several tasks',
  'the scheduler forgets affinities',
  'a new version of a secret goes to nobody',
];
/** What the runs have to have been about. */
const RULES = [
  'one a slot',
  'count',
  'at once',
  'completions',
  'floor',
  'addresses',
  'host ports',
  'room',
  'accounts',
  'closed nodes',
  'states grow',
  'reaping',
  'overbooked',
  'names',
  'affinities',
  'brake',
  'drains',
  'stored as written',
];

const chosen = process.env['TSSWARM_TEST_SEED'];

async function live(seed: number): Promise<OrchestrationWorld> {
  const world = new OrchestrationWorld(seed);
  try {
    await world.run(DURATION_MS);
  } catch (error) {
    throw new Error(`TSSWARM_TEST_SEED=${seed}\n${world.describe()}`, { cause: error });
  }
  return world;
}

test('services are what was asked for, whatever becomes of managers, machines and messages (B3, B4, B5, B13, B14, B16)', async () => {
  const counts = new Map<string, number>();
  for (const seed of chosen === undefined ? FIXED : [Number(chosen)])
    for (const [rule, count] of (await live(seed)).checks.counts)
      counts.set(rule, (counts.get(rule) ?? 0) + count);
  if (chosen !== undefined) return;
  for (const rule of RULES) assert.ok((counts.get(rule) ?? 0) > 0, `${rule} was never checked`);
});

test('a seed repeats its run', async () => {
  const [one, other] = [await live(5), await live(5)];

  assert.deepEqual(one.checks.counts, other.checks.counts);
  assert.equal(one.time.events, other.time.events);
});

test('a rolling update of many services at once comes to its end and never goes below the floor', async () => {
  const update = new RollingUpdate(1, { services: 20, replicas: 10, agents: 10 });

  const { lowest } = await update.run();

  assert.equal(lowest, 9, 'of ten tasks one at a time is replaced');
});

test('every planted bug fits the source', () => {
  const stale = orchestrationMutantFits().filter(({ count }) => count !== 1);
  assert.deepEqual(stale, []);
});

for (const name of MUTANTS)
  test(`the simulation notices that ${name}`, async () => {
    const child = path.join(import.meta.dirname, 'sim/world-mutant-child.ts');
    const args = [child, 'orchestration', name, String(SEEDS_MAX), String(DURATION_MS)];
    const { stdout } = await promisify(execFile)(process.execPath, args);
    assert.ok(JSON.parse(stdout).noticed, `${SEEDS_MAX} seeds did not notice it`);
  });
