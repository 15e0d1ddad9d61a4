// Whether a container can answer, judged from its checks as Docker judges it. Pure.
//
//   starting ──a success──▶ healthy ──failures in a row──▶ unhealthy
//      └──failures in a row, those of the start period not counted──▶ unhealthy

import type { ContainerHealthCheck, ExecResult } from '../engine/engine.ts';

export interface Health {
  readonly status: 'starting' | 'healthy' | 'unhealthy';
  /** In a row, as far as they count. */
  readonly failures: number;
}

// An error goes through the cluster's log and into a line of a table.
const OUTPUT_CHARACTERS_MAX = 300;

/** How a container is judged after a check that began `ageMs` after the container. */
export function afterCheck(
  health: Health,
  isSuccess: boolean,
  check: ContainerHealthCheck,
  ageMs: number,
): Health {
  if (isSuccess) return { status: 'healthy', failures: 0 };
  if (health.status === 'starting' && ageMs < check.startPeriodMs) return health;
  const failures = health.failures + 1;
  return { status: failures >= check.retries ? 'unhealthy' : health.status, failures };
}

/** How long to wait for the next check of a container that is `ageMs` old. */
export function pauseBeforeCheck({ status }: Health, check: ContainerHealthCheck, ageMs: number): number {
  const isQuick = status === 'starting' && ageMs < check.startPeriodMs;
  return isQuick ? check.startIntervalMs : check.intervalMs;
}

/**
 * When the first check of a container is due that is healthy: somewhere in its interval, so that those of many are not
 * made at once.
 */
export function phaseOf(containerId: string, check: ContainerHealthCheck): number {
  let hash = 0;
  for (const character of containerId) hash = (hash * 31 + (character.codePointAt(0) ?? 0)) >>> 0;
  return Math.round(((hash % 1000) / 1000) * check.intervalMs);
}

/** What went wrong, in one line; undefined when nothing did. */
export function describeFailure(
  { exitCode, output, hasTimedOut }: ExecResult,
  { timeoutMs }: ContainerHealthCheck,
): string | undefined {
  if (exitCode === 0 && !hasTimedOut) return undefined;
  const text = inOneLine(output);
  const what = hasTimedOut ? `no end within ${timeoutMs} ms` : `exit code ${exitCode}`;
  return text === '' ? what : `${what}: ${text}`;
}

/** The end of a text, which is where programs say why. */
export function inOneLine(text: string): string {
  const line = text.replace(/\s+/g, ' ').trim();
  return line.length > OUTPUT_CHARACTERS_MAX ? `…${line.slice(-OUTPUT_CHARACTERS_MAX)}` : line;
}
