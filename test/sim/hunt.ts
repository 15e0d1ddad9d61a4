// Runs seeds in several threads, and planted bugs in several processes.

import { execFile } from 'node:child_process';
import path from 'node:path';
import { promisify } from 'node:util';
import { Worker } from 'node:worker_threads';
import type { Failure } from './core-run.ts';
import type { RunOrder, RunReport } from './run-child.ts';

const run = promisify(execFile);
const THREADS = 2;

/** `count` seeds from `first` on, or as many as can be run in a time. */
export async function hunt(order: {
  first: number;
  steps: number;
  count?: number;
  durationMs?: number;
}): Promise<RunReport> {
  const { first, steps, count = Number.MAX_SAFE_INTEGER, durationMs = Number.MAX_SAFE_INTEGER } = order;
  const shares = Array.from({ length: THREADS }, (_, thread) => ({
    first: first + thread,
    stride: THREADS,
    count: Math.floor((count + THREADS - 1 - thread) / THREADS),
    steps,
    durationMs,
  }));
  const reports = await Promise.all(shares.map(runThread));
  return {
    runs: sum(reports.map(({ runs }) => runs)),
    steps: sum(reports.map((report) => report.steps)),
    elapsedMs: Math.max(...reports.map(({ elapsedMs }) => elapsedMs)),
    failures: reports.flatMap(({ failures }) => failures),
  };
}

export interface Kill {
  readonly name: string;
  /** Undefined: nothing has noticed the bug. */
  readonly rule: string | undefined;
  readonly message: string | undefined;
  readonly seed: number;
}

/** Runs each planted bug until a seed notices it; at most `seeds` seeds. */
export async function huntMutants(
  names: readonly string[],
  { seeds, steps }: { seeds: number; steps: number },
): Promise<Kill[]> {
  const waiting = [...names];
  const kills: Kill[] = [];
  const work = async () => {
    for (let name = waiting.shift(); name !== undefined; name = waiting.shift())
      kills.push(await runMutant(name, seeds, steps));
  };
  await Promise.all(Array.from({ length: THREADS }, work));
  return kills.sort((a, b) => names.indexOf(a.name) - names.indexOf(b.name));
}

export function describeFailure({ seed, steps, message }: Failure): string {
  return `seed ${seed} fails after ${steps} steps: ${message}\n  npm run simulate -- --seed ${seed} --steps ${steps} --trace`;
}

async function runMutant(name: string, seeds: number, steps: number): Promise<Kill> {
  const child = path.join(import.meta.dirname, 'mutant-child.ts');
  const { stdout } = await run(process.execPath, [child, name, `${seeds}`, `${steps}`]);
  return JSON.parse(stdout) as Kill;
}

function runThread(order: RunOrder): Promise<RunReport> {
  const { promise, resolve, reject } = Promise.withResolvers<RunReport>();
  const worker = new Worker(path.join(import.meta.dirname, 'run-child.ts'), { workerData: order });
  worker.once('message', resolve);
  worker.once('error', reject);
  return promise;
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
