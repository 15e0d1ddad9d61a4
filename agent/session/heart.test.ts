import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { FakeClock } from '../../core/clock.ts';
import { Heart } from './heart.ts';

const PERIOD_MS = 5_000;
const KEEPALIVE_MS = 1_000;

/** A heart that beats over a network which is there or not. */
function beating(): {
  heart: Heart;
  network: { isThere: boolean };
  events: string[];
  pass: (ms: number) => Promise<void>;
  /** Something comes from the manager. */
  hear: () => void;
} {
  const clock = new FakeClock(0);
  const network = { isThere: true };
  const events: string[] = [];
  let heardMs = 0;
  const heart = new Heart({
    clock,
    pulse: () => events.push('pulse'),
    onLost: () => events.push('lost'),
    silenceMs: () => clock.nowMs() - heardMs,
    reach: async () => network.isThere,
  });
  const pass = async (ms: number) => {
    for (let passed = 0; passed < ms; passed += 50) {
      clock.advance(50);
      if (network.isThere && clock.nowMs() % KEEPALIVE_MS === 0) heardMs = clock.nowMs();
      for (let i = 0; i < 5; i++) await turn();
    }
  };
  const hear = () => {
    heardMs = clock.nowMs();
    heart.hear();
  };
  heart.beat(PERIOD_MS);
  return { heart, network, events, pass, hear };
}

test('a manager that answers is asked once in a period', async () => {
  const { heart, events, pass, hear } = beating();
  for (let count = 0; count < 3; count++) {
    await pass(PERIOD_MS);
    hear();
    heart.beat(PERIOD_MS);
  }
  assert.deepEqual(events, ['pulse', 'pulse', 'pulse']);
});

test('a manager that is silent while its machine is there is given two and a half periods', async () => {
  const { events, pass } = beating();
  await pass(2.4 * PERIOD_MS);
  assert.deepEqual(events, ['pulse']);
  await pass(0.1 * PERIOD_MS);
  assert.deepEqual(events, ['pulse', 'lost']);
});

test('a manager that does not answer the registration is given three periods of what is usual', async () => {
  const { heart, events, pass } = beating();
  heart.stop();
  heart.begin();
  await pass(2.9 * PERIOD_MS);
  assert.deepEqual(events, []);
  await pass(0.1 * PERIOD_MS);
  assert.deepEqual(events, ['lost']);

  heart.begin();
  heart.beat(10 * PERIOD_MS);
  await pass(4 * PERIOD_MS);
  assert.deepEqual(events, ['lost']);
});

test('a session that was cut off is given up soon after the network is back', async () => {
  for (const cutMs of [1_500, 2_500, 9_000]) {
    const { network, events, pass } = beating();
    network.isThere = false;
    await pass(cutMs);
    const before = [...events];
    assert.ok(!before.includes('lost'));
    network.isThere = true;
    await pass(750);
    assert.deepEqual(events, [...before, 'pulse', 'lost'], `${cutMs} ms`);
  }
});

test('a manager that answers after a short silence keeps its session', async () => {
  const { network, events, pass, hear } = beating();
  network.isThere = false;
  await pass(1_400);
  network.isThere = true;
  await pass(500);
  assert.deepEqual(events, ['pulse']);
  hear();
  await pass(2_000);
  assert.deepEqual(events, ['pulse']);
});

test('a connection that comes back by itself after a cut is kept', async () => {
  const { network, events, pass, hear } = beating();
  network.isThere = false;
  await pass(3_000);
  network.isThere = true;
  await pass(200);
  hear();
  await pass(1_500);
  assert.ok(!events.includes('lost'));
});

test('a heart that was stopped does nothing', async () => {
  const { heart, network, events, pass } = beating();
  network.isThere = false;
  await pass(3_000);
  heart.stop();
  network.isThere = true;
  await pass(10 * PERIOD_MS);
  assert.deepEqual(events, []);
});
