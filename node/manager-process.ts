// The manager runs in a process of its own, so that a busy one never starves this node's heartbeats. The parent side
// starts it again when it ends; the child side ends when its parent does.

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import path from 'node:path';
import { sleep } from '../core/clock.ts';
import { messageOf, SwarmError } from '../core/errors.ts';
import { type ManagerOptions, runManager } from '../manager/manager.ts';
import { setLogLevel } from '../rpc/logger.ts';
import { keepIdleMemoryLow } from './idle-memory.ts';
import { nodeLog } from './log.ts';
import { systemClock } from './system-clock.ts';

/** What the child needs to know; goes to it as JSON. */
export interface ManagerProcessOptions extends Omit<ManagerOptions, 'clock' | 'random'> {
  readonly logLevel: 'debug' | 'info' | 'warn' | 'error';
}

/** The first argument that makes the daemon's program a manager. */
export const MANAGER_COMMAND = 'manager-process';

const BACKOFF_MIN_MS = 200;
const BACKOFF_MAX_MS = 10_000;
// A manager that ran this long has started well; its next end is a new trouble.
const STABLE_MS = 30_000;
const STOP_LIMIT_MS = 10_000;
const FAILURE_LENGTH_MAX = 2_000;
/** The manager's heap is small and young: bigger half-spaces only raise what an idle node holds. */
export const MANAGER_V8_FLAGS: readonly string[] = ['--max-semi-space-size=1'];

export interface ManagerSupervisorOptions {
  readonly program: string;
  readonly manager: ManagerProcessOptions;
  /** Told why the manager ended, for the node's status. */
  readonly onExit: (reason: string) => void;
}

/** Keeps a manager running until the signal aborts; then ends it and returns when it is gone. */
export async function superviseManager(
  options: ManagerSupervisorOptions,
  signal: AbortSignal,
): Promise<void> {
  let backoffMs = BACKOFF_MIN_MS;
  let { manager } = options;
  while (!signal.aborted) {
    const startedMs = Date.now();
    const reason = await runChild({ ...options, manager }, signal);
    // Forced once: after that it is the cluster that it is.
    const { forceNewCluster: _, ...again } = manager;
    manager = again;
    if (signal.aborted) return;
    if (Date.now() - startedMs > STABLE_MS) backoffMs = BACKOFF_MIN_MS;
    nodeLog.error({ reason, 'retry.ms': backoffMs }, 'manager ended, will be started again');
    options.onExit(reason);
    await sleep(systemClock, backoffMs, signal).catch(() => {});
    backoffMs = Math.min(backoffMs * 2, BACKOFF_MAX_MS);
  }
}

async function runChild(
  { program, manager }: ManagerSupervisorOptions,
  signal: AbortSignal,
): Promise<string> {
  const child = spawn(process.execPath, [...MANAGER_V8_FLAGS, program, MANAGER_COMMAND], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  // The manager's last words, when it ends by a failure.
  let failure = '';
  child.stdout?.setEncoding('utf8').on('data', (chunk: string) => {
    failure = (failure + chunk).slice(0, FAILURE_LENGTH_MAX);
  });
  const exit = once(child, 'close').catch((error: unknown) => [messageOf(error)]);
  // The pipe is also the life-line: the child ends when it closes.
  child.stdin?.on('error', () => {});
  child.stdin?.write(`${JSON.stringify(manager)}\n`);
  const onAbort = () => endChild(child);
  signal.addEventListener('abort', onAbort, { once: true });
  const [code, killedBy] = await exit;
  signal.removeEventListener('abort', onAbort);
  if (failure !== '') return failure.trim();
  return killedBy ? `killed by ${String(killedBy)}` : `exit code ${String(code)}`;
}

function endChild(child: ChildProcess): void {
  child.stdin?.end();
  const timer = setTimeout(() => child.kill('SIGKILL'), STOP_LIMIT_MS);
  child.once('exit', () => clearTimeout(timer));
}

/** The child side. Resolves when the parent has closed the pipe, or the manager has failed, and everything has ended. */
export async function runManagerProcess(input: NodeJS.ReadStream): Promise<void> {
  const stop = new AbortController();
  const head = Promise.withResolvers<string>();
  let received = '';
  input.setEncoding('utf8');
  input.on('data', (chunk: string) => {
    received += chunk;
    const end = received.indexOf('\n');
    if (end >= 0) head.resolve(received.slice(0, end));
  });
  input.on('end', () => {
    head.reject(new Error('the daemon went away'));
    stop.abort();
  });
  // The daemon decides when to end; a terminal's ^C reaches both.
  process.on('SIGINT', () => {});
  process.on('SIGTERM', () => stop.abort());
  try {
    const { logLevel, ...options } = JSON.parse(await head.promise) as ManagerProcessOptions;
    setLogLevel(logLevel);
    keepIdleMemoryLow(() => [], stop.signal);
    await runManager({ ...options, clock: systemClock, random: Math.random }, stop.signal);
  } catch (error) {
    // For the node's status; the daemon logs it.
    const hint = error instanceof SwarmError && error.hint !== undefined ? `. ${error.hint}` : '';
    process.stdout.write(`${messageOf(error)}${hint}\n`);
    process.exitCode = 1;
  } finally {
    // Nothing may keep the process: the daemon waits for its end to start another.
    stop.abort();
    input.destroy();
  }
}

/** For the one place that starts programs: the path of the program this process runs. */
export function currentProgram(): string {
  return path.resolve(process.argv[1] ?? '');
}
