// Commands inside running containers, beside their own process. A command's FIFO is named after it and lives as long as
// it does: by it a daemon finds what its predecessor has left running, and ends it.

import { randomUUID } from 'node:crypto';
import { mkdirSync, readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { hasCode, messageOf, SwarmError } from '../../../core/errors.ts';
import type { Logger } from '../../../rpc/logger.ts';
import type { Containerd } from '../containerd/connection.ts';
import type { ExecRequest, ExecResult } from '../engine.ts';
import { Limiter } from '../limiter.ts';
import type { Machine } from '../machine.ts';
import type { ContainerEntry } from './entry.ts';
import { ExecOutput } from './exec-output.ts';
import { execFailure } from './failure.ts';
import { cgroupsPath, readSpec } from './spec.ts';

export interface ExecsOptions {
  readonly containerd: Containerd;
  /** For the FIFOs. Ends with the boot. */
  readonly directory: string;
  readonly engineId: string;
  readonly machine: Machine;
  readonly log: Logger;
}

/** containerd's names of a command. */
interface ExecName {
  readonly containerId: string;
  readonly execId: string;
}

interface StartedExec {
  readonly name: ExecName;
  readonly entry: ContainerEntry;
  readonly pid: number;
  readonly output: ExecOutput;
  readonly startedAtMs: number;
}

// What a command costs is its start, which runs the OCI runtime; waiting for its end is free.
const PARALLEL_STARTS = 4;
const START_TIMEOUT_MS = 60_000;
// A process that outlives SIGKILL this long hangs in the kernel.
const KILL_TIMEOUT_MS = 10_000;
const EXIT_CODE_KILLED = 137;
const PROCESS_TYPE = 'types.containerd.io/opencontainers/runtime-spec/1/Process';

export class ContainerExecs {
  readonly #options: ExecsOptions;
  readonly #starts = new Limiter(PARALLEL_STARTS);
  /** FIFOs that somebody looks after. */
  readonly #attended = new Set<string>();
  readonly #leftovers = new Map<string, ExecOutput>();

  constructor(options: ExecsOptions) {
    this.#options = options;
    mkdirSync(options.directory, { recursive: true, mode: 0o700 });
  }

  /** See `Containers.exec`. */
  async run(entry: ContainerEntry, request: ExecRequest): Promise<ExecResult> {
    const started = await this.#starts.run(() => this.#start(entry, request));
    return this.#finish(started, request);
  }

  async #start(entry: ContainerEntry, { command, signal }: ExecRequest): Promise<StartedExec> {
    signal?.throwIfAborted();
    if (entry.state.state !== 'running')
      throw new SwarmError('failed-precondition', `container ${entry.id} is not running`);
    const { tasks } = this.#options.containerd;
    const own = await this.#processOf(entry);
    const json = JSON.stringify({ ...own, terminal: false, args: command });
    const spec = { typeUrl: PROCESS_TYPE, value: Buffer.from(json) };
    const name = { containerId: entry.id, execId: `exec-${randomUUID()}` };
    const startedAtMs = performance.now();
    const fifo = this.#fifo(name);
    const output = ExecOutput.create(fifo);
    this.#attended.add(fifo);
    const streams = { stdin: '', stdout: fifo, stderr: fifo, terminal: false };
    try {
      await tasks.exec({ ...name, ...streams, spec });
      const { pid } = await tasks.start(name, { timeoutMs: START_TIMEOUT_MS });
      return { name, entry, pid, output, startedAtMs };
    } catch (error) {
      // It may run all the same.
      if (hasCode(error, 'unavailable') || hasCode(error, 'deadline-exceeded')) this.#leave(output);
      else await this.#end(name, output, entry);
      throw execFailure(error, command[0] ?? '');
    }
  }

  async #finish(started: StartedExec, { timeoutMs, signal }: ExecRequest): Promise<ExecResult> {
    const { name, entry, pid, output, startedAtMs } = started;
    const kill = () => this.#killSession(entry, pid);
    const remainingMs = Math.max(0, timeoutMs - (performance.now() - startedAtMs));
    let hasTimedOut = false;
    const timer = setTimeout(() => {
      hasTimedOut = true;
      kill();
    }, remainingMs);
    if (signal?.aborted) kill();
    signal?.addEventListener('abort', kill, { once: true });
    try {
      const exitCode = await this.#exitCode(name, remainingMs + KILL_TIMEOUT_MS);
      clearTimeout(timer);
      const text = await this.#end(name, output, entry);
      signal?.throwIfAborted();
      return { exitCode, output: text, hasTimedOut };
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener('abort', kill);
      this.#leave(output);
    }
  }

  async #exitCode(name: ExecName, timeoutMs: number): Promise<number> {
    try {
      return (await this.#options.containerd.tasks.wait(name, { timeoutMs })).exitStatus;
    } catch (error) {
      // It has ended with its container.
      if (hasCode(error, 'not-found')) return EXIT_CODE_KILLED;
      throw error;
    }
  }

  /** Of the container, without what it runs. */
  async #processOf(entry: ContainerEntry): Promise<object> {
    if (entry.process !== undefined) return entry.process;
    const { container } = await this.#options.containerd.containers.get({ id: entry.id });
    const { process } = readSpec(Buffer.from(container?.spec?.value ?? '{}').toString());
    if (process === undefined)
      throw new SwarmError('failed-precondition', `the specification of container ${entry.id} is lost`);
    entry.process = process;
    return process;
  }

  /** Forgets a command that has ended; returns what it wrote. */
  async #end(name: ExecName, output: ExecOutput, entry: ContainerEntry): Promise<string> {
    try {
      await this.#options.containerd.tasks.deleteProcess(name);
      output.remove();
    } catch (error) {
      // Its container takes it along.
      if (hasCode(error, 'not-found') || entry.state.state !== 'running') output.remove();
      else {
        const reason = messageOf(error);
        const { log } = this.#options;
        log.warn({ 'container.id': name.containerId, reason }, 'command in a container not deleted yet');
      }
    }
    return this.#leave(output);
  }

  /** Looks after a command no longer. If its FIFO is still there, the next full look ends it. */
  #leave(output: ExecOutput): string {
    this.#attended.delete(output.path);
    return output.close();
  }

  /**
   * Finds the commands that nobody looks after: those of a daemon that was killed, or of before a crash of containerd. Their
   * output is read from now on: a shim that cannot write it, or waits for a reader, says nothing of its containers.
   */
  holdLeftovers(): void {
    for (const file of readdirSync(this.#options.directory)) {
      const fifo = path.join(this.#options.directory, file);
      if (!this.#attended.has(fifo) && !this.#leftovers.has(fifo))
        this.#leftovers.set(fifo, ExecOutput.open(fifo));
    }
  }

  /** Ends what is held. */
  async endLeftovers(entryOf: (containerId: string) => ContainerEntry | undefined): Promise<void> {
    for (const [fifo, output] of [...this.#leftovers]) {
      const [containerId = '', execId = ''] = path.basename(fifo).split(SEPARATOR);
      // What is left there cannot be told from what runs there now: the next full look comes back to it.
      if (this.#isAttended(containerId)) continue;
      this.#leftovers.delete(fifo);
      this.#attended.add(fifo);
      try {
        await this.#endLeftover({ containerId, execId }, output, entryOf(containerId));
      } catch (error) {
        const reason = messageOf(error);
        const { log } = this.#options;
        log.warn({ 'container.id': containerId, reason }, 'command left in a container not ended yet');
      } finally {
        this.#leave(output);
      }
    }
  }

  async #endLeftover(name: ExecName, output: ExecOutput, entry?: ContainerEntry): Promise<void> {
    if (entry?.state.state !== 'running') {
      output.remove();
      return;
    }
    // A start that was cut off leaves processes that containerd knows nothing of.
    this.#killAllBeside(entry, entry.state.pid);
    const pid = await this.#pidOf(name);
    if (pid > 0) {
      this.#killSession(entry, pid);
      await this.#exitCode(name, KILL_TIMEOUT_MS);
    }
    await this.#end(name, output, entry);
  }

  /** 0 when it does not run. */
  async #pidOf(name: ExecName): Promise<number> {
    try {
      const { process } = await this.#options.containerd.tasks.get(name);
      return process?.status === 'running' ? process.pid : 0;
    } catch (error) {
      if (hasCode(error, 'not-found')) return 0;
      throw error;
    }
  }

  /** Kills a command and what it has started: the runtime gives it a session of its own. */
  #killSession(entry: ContainerEntry, pid: number): void {
    const session = statOf(pid)?.session;
    for (const process of this.#processesOf(entry)) if (process.session === session) killProcess(process);
  }

  /**
   * Kills all that was brought into a container from outside, which are commands, but not its first process. Nothing when
   * that is not known (0).
   */
  #killAllBeside(entry: ContainerEntry, first: number): void {
    if (first === 0) return;
    const processes = this.#processesOf(entry);
    const inside = new Set(processes.map(({ pid }) => pid));
    const sessions = processes
      .filter(({ pid, parent }) => pid !== first && !inside.has(parent))
      .map(({ session }) => session);
    for (const process of processes) if (sessions.includes(process.session)) killProcess(process);
  }

  #processesOf({ id, record }: ContainerEntry): Process[] {
    const { machine, engineId } = this.#options;
    const hierarchy = machine.cgroupVersion === '2' ? '' : 'memory';
    const group = path.join('/sys/fs/cgroup', hierarchy, record.cgroup ?? cgroupsPath(engineId, id));
    const pids = readIfThere(path.join(group, 'cgroup.procs')).trim().split('\n').map(Number);
    return pids.map(statOf).filter((process) => process !== undefined);
  }

  #isAttended(containerId: string): boolean {
    return [...this.#attended].some((fifo) => path.basename(fifo).startsWith(`${containerId}${SEPARATOR}`));
  }

  #fifo({ containerId, execId }: ExecName): string {
    return path.join(this.#options.directory, `${containerId}${SEPARATOR}${execId}`);
  }
}

// In neither name.
const SEPARATOR = '@';

interface Process {
  readonly pid: number;
  readonly parent: number;
  readonly session: number;
}

/** From /proc/<pid>/stat, where the program's name may have blanks and parentheses of its own. */
function statOf(pid: number): Process | undefined {
  const stat = readIfThere(`/proc/${pid}/stat`);
  if (stat === '') return undefined;
  const [_state, parent, _group, session] = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return { pid, parent: Number(parent), session: Number(session) };
}

function readIfThere(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    // It has ended.
    return '';
  }
}

function killProcess({ pid }: Process): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}
