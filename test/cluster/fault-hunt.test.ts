// Some rounds of the hunt (`npm run soak -- faults`): what is killed at whatever moment, services come up and leave nothing.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FaultHunt } from '../soak/fault-hunt.ts';
import { whyNoRealNode } from '../support/real-node.ts';

const ROUNDS = 6;

test('a service comes up and goes without a trace, whatever of its node is killed at whatever moment', {
  skip: whyNoRealNode() ?? false,
}, async (t) => {
  const seed = Number(process.env['TSSWARM_TEST_SEED'] ?? Math.floor(Math.random() * 2 ** 31));
  t.diagnostic(`seed ${seed} (TSSWARM_TEST_SEED)`);
  const report = await FaultHunt.run('tsg', {
    seed,
    goesOn: (round) => round < ROUNDS,
    say: t.diagnostic.bind(t),
  });
  t.diagnostic(`killed: ${JSON.stringify(report.kills)}`);
  assert.equal(report.rounds, ROUNDS);
});
