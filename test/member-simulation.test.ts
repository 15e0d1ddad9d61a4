// Membership in simulated time: who joins, leaves, is promoted, demoted and certified while machines and network fail.
// TSSWARM_TEST_SEED repeats one run; `npm run simulate -- --world members` hunts with fresh seeds.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import path from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { setLogLevel } from '../rpc/logger.ts';
import { MemberWorld } from './sim/member-world.ts';

setLogLevel('silent');

const DURATION_MS = 60_000;
// The last six have found something.
const FIXED = [
  ...Array.from({ length: 10 }, (_, position) => position + 1),
  929468059,
  1120732631,
  82401290,
  688731099,
  977161983,
  977162041,
];
/** Each is noticed within so many seeds. */
const SEEDS_MAX = 16;
const MUTANTS = [
  'a manager becomes a worker before it has left the members',
  'a manager leaves although the others are no majority',
  'a rotation does not wait for nodes that are down',
  'a demoted node is a manager as long as its certificate says so',
  'a removed node is let in',
  'a certificate is renewed for the role that it has',
];

async function live(seed: number): Promise<MemberWorld> {
  const world = new MemberWorld(seed);
  try {
    await world.run(DURATION_MS);
  } catch (error) {
    throw new Error(`TSSWARM_TEST_SEED=${seed}\n${world.describe()}`, { cause: error });
  }
  return world;
}

const chosen = process.env['TSSWARM_TEST_SEED'];

test('members keep their promises, whatever becomes of their machines, clocks and roles', async () => {
  const counts = new Map<string, number>();
  for (const seed of chosen === undefined ? FIXED : [Number(chosen)])
    for (const [rule, count] of (await live(seed)).checks.counts)
      counts.set(rule, (counts.get(rule) ?? 0) + count);
  if (chosen !== undefined) return;
  // The runs were about something.
  const rules = [
    'one leader',
    'admission',
    'certificate',
    'own certificate',
    'majority',
    'demotion',
    'rotation',
  ];
  for (const rule of rules) assert.ok((counts.get(rule) ?? 0) > 0, `${rule} was never checked`);
});

test('a seed repeats its run', async () => {
  const [one, other] = [await live(7), await live(7)];

  assert.deepEqual(one.checks.counts, other.checks.counts);
  assert.equal(one.time.events, other.time.events);
});

for (const name of MUTANTS)
  test(`the simulation notices that ${name}`, async () => {
    const child = path.join(import.meta.dirname, 'sim/world-mutant-child.ts');
    const args = [child, 'members', name, String(SEEDS_MAX), String(DURATION_MS)];
    const { stdout } = await promisify(execFile)(process.execPath, args);
    assert.ok(JSON.parse(stdout).noticed, `${SEEDS_MAX} seeds did not notice it`);
  });
