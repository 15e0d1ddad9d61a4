// A minute of the soak (`npm run soak -- network`): services change all the time, and no request fails.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { NetworkSoak } from '../soak/network-soak.ts';
import { whyNoRealNode } from '../support/real-node.ts';

const DURATION_MS = 60_000;

test('services that are deployed, scaled, updated, killed and moved fail no request', {
  skip: whyNoRealNode() ?? false,
}, async (t) => {
  const seed = Number(process.env['TSSWARM_TEST_SEED'] ?? Math.floor(Math.random() * 2 ** 31));
  t.diagnostic(`seed ${seed} (TSSWARM_TEST_SEED)`);
  const report = await NetworkSoak.run('tsn', { seed, durationMs: DURATION_MS, say: () => {} });
  const changes = Object.values(report.changes).reduce((sum, count) => sum + count, 0);
  t.diagnostic(
    `${report.requests} requests, ${changes} changes, ${report.cutFailures} failures in announced cuts`,
  );
  assert.ok(report.requests > 1_000 && changes > 10);
  assert.deepEqual(report.failures, []);
});
