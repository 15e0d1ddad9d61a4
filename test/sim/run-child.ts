// A thread that runs seeds one after the other: as many as it is told to, or for as long.

import { parentPort, workerData } from 'node:worker_threads';
import { type Failure, runSeed } from './core-run.ts';

/** Seeds `first`, `first + stride`, … */
export interface RunOrder {
  readonly first: number;
  readonly stride: number;
  readonly count: number;
  readonly steps: number;
  readonly durationMs: number;
}

export interface RunReport {
  readonly runs: number;
  readonly steps: number;
  readonly elapsedMs: number;
  readonly failures: readonly Failure[];
}

const FAILURES_MAX = 5;

if (parentPort !== null) {
  const { first, stride, count, steps, durationMs } = workerData as RunOrder;
  const begin = performance.now();
  const failures: Failure[] = [];
  let runs = 0;
  while (runs < count && performance.now() - begin < durationMs && failures.length < FAILURES_MAX) {
    const failure = runSeed(first + runs * stride, steps);
    runs++;
    if (failure !== undefined) failures.push(failure);
  }
  const elapsedMs = performance.now() - begin;
  parentPort.postMessage({ runs, steps: runs * steps, elapsedMs, failures } satisfies RunReport);
}
