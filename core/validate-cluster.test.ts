// What of a cluster's settings is refused.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { defaultClusterSpec } from './defaults.ts';
import type { ClusterSpec } from './generated/objects.ts';
import { validateClusterSpec } from './validate-cluster.ts';

const check = (change: Partial<ClusterSpec>) => () =>
  validateClusterSpec({ ...defaultClusterSpec, ...change });

test('times after which a node is suspect fit its heartbeats', () => {
  assert.doesNotThrow(check({ nodeSuspectAfterMs: 15_000 }));
  assert.doesNotThrow(check({ nodeSuspectAfterMs: 0 }));
  for (const nodeSuspectAfterMs of [5_000, 15_001])
    assert.throws(
      check({ nodeSuspectAfterMs }),
      /node-suspect-after: must be more than one heartbeat period \(5000 ms\)/,
    );
  assert.throws(check({ nodeSuspectAfterMs: 10_000, heartbeatPeriodMs: 1_000 }), /and at most three/);
});

test('how soon tasks are orphaned, and how many nodes are given up, has bounds', () => {
  assert.throws(check({ orphanAfterMs: 9_999 }), /orphan-after: must be 10s or more, it is 9999 ms/);
  for (const rescheduleMaxPercent of [-1, 101])
    assert.throws(check({ rescheduleMaxPercent }), /reschedule-max: must be 0 to 100 percent/);
});
