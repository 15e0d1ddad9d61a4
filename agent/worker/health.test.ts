import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { defaultHealthCheck } from '../../core/defaults.ts';
import type { ContainerHealthCheck } from '../engine/engine.ts';
import { afterCheck, describeFailure, type Health, pauseBeforeCheck, phaseOf } from './health.ts';

const check: ContainerHealthCheck = { ...defaultHealthCheck, command: ['check'], startPeriodMs: 60_000 };
const starting: Health = { status: 'starting', failures: 0 };
const healthy: Health = { status: 'healthy', failures: 0 };

/** Judges checks one after the other: when each began, and whether it succeeded. */
function after(first: Health, ...checks: readonly (readonly [ageMs: number, isSuccess: boolean])[]): Health {
  return checks.reduce((health, [ageMs, isSuccess]) => afterCheck(health, isSuccess, check, ageMs), first);
}

test('one success makes a container healthy, in the start period and after it', () => {
  assert.deepEqual(after(starting, [0, true]), healthy);
  assert.deepEqual(after(starting, [70_000, false], [80_000, false], [90_000, true]), healthy);
});

test('failures of the start period do not count until there was a success', () => {
  assert.deepEqual(after(starting, [0, false], [5, false], [10, false], [59_999, false]), starting);
  assert.deepEqual(after(starting, [0, true], [5, false], [10, false], [15, false]), {
    status: 'unhealthy',
    failures: 3,
  });
});

test('a container is unhealthy after as many failures in a row as allowed, a success begins the count anew', () => {
  assert.equal(after(starting, [60_000, false], [61_000, false]).status, 'starting');
  assert.equal(after(starting, [60_000, false], [61_000, false], [62_000, false]).status, 'unhealthy');
  assert.equal(after(healthy, [0, false], [1, false]).status, 'healthy');
  assert.equal(after(healthy, [0, false], [1, false], [2, true], [3, false], [4, false]).status, 'healthy');
});

test('checks come in the start interval only while a container starts within its start period', () => {
  assert.equal(pauseBeforeCheck(starting, check, 59_999), 5_000);
  assert.equal(pauseBeforeCheck(starting, check, 60_000), 30_000);
  assert.equal(pauseBeforeCheck(healthy, check, 0), 30_000);
  assert.equal(pauseBeforeCheck(starting, { ...check, startPeriodMs: 0 }, 0), 30_000);
});

test('the checks of many containers are spread over the interval', () => {
  const letters = 'abcdefghijklmnopqrstuvwxyz0123456789';
  const id = fc.string({ unit: fc.constantFrom(...letters), minLength: 25, maxLength: 25 });
  fc.assert(
    fc.property(fc.uniqueArray(id, { minLength: 400, maxLength: 400 }), (ids) => {
      const phases = ids.map((each) => phaseOf(each, check));
      assert.ok(phases.every((phase) => phase >= 0 && phase < 30_000));
      const perSecond = Map.groupBy(phases, (phase) => Math.floor(phase / 1_000));
      for (const group of perSecond.values()) assert.ok(group.length < 60, `${group.length} in one second`);
    }),
    { numRuns: 20 },
  );
});

test('a failure is told in one line of bounded length, with the end of what the check wrote', () => {
  const result = { exitCode: 1, output: '', hasTimedOut: false };

  assert.equal(describeFailure({ ...result, exitCode: 0 }, check), undefined);
  assert.equal(describeFailure(result, check), 'exit code 1');
  assert.equal(describeFailure({ ...result, output: ' no\n\tanswer\n' }, check), 'exit code 1: no answer');
  assert.equal(
    describeFailure({ exitCode: 137, output: 'waiting', hasTimedOut: true }, check),
    'no end within 30000 ms: waiting',
  );
  assert.match(
    describeFailure({ ...result, output: `${'x'.repeat(5_000)} refused` }, check) ?? '',
    /^exit code 1: …x{292} refused$/,
  );
});
