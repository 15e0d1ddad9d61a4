import assert from 'node:assert/strict';
import { test } from 'node:test';
import { defaultHealthCheck } from '../../../core/defaults.ts';
import { emptyHealthCheck, type HealthCheck } from '../../../core/generated/objects.ts';
import { type ImageConfiguration, parseImageConfiguration } from '../images/manifest.ts';
import { effectiveHealthCheck } from './health-check.ts';

/** An image whose configuration says this. */
function image(config: object): ImageConfiguration {
  const json = { os: 'linux', architecture: 'amd64', rootfs: { type: 'layers', diff_ids: [] }, config };
  return parseImageConfiguration(Buffer.from(JSON.stringify(json)));
}

const asked = (change: Partial<HealthCheck>): HealthCheck => ({ ...emptyHealthCheck, ...change });
const curl = {
  Test: ['CMD-SHELL', 'curl localhost'],
  Interval: 5e9,
  Timeout: 1.5e6,
  StartPeriod: 6e10,
  StartInterval: 1e9,
  Retries: 7,
};

test("a container has its image's health check, in milliseconds", () => {
  assert.deepEqual(effectiveHealthCheck(undefined, image({ Healthcheck: curl })), {
    command: ['/bin/sh', '-c', 'curl localhost'],
    intervalMs: 5_000,
    timeoutMs: 2,
    retries: 7,
    startPeriodMs: 60_000,
    startIntervalMs: 1_000,
  });
});

test("what a request says replaces what the image says field by field, Docker's defaults fill the rest", () => {
  const withCheck = image({ Healthcheck: curl });

  assert.deepEqual(effectiveHealthCheck(asked({ test: ['CMD', 'a', 'b'] }), image({})), {
    ...defaultHealthCheck,
    command: ['a', 'b'],
  });
  assert.deepEqual(effectiveHealthCheck(asked({ test: ['CMD', 'a'], retries: 1 }), withCheck), {
    ...effectiveHealthCheck(undefined, withCheck),
    command: ['a'],
    retries: 1,
  });
  assert.deepEqual(effectiveHealthCheck(asked({ intervalMs: 9 }), withCheck), {
    ...effectiveHealthCheck(undefined, withCheck),
    intervalMs: 9,
  });
});

test("a line is run by the image's shell", () => {
  const { command } =
    effectiveHealthCheck(undefined, image({ Healthcheck: curl, Shell: ['/bin/ash', '-ec'] })) ?? {};

  assert.deepEqual(command, ['/bin/ash', '-ec', 'curl localhost']);
});

test('there is no health check where none is asked for, or it says nothing that can be run', () => {
  const cases: [HealthCheck | undefined, object][] = [
    [undefined, {}],
    [undefined, { Healthcheck: null }],
    [undefined, { Healthcheck: { Test: ['NONE'] } }],
    [undefined, { Healthcheck: { Test: [] } }],
    [undefined, { Healthcheck: { Test: ['CMD'] } }],
    [undefined, { Healthcheck: { Test: ['WINDOWS', 'x'] } }],
    [asked({ intervalMs: 5 }), {}],
    [asked({ test: ['NONE'] }), { Healthcheck: curl }],
  ];
  for (const [request, config] of cases)
    assert.equal(effectiveHealthCheck(request, image(config)), undefined, JSON.stringify([request, config]));
});

test('times that an image says wrongly are not said, too long ones are cut', () => {
  const wrong = {
    ...curl,
    Interval: -1,
    Timeout: 'soon',
    Retries: -2,
    StartPeriod: 1e30,
    StartInterval: null,
  };

  assert.deepEqual(effectiveHealthCheck(undefined, image({ Healthcheck: wrong })), {
    ...defaultHealthCheck,
    command: ['/bin/sh', '-c', 'curl localhost'],
    startPeriodMs: 24 * 24 * 3_600_000,
  });
});
