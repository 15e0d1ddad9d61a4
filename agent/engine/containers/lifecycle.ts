// From the start of a container's process to its end, and what is left to do after it. Events of containerd and full
// looks both arrive here; whichever comes first counts.

import { readFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { hasCode, messageOf, SwarmError } from '../../../core/errors.ts';
import type { TaskExitEvent } from '../../../proto/generated/containerd-events.ts';
import type { ContainerProcess } from '../../../proto/generated/containerd-tasks.ts';
import type { SnapshotMount, WireTime } from '../../../proto/generated/containerd-types.ts';
import type { Logger } from '../../../rpc/logger.ts';
import { type Containerd, SNAPSHOTTER } from '../containerd/connection.ts';
import type { ContainerExit } from '../engine.ts';
import { Limiter, SingleFlight } from '../limiter.ts';
import type { LogService } from '../logs/log-service.ts';
import type { Machine } from '../machine.ts';
import type { ContainerMounts } from '../volumes/container-mounts.ts';
import type { ContainerEntry } from './entry.ts';
import { startFailure } from './failure.ts';
import { cgroupsPath, shimGroup } from './spec.ts';
import { keepInputOpen, makeInput } from './standard-input.ts';

export interface LifecycleOptions {
  readonly containerd: Containerd;
  readonly engineId: string;
  readonly machine: Machine;
  readonly logs: LogService;
  readonly mounts: Pick<ContainerMounts, 'withRoot'>;
  readonly log: Logger;
}

const SIGKILL = 9;
/** As if killed: what a container gets whose process is gone without a word. */
const EXIT_CODE_LOST = 137;
/** What Docker gives to containers that a reboot has ended. */
const EXIT_CODE_REBOOT = 255;
// Deleting a task runs two programs; more at once only lengthens the queue.
const PARALLEL_DELETIONS = 4;
const TASK_TIMEOUT_MS = 120_000;
// containerd gives up a task whose caller has gone within some seconds.
const CUT_OFF_LIMIT_MS = 15_000;
const CUT_OFF_POLL_MS = 50;
const PLACE_OF_TASK_TAKEN = /failed to start shim: .*: (file exists|no such file or directory)$/;
const STOPPED_POLL_MS = 20;

export class ContainerLifecycle {
  readonly #options: LifecycleOptions;
  readonly #deletions = new Limiter(PARALLEL_DELETIONS);
  readonly #deletionFlights = new SingleFlight<void>();
  readonly #shims = new Map<string, Limiter>();
  readonly #bootId = readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();

  constructor(options: LifecycleOptions) {
    this.#options = options;
  }

  /** Starts the process; returns its pid. */
  async start(entry: ContainerEntry): Promise<number> {
    const { logs, log } = this.#options;
    entry.isStarting = true;
    entry.earlyExit = undefined;
    logs.open(entry.id, entry.directory.path, entry.record.logs);
    try {
      const pid = await this.#startTask(entry);
      this.#markRunning(entry, pid, Date.now());
      if (entry.earlyExit !== undefined) this.#exit(entry, entry.earlyExit);
      return pid;
    } catch (error) {
      log.warn({ 'container.id': entry.id, reason: messageOf(error) }, 'container not started');
      await this.#abandonTask(entry);
      throw startFailure(error, entry.record.command);
    } finally {
      entry.isStarting = false;
    }
  }

  #markRunning(entry: ContainerEntry, pid: number, startedAtMs: number): void {
    entry.directory.markStarted(this.#bootId, startedAtMs);
    entry.state = { state: 'running', pid, startedAtMs };
  }

  async #startTask(entry: ContainerEntry): Promise<number> {
    const { containerd, logs, mounts } = this.#options;
    const { stdout, stderr } = logs.spoolPaths(entry.id);
    const call = { timeoutMs: TASK_TIMEOUT_MS };
    const { openStdin, tty, users } = entry.record;
    const stdin = openStdin ? entry.directory.stdinPath : '';
    if (openStdin) makeInput(stdin);
    const request = {
      containerId: entry.id,
      stdin,
      stdout,
      stderr: tty ? '' : stderr,
      terminal: tty,
    };
    const snapshot = entry.mounts ?? (await this.#snapshotMounts(entry));
    await this.#afterCutOffStart(entry.id, () =>
      this.#alone(entry.id, () =>
        mounts.withRoot(entry.id, { snapshot, users }, (rootfs) =>
          containerd.tasks.create({ ...request, rootfs }, call),
        ),
      ),
    );
    entry.mounts = undefined;
    if (openStdin) await keepInputOpen(stdin, await this.#createdPid(entry.id));
    return (await containerd.tasks.start({ containerId: entry.id }, call)).pid;
  }

  /** An earlier start may have been cut off, with its process, while containerd made the task or after it. */
  async #afterCutOffStart(id: string, create: () => Promise<unknown>): Promise<void> {
    const deadline = performance.now() + CUT_OFF_LIMIT_MS;
    for (;;) {
      try {
        await create();
        return;
      } catch (error) {
        const isThere = hasCode(error, 'already-exists');
        // containerd has not put away yet what it had made, or does so at this moment: that task is not to be relied on.
        const isInTheWay = isThere || PLACE_OF_TASK_TAKEN.test(messageOf(error));
        if (!isInTheWay || performance.now() > deadline) throw error;
        if (isThere) await this.deleteTask(id);
        else await delay(CUT_OFF_POLL_MS);
      }
    }
  }

  async #createdPid(containerId: string): Promise<number> {
    const { process } = await this.#options.containerd.tasks.get({ containerId });
    if (process === undefined) throw new SwarmError('not-found', `container ${containerId} has no process`);
    return process.pid;
  }

  /** The mounts of the container's snapshot, which is made when its creation was cut off before it. */
  async #snapshotMounts(entry: ContainerEntry): Promise<readonly SnapshotMount[]> {
    const { snapshots } = this.#options.containerd;
    const key = { snapshotter: SNAPSHOTTER, key: entry.id };
    try {
      return (await snapshots.mounts(key)).mounts;
    } catch (error) {
      if (!hasCode(error, 'not-found')) throw error;
      return (await snapshots.prepare({ ...key, parent: entry.record.parentSnapshot, labels: {} })).mounts;
    }
  }

  async #abandonTask(entry: ContainerEntry): Promise<void> {
    try {
      await this.deleteTask(entry.id);
    } catch (error) {
      this.#options.log.warn(
        { 'container.id': entry.id, reason: messageOf(error) },
        'failed task not deleted',
      );
    }
    this.#options.logs.remove(entry.id, entry.directory.path, false);
  }

  /** Kills what is left of the task and deletes it. Succeeds when there is none. */
  async deleteTask(id: string): Promise<void> {
    await this.#deletionFlights.run(id, () =>
      this.#deletions.run(async () => {
        try {
          await this.#deleteTask(id);
        } catch (error) {
          if (!hasCode(error, 'not-found')) throw error;
        }
      }),
    );
  }

  async #deleteTask(id: string): Promise<void> {
    const { tasks } = this.#options.containerd;
    try {
      await this.#alone(id, () => tasks.delete({ containerId: id }, { timeoutMs: TASK_TIMEOUT_MS }));
    } catch (error) {
      if (!hasCode(error, 'failed-precondition') && !hasCode(error, 'internal')) throw error;
      // It still runs or was only created.
      await tasks.kill({ containerId: id, signal: SIGKILL, all: true }).catch(() => {});
      await this.#untilStopped(id);
      await this.#alone(id, () => tasks.delete({ containerId: id }, { timeoutMs: TASK_TIMEOUT_MS }));
    }
  }

  /**
   * Creations and deletions in one shim take turns. Its first container brings the shim with it, the last one takes it
   * away: two that come at once would start it twice and break both, and one must not come while the last one goes.
   */
  #alone<T>(id: string, call: () => Promise<T>): Promise<T> {
    const group = shimGroup(id);
    const turns = this.#shims.get(group) ?? new Limiter(1);
    this.#shims.set(group, turns);
    return turns.run(call);
  }

  async #untilStopped(id: string): Promise<void> {
    const deadline = performance.now() + TASK_TIMEOUT_MS;
    while (performance.now() < deadline) {
      const { process: task } = await this.#options.containerd.tasks.get({ containerId: id });
      if (task === undefined || task.status === 'stopped') return;
      await delay(STOPPED_POLL_MS);
    }
  }

  onExitEvent(entry: ContainerEntry, event: TaskExitEvent): void {
    const exit = exitOf(event.exitStatus, event.exitedAt);
    // Until its start has succeeded, nobody knows whether the container ever ran.
    if (entry.isStarting && entry.state.state === 'created') entry.earlyExit = exit;
    else this.#exit(entry, exit);
  }

  /** Compares what containerd shows with what is known. `task` is undefined when containerd has none. */
  reconcile(entry: ContainerEntry, task: ContainerProcess | undefined): void {
    if (entry.isStarting) return;
    const { state } = entry;
    if (state.state === 'exited') {
      if (task !== undefined || this.#options.logs.isFollowed(entry.id)) this.#settle(entry);
      return;
    }
    if (task?.status === 'stopped') {
      this.#exit(entry, exitOf(task.exitStatus, task.exitedAt));
    } else if (task !== undefined && task.status !== 'created') {
      // A shim that does not answer in time has no pid to tell. A later look does.
      if (state.state === 'running' && (state.pid > 0 || task.pid === 0)) return;
      // The note may be missing: the daemon ended right after the start.
      this.#markRunning(entry, task.pid, entry.directory.startedAtMs() ?? Date.now());
      this.#options.logs.open(entry.id, entry.directory.path, entry.record.logs);
    } else if (task === undefined && entry.directory.startedInBoot() !== undefined) {
      const hasRebooted = entry.directory.startedInBoot() !== this.#bootId;
      const exitCode = hasRebooted ? EXIT_CODE_REBOOT : EXIT_CODE_LOST;
      this.#exit(entry, { exitCode, exitedAtMs: Date.now(), outOfMemory: false });
    }
  }

  #exit(entry: ContainerEntry, exit: ContainerExit): void {
    if (entry.state.state === 'exited') return;
    const outOfMemory =
      entry.isOutOfMemory || (exit.exitCode === EXIT_CODE_LOST && this.#wasOomKilled(entry));
    const final = { ...exit, outOfMemory };
    entry.directory.writeExit(final);
    this.#options.log.info(
      { 'container.id': entry.id, exitCode: exit.exitCode, outOfMemory },
      'container ended',
    );
    // Whoever reads the log from now on hears the rest of it too, which the shim may still have.
    this.#options.logs.resume(entry.id, entry.directory.path, entry.record.logs);
    this.#settle(entry);
    entry.markExited(final);
  }

  /** Deletes the task, so that the shim has written all output, then completes the log. */
  #settle(entry: ContainerEntry): void {
    entry.settled ??= this.#settleNow(entry).finally(() => {
      entry.settled = undefined;
    });
  }

  async #settleNow(entry: ContainerEntry): Promise<void> {
    const { logs, log } = this.#options;
    try {
      await this.deleteTask(entry.id);
      logs.finish(entry.id, entry.directory.path, entry.record.logs);
    } catch (error) {
      // The next full look comes back to it.
      log.warn({ 'container.id': entry.id, reason: messageOf(error) }, 'ended task not deleted');
    }
  }

  /** The cgroup outlives the process until its task is deleted. */
  #wasOomKilled(entry: ContainerEntry): boolean {
    const group = this.#cgroupOf(entry);
    const isUnified = this.#options.machine.cgroupVersion === '2';
    const file = isUnified
      ? path.join('/sys/fs/cgroup', group, 'memory.events')
      : path.join('/sys/fs/cgroup/memory', group, 'memory.oom_control');
    try {
      return Number(/^oom_kill (\d+)$/m.exec(readFileSync(file, 'utf8'))?.[1] ?? 0) > 0;
    } catch {
      // Gone already.
      return false;
    }
  }

  #cgroupOf({ id, record }: ContainerEntry): string {
    return record.cgroup ?? cgroupsPath(this.#options.engineId, id);
  }

  /** Sends a signal to the container's first process. */
  async signal(entry: ContainerEntry, signal: number): Promise<void> {
    if (entry.state.state !== 'running')
      throw new SwarmError('failed-precondition', `container ${entry.id} is not running`);
    const { pid } = entry.state;
    // A direct signal costs nothing, containerd's way runs a program. The cgroup tells that the pid is still its own.
    if (belongsTo(pid, this.#cgroupOf(entry))) {
      try {
        process.kill(pid, signal);
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
      }
      return;
    }
    try {
      await this.#options.containerd.tasks.kill({ containerId: entry.id, signal, all: false });
    } catch (error) {
      // It has ended: the event is on its way, or has come meanwhile and the shim has gone under the call.
      if (!hasCode(error, 'not-found') && entry.state.state === 'running') throw error;
    }
  }
}

function belongsTo(pid: number, cgroup: string): boolean {
  try {
    return readFileSync(`/proc/${pid}/cgroup`, 'utf8')
      .split('\n')
      .some((line) => line.endsWith(`:${cgroup}`));
  } catch {
    return false;
  }
}

function exitOf(exitCode: number, at: WireTime | undefined): ContainerExit {
  const exitedAtMs = at === undefined || at.seconds <= 0 ? Date.now() : at.seconds * 1000 + at.nanos / 1e6;
  return { exitCode, exitedAtMs: Math.floor(exitedAtMs), outOfMemory: false };
}
