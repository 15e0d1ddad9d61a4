import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { defined } from '../core/assert.ts';
import { FakeClock } from '../core/clock.ts';
import { describeCertificate } from '../rpc/certificates.ts';
import { newIdentities } from '../test/support/test-authority.ts';
import { RenewalTimer } from './renewal-timer.ts';

/** A node whose renewals fail until `succeeds` is set. */
async function start() {
  const { certificate } = defined((await newIdentities(['own'])).get('own'), 'an identity');
  const { notBeforeMs, notAfterMs } = describeCertificate(certificate);
  const clock = new FakeClock(notBeforeMs);
  const node = { succeeds: false, attemptsMs: [] as number[], retriesMs: [] as number[] };
  const stopping = new AbortController();
  const timer = new RenewalTimer(
    {
      clock,
      random: () => 0,
      certificate: () => certificate,
      renew: async () => {
        node.attemptsMs.push(clock.nowMs());
        if (!node.succeeds) throw new Error('nobody leads');
      },
      onFailure: (_, retryMs) => node.retriesMs.push(retryMs),
    },
    stopping.signal,
  );
  timer.plan();
  /** To the next timer, so many times. */
  const next = async (times: number) => {
    for (let time = 0; time < times; time++) {
      clock.advance(defined(clock.nextAtMs, 'a timer') - clock.nowMs());
      await turn();
    }
  };
  return { node, clock, next, stopping, notBeforeMs, notAfterMs };
}

test('a certificate is renewed once half of its life is over', async () => {
  const { node, clock, next, notBeforeMs, notAfterMs } = await start();
  node.succeeds = true;

  await next(1);

  const [atMs = 0] = node.attemptsMs;
  assert.ok(Math.abs((atMs - notBeforeMs) / (notAfterMs - notBeforeMs) - 0.5) < 0.05);
  assert.equal(clock.nextAtMs, undefined);
});

test('a renewal that fails is tried again after five seconds, doubled up to an hour', async () => {
  const { node, next } = await start();

  await next(12);

  const seconds = node.retriesMs.map((ms) => ms / 1000);
  assert.deepEqual(seconds, [5, 10, 20, 40, 80, 160, 320, 640, 1280, 2560, 3600, 3600]);
  assert.deepEqual(
    node.attemptsMs.slice(1).map((ms, at) => ms - defined(node.attemptsMs[at], 'an attempt')),
    node.retriesMs.slice(0, -1),
  );
});

test('with an expired certificate it is tried every ten seconds: an operator may let it in now', async () => {
  const { node, clock, next, notAfterMs } = await start();
  clock.advance(notAfterMs + 1 - clock.nowMs());
  await turn();

  await next(2);

  assert.deepEqual(node.retriesMs.slice(-2), [10_000, 10_000]);
});

test('nothing is renewed any more once the node stops', async () => {
  const { node, clock, next, stopping } = await start();
  await next(1);

  stopping.abort();

  assert.equal(clock.nextAtMs, undefined);
  assert.equal(node.attemptsMs.length, 1);
});
