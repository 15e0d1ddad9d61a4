// The loop of roles on a store: when nodes that have left are removed.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FakeClock } from '../../core/clock.ts';
import { defaultClusterNetwork, defaultClusterSpec } from '../../core/defaults.ts';
import { emptyClusterSecrets, emptyMeta } from '../../core/generated/objects.ts';
import { setLogLevel } from '../../rpc/logger.ts';
import { aNode, NOW_MS } from '../../test/support/builders.ts';
import { eventually } from '../../test/support/eventually.ts';
import { MemoryLog } from '../../test/support/memory-log.ts';
import { Store } from '../store/store.ts';
import { runRoleLoop } from './role-loop.ts';

setLogLevel('silent');
const HOUR_MS = 3_600_000;

test('a worker that was down when nobody led has time to come back before it is removed', async (t) => {
  const clock = new FakeClock(NOW_MS);
  const store = new Store(new MemoryLog(), clock);
  await store.open();
  const stop = new AbortController();
  t.after(() => stop.abort());
  const [gone, back] = ['gone', 'back'].map((id) => {
    const node = aNode(id, { state: 'down' });
    return { ...node, status: { ...node.status, sinceMs: NOW_MS - HOUR_MS } };
  }) as [ReturnType<typeof aNode>, ReturnType<typeof aNode>];
  const spec = { ...defaultClusterSpec, departedNodeAfterMs: 60_000 };
  await store.update((tx) => {
    tx.create('cluster', {
      id: 'c',
      meta: emptyMeta,
      spec,
      secrets: emptyClusterSecrets,
      network: defaultClusterNetwork,
    });
    for (const node of [gone, back]) tx.create('node', node);
  });
  const options = { store, clock, consensus: undefined, selfId: 'm1', hasSession: () => true };
  void runRoleLoop(options, stop.signal);

  const graceMs = 6 * spec.heartbeatPeriodMs;
  await eventually(() => clock.nextAtMs === NOW_MS + graceMs);
  assert.equal(store.view.node.size, 2);
  await store.update((tx) => tx.update('node', { ...back, status: { ...back.status, state: 'ready' } }));

  await eventually(() => store.view.node.size === 1 || void clock.advance(graceMs));
  assert.notEqual(store.view.node.get('back'), undefined);
});
