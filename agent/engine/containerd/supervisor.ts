// Starts, adopts, restarts and ends the containerd of this engine. It runs detached: it outlives a killed daemon, and
// the next daemon finds it by the process file, which the child writes itself before it becomes containerd.

import { spawn } from 'node:child_process';
import { closeSync, mkdirSync, openSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { SwarmError } from '../../../core/errors.ts';
import type { Logger } from '../../../rpc/logger.ts';
import { type ContainerdPlaces, containerdConfiguration } from './configuration.ts';
import type { Containerd } from './connection.ts';

export interface SupervisorOptions {
  readonly places: ContainerdPlaces;
  readonly containerdPath: string;
  /** crun refuses a hybrid machine unless it sees no controllers in the unified hierarchy. */
  readonly hidesUnifiedControllers: boolean;
  readonly log: Logger;
}

interface ProcessIdentity {
  readonly pid: number;
  readonly startTime: string;
}

export const UNIFIED_CONTROLLERS = '/sys/fs/cgroup/unified/cgroup.controllers';

// containerd answers 70 to 90 ms after its start; a machine busy with a disk check may take seconds.
const READY_TIMEOUT_MS = 30_000;
const READY_POLL_MS = 10;
const STOP_TIMEOUT_MS = 10_000;
const RESTART_DELAY_MIN_MS = 50;
const RESTART_DELAY_MAX_MS = 5_000;
const LOG_BYTES_MAX = 8 * 2 ** 20;

// Go's collector trades CPU for memory here: containerd is idle most of the time.
const CONTAINERD_ENVIRONMENT = { GOGC: '50', GOMAXPROCS: '2' };

// The child notes its own /proc entry (pid and start time survive exec), so no crash can leave an unknown containerd.
const START_SCRIPT = 'cat /proc/$$/stat >"$2.new" && mv "$2.new" "$2" && exec "$0" --config "$1"';
const START_SCRIPT_HIDING = `mount --bind "$3" ${UNIFIED_CONTROLLERS} && ${START_SCRIPT}`;

export class ContainerdSupervisor {
  readonly #options: SupervisorOptions;
  readonly #containerd: Containerd;
  #restartDelayMs = RESTART_DELAY_MIN_MS;
  #startedAtMs = 0;

  constructor(options: SupervisorOptions, containerd: Containerd) {
    this.#options = options;
    this.#containerd = containerd;
  }

  /** Resolves when a containerd with the wanted configuration answers; returns its version. */
  async ensure(signal: AbortSignal): Promise<string> {
    const { places, log } = this.#options;
    const wanted = containerdConfiguration(places, this.#options.hidesUnifiedControllers);
    const running = this.#running();
    if (running !== undefined) {
      if (readIfPresent(places.configPath) === wanted) {
        const version = await this.#waitUntilReady(running, signal);
        if (version !== undefined) return version;
        log.error({ pid: running.pid }, 'containerd does not answer');
        await this.#end(running, 'SIGKILL');
      } else {
        log.info({ pid: running.pid }, 'containerd has another configuration');
        await this.#end(running, 'SIGTERM');
      }
    }
    return this.#startUntilReady(wanted, signal);
  }

  /** Ends containerd; its containers, if any are left, go on. */
  async shutdown(): Promise<void> {
    const running = this.#running();
    if (running !== undefined) await this.#end(running, 'SIGTERM');
    rmSync(this.#options.places.processPath, { force: true });
  }

  /** The pid of the containerd in charge, if it lives. */
  get pid(): number | undefined {
    return this.#running()?.pid;
  }

  async #startUntilReady(configuration: string, signal: AbortSignal): Promise<string> {
    for (;;) {
      signal.throwIfAborted();
      await this.#backOff(signal);
      const identity = this.#spawn(configuration);
      const version = identity && (await this.#waitUntilReady(identity, signal));
      if (version !== undefined) return version;
      if (this.#restartDelayMs >= RESTART_DELAY_MAX_MS) {
        throw new SwarmError('unavailable', `containerd does not start`, {
          hint: `Its own words are in ${this.#options.places.logPath}.`,
        });
      }
    }
  }

  /** Waits longer the sooner the last containerd died. */
  async #backOff(signal: AbortSignal): Promise<void> {
    const livedMs = performance.now() - this.#startedAtMs;
    if (livedMs > RESTART_DELAY_MAX_MS) this.#restartDelayMs = RESTART_DELAY_MIN_MS;
    else {
      await delay(this.#restartDelayMs, undefined, { signal });
      this.#restartDelayMs = Math.min(this.#restartDelayMs * 2, RESTART_DELAY_MAX_MS);
    }
    this.#startedAtMs = performance.now();
  }

  #spawn(configuration: string): { pid: number } | undefined {
    const { places, containerdPath, hidesUnifiedControllers, log } = this.#options;
    mkdirSync(places.root, { recursive: true, mode: 0o711 });
    mkdirSync(places.state, { recursive: true, mode: 0o711 });
    writeFileSync(places.configPath, configuration);
    writeFileSync(places.emptyFilePath, '');
    rmSync(places.processPath, { force: true });
    const [command, ...prefix] = hidesUnifiedControllers
      ? ['unshare', '--mount', '--propagation', 'slave', 'sh', '-c', START_SCRIPT_HIDING]
      : ['sh', '-c', START_SCRIPT];
    const args = [...prefix, containerdPath, places.configPath, places.processPath, places.emptyFilePath];
    const output = openSync(places.logPath, logIsFull(places.logPath) ? 'w' : 'a');
    try {
      const child = spawn(command as string, args, {
        detached: true,
        stdio: ['ignore', output, output],
        env: { PATH: process.env['PATH'], ...CONTAINERD_ENVIRONMENT },
      });
      child.on('error', (error) => log.error({ err: error }, 'containerd not started'));
      child.on('exit', (code, signal) => log.warn({ pid: child.pid, code, signal }, 'containerd ended'));
      child.unref();
      if (child.pid === undefined) return undefined;
      log.info({ pid: child.pid }, 'containerd started');
      return { pid: child.pid };
    } finally {
      closeSync(output);
    }
  }

  /** The version, or undefined when the process dies or stays silent. */
  async #waitUntilReady(identity: { pid: number }, signal: AbortSignal): Promise<string | undefined> {
    const deadline = performance.now() + READY_TIMEOUT_MS;
    while (performance.now() < deadline) {
      signal.throwIfAborted();
      try {
        const { version } = await this.#containerd.version.version({}, { timeoutMs: 1000, signal });
        return version;
      } catch (error) {
        signal.throwIfAborted();
        if (!isAlive(identity.pid)) return undefined;
        this.#options.log.trace({ err: error }, 'containerd not ready');
        await delay(READY_POLL_MS);
      }
    }
    return undefined;
  }

  #running(): ProcessIdentity | undefined {
    const identity = parseProcessStat(readIfPresent(this.#options.places.processPath));
    if (identity === undefined) return undefined;
    const now = parseProcessStat(readIfPresent(`/proc/${identity.pid}/stat`));
    return now?.startTime === identity.startTime && now.state !== 'Z' ? identity : undefined;
  }

  async #end(identity: ProcessIdentity, signal: NodeJS.Signals): Promise<void> {
    const deadline = performance.now() + STOP_TIMEOUT_MS;
    process.kill(identity.pid, signal);
    while (this.#running()?.pid === identity.pid) {
      if (performance.now() > deadline) process.kill(identity.pid, 'SIGKILL');
      await delay(READY_POLL_MS);
    }
  }
}

function isAlive(pid: number): boolean {
  const stat = parseProcessStat(readIfPresent(`/proc/${pid}/stat`));
  return stat !== undefined && stat.state !== 'Z';
}

function logIsFull(file: string): boolean {
  return (statSync(file, { throwIfNoEntry: false })?.size ?? 0) > LOG_BYTES_MAX;
}

function readIfPresent(file: string): string | undefined {
  try {
    return readFileSync(file, 'utf8');
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ESRCH') return undefined;
    throw error;
  }
}

/** Reads /proc/<pid>/stat. The command in brackets may itself hold brackets and blanks. */
export function parseProcessStat(
  text: string | undefined,
): (ProcessIdentity & { state: string }) | undefined {
  const match = /^(\d+) \(.*\) (\S) (.*)$/s.exec(text ?? '');
  if (match === null) return undefined;
  // Fields 4 and on; the start time is the 22nd.
  const startTime = (match[3] as string).split(' ')[18];
  return startTime === undefined
    ? undefined
    : { pid: Number(match[1]), state: match[2] as string, startTime };
}
