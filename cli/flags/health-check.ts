// From the flags about health to a health check, as Docker's command line does it. Pure.

import { invalidField } from '../../core/errors.ts';
import { emptyHealthCheck, type HealthCheck } from '../../core/generated/objects.ts';

interface HealthFlags {
  readonly 'health-cmd': string | undefined;
  readonly 'health-interval': number | undefined;
  readonly 'health-timeout': number | undefined;
  readonly 'health-retries': number | undefined;
  readonly 'health-start-period': number | undefined;
  readonly 'health-start-interval': number | undefined;
  readonly 'no-healthcheck': boolean | undefined;
}

/** What no flag names stays as it is; undefined when nothing is said any more, and the image's counts. */
export function mergeHealthCheck(
  current: HealthCheck | undefined,
  flags: HealthFlags,
): HealthCheck | undefined {
  const { 'health-cmd': command, 'no-healthcheck': isOff } = flags;
  const numbers = Object.entries({
    intervalMs: flags['health-interval'],
    timeoutMs: flags['health-timeout'],
    retries: flags['health-retries'],
    startPeriodMs: flags['health-start-period'],
    startIntervalMs: flags['health-start-interval'],
  }).filter(([, value]) => value !== undefined);
  const isNamed = command !== undefined || numbers.length > 0;
  if (isOff && isNamed) throw invalidField('no-healthcheck', 'conflicts with --health-* flags');
  if (isOff) return { ...emptyHealthCheck, test: ['NONE'] };
  if (!isNamed && isOff === undefined) return current;
  const before = current ?? emptyHealthCheck;
  const merged: HealthCheck = {
    ...before,
    ...Object.fromEntries(numbers),
    test: command === undefined ? withoutNone(before.test) : shellTest(command),
  };
  const saysNothing = Object.entries(merged).every(([name, value]) =>
    name === 'test' ? merged.test.length === 0 : value === 0,
  );
  return saysNothing ? undefined : merged;
}

function withoutNone(test: readonly string[]): readonly string[] {
  return test[0] === 'NONE' ? [] : test;
}

/** An empty command leaves it to the image. */
function shellTest(command: string): readonly string[] {
  return command === '' ? [] : ['CMD-SHELL', command];
}
