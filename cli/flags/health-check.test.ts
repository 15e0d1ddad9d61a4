import assert from 'node:assert/strict';
import { test } from 'node:test';
import { emptyHealthCheck, type HealthCheck } from '../../core/generated/objects.ts';
import { mergeHealthCheck } from './health-check.ts';
import { parseFlags } from './parse-flags.ts';
import { createFlags, updateFlags } from './service-flags.ts';

const created = (...argv: readonly string[]) =>
  mergeHealthCheck(undefined, parseFlags(createFlags, argv).flags);
const updated = (current: HealthCheck | undefined, ...argv: readonly string[]) =>
  mergeHealthCheck(current, parseFlags(updateFlags, argv).flags);
const check = (change: Partial<HealthCheck>): HealthCheck => ({ ...emptyHealthCheck, ...change });

const curl = check({ test: ['CMD-SHELL', 'curl localhost'], intervalMs: 5_000, retries: 2 });
const none = check({ test: ['NONE'] });

test('flags of create land in their fields, what is not given is left to the image', () => {
  const cases: [readonly string[], HealthCheck | undefined][] = [
    [[], undefined],
    [
      ['--health-cmd', 'curl -f localhost || exit 1'],
      check({ test: ['CMD-SHELL', 'curl -f localhost || exit 1'] }),
    ],
    [
      ['--health-interval', '10s', '--health-timeout', '500ms', '--health-retries', '5'],
      check({ intervalMs: 10_000, timeoutMs: 500, retries: 5 }),
    ],
    [
      ['--health-start-period=1m', '--health-start-interval=2s'],
      check({ startPeriodMs: 60_000, startIntervalMs: 2_000 }),
    ],
    [['--no-healthcheck'], none],
    [['--no-healthcheck=false'], undefined],
    [['--health-cmd', '', '--health-retries', '0'], undefined],
  ];
  for (const [argv, expected] of cases) assert.deepEqual(created(...argv), expected, argv.join(' '));
});

test('flags of update change what they name', () => {
  const cases: [HealthCheck | undefined, readonly string[], HealthCheck | undefined][] = [
    [curl, [], curl],
    [undefined, [], undefined],
    [curl, ['--health-interval', '1m'], { ...curl, intervalMs: 60_000 }],
    [curl, ['--health-cmd', 'true'], { ...curl, test: ['CMD-SHELL', 'true'] }],
    [curl, ['--health-cmd', ''], { ...curl, test: [] }],
    [curl, ['--health-interval', '0', '--health-retries', '0', '--health-cmd', ''], undefined],
    [curl, ['--no-healthcheck'], none],
    [none, ['--health-retries', '4'], check({ retries: 4 })],
    [none, ['--health-cmd', 'true'], check({ test: ['CMD-SHELL', 'true'] })],
    [none, ['--no-healthcheck=false'], undefined],
    [none, [], none],
  ];
  for (const [current, argv, expected] of cases)
    assert.deepEqual(updated(current, ...argv), expected, argv.join(' '));
});

test('to have no health check and to say how it is made do not go together', () => {
  for (const flag of ['cmd', 'interval', 'timeout', 'retries', 'start-period', 'start-interval']) {
    const value = flag === 'cmd' ? 'true' : flag === 'retries' ? '3' : '3s';
    assert.throws(() => created('--no-healthcheck', `--health-${flag}`, value), {
      code: 'invalid-argument',
      message: /^no-healthcheck: conflicts with --health-\* flags/,
    });
  }
});
