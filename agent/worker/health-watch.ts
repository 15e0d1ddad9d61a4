// Follows a container: waits for its end and makes its health checks, one after the other.

import { type Clock, sleep } from '../../core/clock.ts';
import { type ErrorCode, messageOf, SwarmError } from '../../core/errors.ts';
import type { ContainerExit, ContainerHealthCheck, Containers } from '../engine/engine.ts';
import { workerLog } from '../log.ts';
import { afterCheck, describeFailure, type Health, inOneLine, pauseBeforeCheck, phaseOf } from './health.ts';

export interface FollowOptions {
  readonly containers: Pick<Containers, 'exec' | 'inspect' | 'probe' | 'wait'>;
  readonly containerId: string;
  readonly clock: Clock;
  readonly onCheck: (isSuccess: boolean) => void;
  /** Hears why a check failed that changes nothing yet. */
  readonly onFailure: (reason: string) => Promise<void>;
}

/** What became of a container. */
export type Turn =
  | { readonly kind: 'ended'; readonly exit: ContainerExit }
  | { readonly kind: 'healthy' }
  | { readonly kind: 'unhealthy'; readonly reason: string };

// What is wrong with the engine and not with the container is no verdict on it.
const ENGINE_TROUBLE: readonly ErrorCode[] = ['unavailable', 'internal', 'resource-exhausted'];
const RETRY_MS = 1_000;

/**
 * Resolves when a container has ended, or when its health has become another than it is said to be: of one that is
 * starting healthy or unhealthy, of a healthy one unhealthy. Rejects when aborted.
 */
export async function followContainer(
  options: FollowOptions,
  health: 'starting' | 'healthy',
  signal: AbortSignal,
): Promise<Turn> {
  const { containers, containerId } = options;
  const untilEnd = async (signal: AbortSignal): Promise<Turn> => {
    return { kind: 'ended', exit: await containers.wait(containerId, signal) };
  };
  const { status, healthCheck: check } = (await containers.inspect(containerId)) ?? {};
  if (status?.state !== 'running' || check === undefined) return untilEnd(signal);
  const { startedAtMs } = status;
  const stop = new AbortController();
  const either = AbortSignal.any([signal, stop.signal]);
  try {
    return await Promise.race([untilEnd(either), watch({ ...options, check, startedAtMs }, health, either)]);
  } finally {
    stop.abort();
  }
}

interface WatchOptions extends FollowOptions {
  readonly check: ContainerHealthCheck;
  /** Of the container's process. */
  readonly startedAtMs: number;
}

async function watch(
  options: WatchOptions,
  status: 'starting' | 'healthy',
  signal: AbortSignal,
): Promise<Turn> {
  const { containerId, check, startedAtMs, clock } = options;
  // Of a container that another process has started only the wall's clock tells the age; from now on the stopwatch does.
  const bornMs = clock.elapsedMs() - Math.max(0, clock.nowMs() - startedAtMs);
  const ageMs = () => clock.elapsedMs() - bornMs;
  let health: Health = { status, failures: 0 };
  let pauseMs = status === 'healthy' ? phaseOf(containerId, check) : pauseBeforeCheck(health, check, ageMs());
  for (;;) {
    await sleep(clock, pauseMs, signal);
    const begunAtMs = ageMs();
    const result = await makeCheck(options, signal);
    pauseMs = RETRY_MS;
    if (result === undefined) continue;
    const { failure } = result;
    options.onCheck(failure === undefined);
    health = afterCheck(health, failure === undefined, check, begunAtMs);
    if (health.status === 'unhealthy') return { kind: 'unhealthy', reason: describe(health, failure) };
    if (health.status !== status) return { kind: 'healthy' };
    if (failure !== undefined) await options.onFailure(failure);
    pauseMs = pauseBeforeCheck(health, check, ageMs());
  }
}

function describe({ failures }: Health, last = ''): string {
  return `the health check failed${failures > 1 ? ` ${failures} times in a row` : ''}: ${last}`;
}

/** Undefined when nothing was learned about the container. */
async function makeCheck(
  { containers, containerId, check }: WatchOptions,
  signal: AbortSignal,
): Promise<{ readonly failure: string | undefined } | undefined> {
  try {
    const { command, probe, timeoutMs } = check;
    if (probe !== undefined)
      return { failure: await containers.probe(containerId, probe, { timeoutMs, signal }) };
    return {
      failure: describeFailure(await containers.exec(containerId, { command, timeoutMs, signal }), check),
    };
  } catch (error) {
    signal.throwIfAborted();
    const reason = messageOf(error);
    if (error instanceof SwarmError && !ENGINE_TROUBLE.includes(error.code))
      return { failure: inOneLine(reason) };
    workerLog.warn({ 'container.id': containerId, reason }, 'health check not made, will retry');
    return undefined;
  }
}
