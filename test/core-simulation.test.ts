// The consensus core under every fault that the simulation knows, and the simulation under every bug of the catalogue:
// a test that does not notice a planted bug would not notice a real one. TSSWARM_TEST_SEED repeats the fresh seeds.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { shortest } from './sim/core-run.ts';
import { describeFailure, hunt, huntMutants } from './sim/hunt.ts';
import { MUTANTS, mutate, sourceOf } from './sim/mutants.ts';

const STEPS = 4000;
const SEEDS = 1000;
const MUTANT_SEEDS = 3_000;
const MUTANTS_MIN = 40;

test('millions of faults break none of the properties of the core', async (t) => {
  const fresh = Number(process.env['TSSWARM_TEST_SEED'] ?? Math.floor(Math.random() * 2 ** 31));

  const reports = [
    await hunt({ first: 1, count: SEEDS, steps: STEPS }),
    await hunt({ first: fresh, count: SEEDS, steps: STEPS }),
    await hunt({ first: fresh, count: 20, steps: 100 * STEPS }),
  ];

  for (const { runs, steps, elapsedMs } of reports)
    t.diagnostic(`${runs} runs, ${steps} steps, ${Math.round(steps / (elapsedMs / 1000))} steps/s`);
  const failures = reports.flatMap((report) => report.failures).map(shortest);
  assert.deepEqual(failures, [], `TSSWARM_TEST_SEED=${fresh}\n${failures.map(describeFailure).join('\n')}`);
});

test('every planted bug fits the source that it changes', () => {
  for (const mutant of MUTANTS) assert.notEqual(mutate(mutant, sourceOf(mutant)), sourceOf(mutant));
  assert.equal(new Set(MUTANTS.map(({ name }) => name)).size, MUTANTS.length);
  assert.ok(MUTANTS.length >= MUTANTS_MIN);
});

test('every planted bug is noticed', async (t) => {
  const names = MUTANTS.map(({ name }) => name);

  const kills = await huntMutants(names, { seeds: MUTANT_SEEDS, steps: STEPS });

  for (const { name, rule, seed } of kills)
    t.diagnostic(`${`${rule}`.padEnd(14)} seed ${`${seed}`.padEnd(4)} ${name}`);
  assert.deepEqual(
    kills.filter(({ rule }) => rule === undefined).map(({ name }) => name),
    [],
  );
});
