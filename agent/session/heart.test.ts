import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { FakeClock } from '../../core/clock.ts';
import { Heart } from './heart.ts';

const PERIOD_MS = 5_000;

/** A heart that beats over a network which is there or not. */
function beating(): {
  heart: Heart;
  network: { isThere: boolean };
  events: string[];
  pass: (ms: number) => Promise<void>;
} {
  const clock = new FakeClock(0);
  const network = { isThere: true };
  const events: string[] = [];
  const heart = new Heart({
    clock,
    pulse: () => events.push('pulse'),
    onLost: () => events.push('lost'),
    reach: async () => network.isThere,
  });
  const pass = async (ms: number) => {
    for (let passed = 0; passed < ms; passed += 100) {
      clock.advance(100);
      for (let i = 0; i < 5; i++) await turn();
    }
  };
  heart.beat(PERIOD_MS);
  return { heart, network, events, pass };
}

test('a manager that answers is asked once in a period', async () => {
  const { heart, events, pass } = beating();
  for (let count = 0; count < 3; count++) {
    await pass(PERIOD_MS);
    heart.hear();
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

test('a session that was cut off is given up soon after the network is back', async () => {
  const { network, events, pass } = beating();
  network.isThere = false;
  await pass(PERIOD_MS + 4_000);
  assert.deepEqual(events, ['pulse']);
  network.isThere = true;
  await pass(700);
  assert.deepEqual(events, ['pulse', 'lost']);
});

test('a connection that comes back by itself after a cut is kept', async () => {
  const { heart, network, events, pass } = beating();
  network.isThere = false;
  await pass(PERIOD_MS + 2_000);
  network.isThere = true;
  heart.hear();
  await pass(3_000);
  assert.deepEqual(events, ['pulse']);
});

test('a heart that was stopped does nothing', async () => {
  const { heart, network, events, pass } = beating();
  network.isThere = false;
  await pass(PERIOD_MS + 2_000);
  heart.stop();
  network.isThere = true;
  await pass(10 * PERIOD_MS);
  assert.deepEqual(events, ['pulse']);
});
