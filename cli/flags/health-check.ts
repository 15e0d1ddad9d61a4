// From the flags about health to a health check, as Docker's command line does it. Pure.

import { invalidField } from '../../core/errors.ts';
import { emptyHealthCheck, type HealthCheck } from '../../core/generated/objects.ts';
import { parseNetworkProbe } from '../../core/network-probe.ts';

interface HealthFlags {
  readonly 'health-cmd': string | undefined;
  readonly 'health-http': string | undefined;
  readonly 'health-tcp': string | undefined;
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
  const { 'no-healthcheck': isOff } = flags;
  const tests = namedTests(flags);
  const [named] = tests;
  if (tests.length > 1)
    throw invalidField('health-cmd', '--health-cmd, --health-http and --health-tcp conflict');
  const numbers = Object.entries({
    intervalMs: flags['health-interval'],
    timeoutMs: flags['health-timeout'],
    retries: flags['health-retries'],
    startPeriodMs: flags['health-start-period'],
    startIntervalMs: flags['health-start-interval'],
  }).filter(([, value]) => value !== undefined);
  const isNamed = named !== undefined || numbers.length > 0;
  if (isOff && isNamed) throw invalidField('no-healthcheck', 'conflicts with --health-* flags');
  if (isOff) return { ...emptyHealthCheck, test: ['NONE'] };
  if (!isNamed && isOff === undefined) return current;
  const before = current ?? emptyHealthCheck;
  const merged: HealthCheck = {
    ...before,
    ...Object.fromEntries(numbers),
    test: named ?? withoutNone(before.test),
  };
  const saysNothing = Object.entries(merged).every(([name, value]) =>
    name === 'test' ? merged.test.length === 0 : value === 0,
  );
  return saysNothing ? undefined : merged;
}

function namedTests(flags: HealthFlags): (readonly string[])[] {
  const { 'health-cmd': command, 'health-http': http, 'health-tcp': tcp } = flags;
  return [
    ...(command === undefined ? [] : [shellTest(command)]),
    ...(http === undefined ? [] : [networkTest('HTTP', http)]),
    ...(tcp === undefined ? [] : [networkTest('TCP', tcp)]),
  ];
}

/** As with a command, an empty one leaves it to the image. */
function networkTest(kind: 'HTTP' | 'TCP', target: string): readonly string[] {
  if (target === '') return [];
  parseNetworkProbe([kind, target]);
  return [kind, target];
}

function withoutNone(test: readonly string[]): readonly string[] {
  return test[0] === 'NONE' ? [] : test;
}

/** An empty command leaves it to the image. */
function shellTest(command: string): readonly string[] {
  return command === '' ? [] : ['CMD-SHELL', command];
}
