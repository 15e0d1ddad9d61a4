// The manager runs in a process of its own, so that a busy one never starves this node's heartbeats. The parent side
// starts it again when it ends; the child side ends when its parent does.

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { sleep } from '../core/clock.ts';
import { messageOf, SwarmError } from '../core/errors.ts';
import { IdentityHolder } from '../manager/identity-holder.ts';
import { type ManagerOptions, runManager } from '../manager/manager.ts';
import { setLogLevel } from '../rpc/logger.ts';
import type { TlsIdentity } from '../rpc/tls.ts';
import { CertificateProcess } from './certificate-process.ts';
import { keepIdleMemoryLow } from './idle-memory.ts';
import { nodeLog } from './log.ts';
import { systemClock } from './system-clock.ts';

/** What the child needs to know; goes to it as one line of JSON. */
export interface ManagerProcessOptions
  extends Omit<ManagerOptions, 'clock' | 'random' | 'tool' | 'identity'> {
  readonly logLevel: 'debug' | 'info' | 'warn' | 'error';
  /** Absent on the first start of a cluster: the manager then issues its node's certificate. */
  readonly identity?: TlsIdentity;
}

/** The lines that follow: the node's certificate was renewed. */
interface ManagerUpdate {
  readonly identity: TlsIdentity;
}

/** The first argument that makes the daemon's program a manager. */
export const MANAGER_COMMAND = 'manager-process';

const BACKOFF_MIN_MS = 200;
const BACKOFF_MAX_MS = 10_000;
// A manager that ran this long has started well; its next end is a new trouble.
const STABLE_MS = 30_000;
const STOP_LIMIT_MS = 10_000;
const EXIT_LIMIT_MS = 5_000;
const FAILURE_LENGTH_MAX = 2_000;
/**
 * In MB: a busy leader makes garbage faster than small half-spaces hold; an idle one gives them back (`idle-memory.ts`). What
 * is in flight is no reason to put what comes after it among what stays. And the little that a scavenge has to copy is done
 * sooner than it is divided among threads: a sixth more updates on two processors that have no time to spare.
 */
export const MANAGER_V8_FLAGS: readonly string[] = [
  '--max-semi-space-size=16',
  '--no-allocation-site-pretenuring',
  '--no-parallel-scavenge',
];

export interface ManagerSupervisorOptions {
  readonly program: string;
  /** Asked at every start. */
  readonly manager: () => ManagerProcessOptions;
  readonly identity: IdentityHolder;
  /** Told why the manager ended, for the node's status. */
  readonly onExit: (reason: string) => void;
}

/** Keeps a manager running until the signal aborts; then ends it and returns when it is gone. */
export async function superviseManager(
  options: ManagerSupervisorOptions,
  signal: AbortSignal,
): Promise<void> {
  let backoffMs = BACKOFF_MIN_MS;
  while (!signal.aborted) {
    const startedMs = Date.now();
    const reason = await runChild(options, signal);
    if (signal.aborted) return;
    if (Date.now() - startedMs > STABLE_MS) backoffMs = BACKOFF_MIN_MS;
    nodeLog.error({ reason, 'retry.ms': backoffMs }, 'manager ended, will be started again');
    options.onExit(reason);
    await sleep(systemClock, backoffMs, signal).catch(() => {});
    backoffMs = Math.min(backoffMs * 2, BACKOFF_MAX_MS);
  }
}

async function runChild(
  { program, manager, identity }: ManagerSupervisorOptions,
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
  const tell = (message: ManagerProcessOptions | ManagerUpdate) =>
    child.stdin?.write(`${JSON.stringify(message)}\n`);
  tell(manager());
  const unfollow = identity.follow((current) => tell({ identity: current }));
  const onAbort = () => endChild(child);
  signal.addEventListener('abort', onAbort, { once: true });
  const [code, killedBy] = await exit;
  unfollow();
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
  // No memory in a core file, also of the programs that it starts: they hold secrets and keys.
  writeFileSync('/proc/self/coredump_filter', '0');
  const stop = new AbortController();
  const holder = new IdentityHolder();
  const head = Promise.withResolvers<ManagerProcessOptions>();
  let isFirst = true;
  const lines = createInterface({ input });
  lines.on('line', (line) => {
    if (!isFirst) return holder.set((JSON.parse(line) as ManagerUpdate).identity);
    isFirst = false;
    head.resolve(JSON.parse(line) as ManagerProcessOptions);
  });
  lines.on('close', () => {
    head.reject(new Error('the daemon went away'));
    stop.abort();
  });
  // The daemon decides when to end; a terminal's ^C reaches both.
  process.on('SIGINT', () => {});
  process.on('SIGTERM', () => stop.abort());
  try {
    const { logLevel, identity, ...options } = await head.promise;
    if (identity !== undefined) holder.set(identity);
    setLogLevel(logLevel);
    keepIdleMemoryLow(() => [], stop.signal);
    using tool = new CertificateProcess({ program: currentProgram() });
    await runManager(
      { ...options, identity: holder, tool, clock: systemClock, random: Math.random },
      stop.signal,
    );
  } catch (error) {
    // For the node's status; the daemon logs it.
    const hint = error instanceof SwarmError && error.hint !== undefined ? `. ${error.hint}` : '';
    process.stdout.write(`${messageOf(error)}${hint}\n`);
    process.exitCode = 1;
  } finally {
    // Nothing may keep the process: the daemon waits for its end to start another.
    stop.abort();
    input.destroy();
    setTimeout(() => {
      nodeLog.error(
        { resources: process.getActiveResourcesInfo() },
        'something keeps the manager from ending',
      );
      process.exit(1);
    }, EXIT_LIMIT_MS).unref();
  }
}

/** For the one place that starts programs: the path of the program this process runs. */
export function currentProgram(): string {
  return path.resolve(process.argv[1] ?? '');
}
