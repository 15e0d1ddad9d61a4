// Commands inside running containers, beside their own process. A command's FIFO is named after it and lives as long as
// it does: by it a daemon finds what its predecessor has left running, and ends it.

import { randomUUID } from 'node:crypto';
import { mkdirSync, readdirSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { hasCode, messageOf, SwarmError } from '../../../core/errors.ts';
import type { Logger } from '../../../rpc/logger.ts';
import type { Containerd } from '../containerd/connection.ts';
import type { ExecRequest, ExecResult, ExecSession, ExecSessionRequest, WindowSize } from '../engine.ts';
import { Limiter } from '../limiter.ts';
import type { Machine } from '../machine.ts';
import { checkIds } from '../users/container-users.ts';
import { type ContainerEntry, runningPid } from './entry.ts';
import { ExecOutput } from './exec-output.ts';
import { type ExecProcess, sessionProcess } from './exec-process.ts';
import { ExecStreams } from './exec-streams.ts';
import { execFailure } from './failure.ts';
import { killProcess, processesOf, processStat } from './processes.ts';
import { signalNumber } from './signals.ts';
import { readSpec } from './spec.ts';

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

interface OpenExec {
  readonly name: ExecName;
  readonly entry: ContainerEntry;
  readonly pid: number;
  readonly streams: ExecStreams;
}

// What a command costs is its start, which runs the OCI runtime; waiting for its end is free.
const PARALLEL_STARTS = 4;
const START_TIMEOUT_MS = 60_000;
// A process that outlives SIGKILL this long hangs in the kernel.
const KILL_TIMEOUT_MS = 10_000;
const WAIT_AGAIN_MS = 200;
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

  /** See `Containers.openExec`. */
  async open(entry: ContainerEntry, request: ExecSessionRequest): Promise<ExecSession> {
    return this.#starts.run(() => this.#open(entry, request));
  }

  async #open(entry: ContainerEntry, request: ExecSessionRequest): Promise<ExecSession> {
    const root = `/proc/${runningPid(entry)}/root`;
    const { containerd, directory, machine } = this.#options;
    const process = await sessionProcess(await this.#processOf(entry), request, { root, machine });
    if (entry.record.users !== undefined && process.user !== undefined) checkIds(process.user);
    const name = newName(entry);
    const streams = ExecStreams.create(path.join(directory, `${fifoName(name)}${SEPARATOR}`), request);
    for (const fifo of streams.fifos) this.#attended.add(fifo);
    try {
      const spec = processSpec(process);
      await containerd.tasks.exec({ ...name, ...streams.paths, terminal: request.tty, spec });
      const { pid } = await containerd.tasks.start(name, { timeoutMs: START_TIMEOUT_MS });
      const session = this.#sessionOf({ name, entry, pid, streams });
      if (request.tty && request.size !== undefined) await session.resize(request.size);
      return session;
    } catch (error) {
      await this.#endSession(name, streams, entry);
      throw execFailure(error, request.command[0] ?? '');
    }
  }

  #sessionOf({ name, entry, pid, streams }: OpenExec): ExecSession {
    const { tasks } = this.#options.containerd;
    const exited = this.#untilExit(name, entry);
    const reading = streams.read(exited);
    // Deleted any earlier, the shim would throw away what nobody has read yet.
    const end = async () => {
      await exited;
      await this.#endSession(name, streams, entry);
    };
    const output = (async function* () {
      try {
        yield* reading;
      } finally {
        streams.drain();
        void end();
      }
    })();
    return {
      output,
      exited,
      write: (data) => streams.write(data),
      endInput: async () => {
        // The shim would hang up a terminal.
        if (streams.paths.stderr === '') return;
        streams.closeInput();
        await ignoreGone(entry, tasks.closeIO({ ...name, stdin: true }));
      },
      resize: ({ columns, rows }: WindowSize) =>
        ignoreGone(entry, tasks.resizePty({ ...name, width: columns, height: rows })),
      signal: (text) => ignoreGone(entry, tasks.kill({ ...name, signal: signalNumber(text), all: false })),
      kill: () => this.#killSession(entry, pid),
    };
  }

  /** containerd may be away for a while; a command goes on without it. */
  async #untilExit(name: ExecName, entry: ContainerEntry): Promise<number> {
    for (;;) {
      try {
        return (await this.#options.containerd.tasks.wait(name)).exitStatus;
      } catch (error) {
        if (entry.state.state !== 'running' || !hasCode(error, 'unavailable')) return EXIT_CODE_KILLED;
        await delay(WAIT_AGAIN_MS, undefined, { ref: false });
      }
    }
  }

  async #endSession(name: ExecName, streams: ExecStreams, entry: ContainerEntry): Promise<void> {
    try {
      await this.#delete(name, entry);
      streams.remove();
    } catch (error) {
      this.#logUndeleted(name, error);
    } finally {
      for (const fifo of streams.fifos) this.#attended.delete(fifo);
      streams.close();
    }
  }

  async #start(entry: ContainerEntry, { command, signal }: ExecRequest): Promise<StartedExec> {
    signal?.throwIfAborted();
    runningPid(entry);
    const { tasks } = this.#options.containerd;
    const own = await this.#processOf(entry);
    const spec = processSpec({ ...own, terminal: false, args: command });
    const name = newName(entry);
    const startedAtMs = performance.now();
    const fifo = path.join(this.#options.directory, fifoName(name));
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
  async #processOf(entry: ContainerEntry): Promise<ExecProcess> {
    if (entry.process !== undefined) return entry.process;
    const { container } = await this.#options.containerd.containers.get({ id: entry.id });
    const { process } = readSpec(Buffer.from(container?.spec?.value ?? '{}').toString());
    if (process === undefined)
      throw new SwarmError('failed-precondition', `the specification of container ${entry.id} is lost`);
    entry.process = process as ExecProcess;
    return entry.process;
  }

  /** Forgets a command that has ended; returns what it wrote. */
  async #end(name: ExecName, output: ExecOutput, entry: ContainerEntry): Promise<string> {
    try {
      await this.#delete(name, entry);
      output.remove();
    } catch (error) {
      this.#logUndeleted(name, error);
    }
    return this.#leave(output);
  }

  async #delete(name: ExecName, entry: ContainerEntry): Promise<void> {
    try {
      await this.#options.containerd.tasks.deleteProcess(name);
    } catch (error) {
      // Its container takes it along.
      if (!hasCode(error, 'not-found') && entry.state.state === 'running') throw error;
    }
  }

  #logUndeleted({ containerId }: ExecName, error: unknown): void {
    const { log } = this.#options;
    log.warn(
      { 'container.id': containerId, reason: messageOf(error) },
      'command in a container not deleted yet',
    );
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
    const session = processStat(pid)?.session;
    for (const process of processesOf(entry, this.#options))
      if (process.session === session) killProcess(process);
  }

  /**
   * Kills all that was brought into a container from outside, which are commands, but not its first process. Nothing when
   * that is not known (0).
   */
  #killAllBeside(entry: ContainerEntry, first: number): void {
    if (first === 0) return;
    const processes = processesOf(entry, this.#options);
    const inside = new Set(processes.map(({ pid }) => pid));
    const sessions = processes
      .filter(({ pid, parent }) => pid !== first && !inside.has(parent))
      .map(({ session }) => session);
    for (const process of processes) if (sessions.includes(process.session)) killProcess(process);
  }

  #isAttended(containerId: string): boolean {
    return [...this.#attended].some((fifo) => path.basename(fifo).startsWith(`${containerId}${SEPARATOR}`));
  }
}

// In neither name.
const SEPARATOR = '@';

function fifoName({ containerId, execId }: ExecName): string {
  return `${containerId}${SEPARATOR}${execId}`;
}

function newName({ id }: ContainerEntry): ExecName {
  return { containerId: id, execId: `exec-${randomUUID()}` };
}

function processSpec(process: object): { typeUrl: string; value: Uint8Array } {
  return { typeUrl: PROCESS_TYPE, value: Buffer.from(JSON.stringify(process)) };
}

/** What comes too late for a command that has ended is no failure. */
async function ignoreGone(entry: ContainerEntry, call: Promise<unknown>): Promise<void> {
  try {
    await call;
  } catch (error) {
    const isGone = hasCode(error, 'not-found') || hasCode(error, 'failed-precondition');
    // A shim that goes with its container says neither.
    if (!isGone && entry.state.state === 'running') throw error;
  }
}
