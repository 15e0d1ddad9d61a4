// All tasks of this node. Takes assignments, runs one TaskRunner for each task, and after any crash puts together
// what the journal, containerd and the network still have.

import { assert } from '../../core/assert.ts';
import type { Clock } from '../../core/clock.ts';
import { messageOf, SwarmError } from '../../core/errors.ts';
import type { LogDriver, NodeDescription, Revision, Task, TaskStatus } from '../../core/generated/objects.ts';
import { compareTaskStates, isTerminal } from '../../core/task-state.ts';
import type {
  Assignments,
  NetworkAnswer,
  NetworkQuestion,
  Payloads,
} from '../../proto/generated/dispatcher.ts';
import type { ReachEnd, ReachRequest } from '../../proto/generated/reach.ts';
import type { ContainerSummary, Engine, LogRecord } from '../engine/engine.ts';
import { Limiter } from '../engine/limiter.ts';
import { workerLog } from '../log.ts';
import type { TaskNetworks } from '../network/network.ts';
import type { TaskFiles } from '../secrets/task-files.ts';
import type { LogSource } from '../session/log-publisher.ts';
import type { ReachLine } from '../session/reach-lines.ts';
import { runAttach, runExec } from './exec-line.ts';
import { ImagePuller } from './image-puller.ts';
import { Journal, type JournalEntry } from './journal.ts';
import { ServiceImages } from './service-images.ts';
import { type RunnerContext, TaskRunner } from './task-runner.ts';
import { TaskSecrets } from './task-secrets.ts';
import { runStats, runTop } from './watch-line.ts';

export interface WorkerOptions {
  readonly engine: Engine;
  readonly network: TaskNetworks;
  readonly files: TaskFiles;
  readonly describe: () => NodeDescription;
  readonly clock: Clock;
  readonly stateDirectory: string;
  /** Of services that say nothing; absent: files of the usual size. */
  readonly logDriver?: LogDriver | undefined;
  /** Of services that say nothing; absent: containers have the node's users. */
  readonly usernsMode?: 'host' | 'private';
  /** Hears of every health check. */
  readonly onHealthCheck: (isSuccess: boolean) => void;
}

// Wiring and recording take this process's own time; starting takes containerd's. Few at once keep both busy.
const PARALLEL_PREPARATIONS = 4;

export type StatusListener = (taskId: string, status: TaskStatus) => void;

export class Worker {
  readonly #context: RunnerContext;
  readonly #runners = new Map<string, TaskRunner>();
  readonly #revisions = new Map<string, Revision>();
  readonly #images = new ServiceImages();
  /** Tasks that are being erased: a container of this id may still be there. */
  readonly #leaving = new Set<TaskRunner>();
  #listener: StatusListener = () => {};

  private constructor(context: Omit<RunnerContext, 'report'>) {
    this.#context = { ...context, report: (taskId, status) => this.#listener(taskId, status) };
  }

  /** Adopts what a previous run has left. */
  static async open(options: WorkerOptions): Promise<Worker> {
    const { engine, network, files, describe, clock, onHealthCheck, logDriver, usernsMode } = options;
    const journal = new Journal(options.stateDirectory);
    const worker = new Worker({
      engine,
      network,
      secrets: new TaskSecrets(files, describe),
      clock,
      onHealthCheck,
      logDriver,
      ...(usernsMode && { usernsMode }),
      journal,
      puller: new ImagePuller(engine.images),
      preparations: new Limiter(PARALLEL_PREPARATIONS),
    });
    await worker.#adopt(await journal.load());
    return worker;
  }

  /** Hears of every new status from now on. */
  onStatus(listener: StatusListener): void {
    this.#listener = listener;
  }

  /** The latest status of every task. */
  statuses(): [string, TaskStatus][] {
    return [...this.#runners].map(([id, runner]) => [id, runner.status]);
  }

  /** Carries out a message of the manager. Resolves when what it says of networks is in the kernel, or cannot be. */
  assign(assignments: Assignments): Promise<void> {
    const { complete, revisions, tasks, removedTaskIds, removedRevisionIds } = assignments;
    // Tasks wait for their networks, never the other way round.
    const applied = this.#context.network.hear(assignments);
    for (const revision of revisions) this.#noteRevision(revision);
    for (const task of tasks) this.#assignTask(task);
    const wanted = new Set(tasks.map(({ id }) => id));
    const removed = complete ? [...this.#runners.keys()].filter((id) => !wanted.has(id)) : removedTaskIds;
    for (const id of removed) this.#removeTask(id);
    for (const id of removedRevisionIds) {
      this.#revisions.delete(id);
      this.#images.forget(id);
      this.#context.puller.forget(id);
    }
    return applied;
  }

  /** Takes versions of secrets and configs; they come before the tasks that need them. */
  hearPayloads(payloads: Payloads): void {
    const changed = this.#context.secrets.hear(payloads);
    for (const runner of this.#runners.values()) runner.followVersions(changed);
  }

  /** Nobody begins a connection to these tasks any more. */
  drained(taskIds: readonly string[]): void {
    this.#context.network.drained(taskIds);
  }

  /** What a manager wants to know about the networks of this node. */
  examineNetworks(question: NetworkQuestion): Promise<NetworkAnswer> {
    return this.#context.network.examine(question);
  }

  /** The log of a task that is or was here. */
  logs(
    taskId: string,
    { tail, sinceMs, untilMs, follow, after }: Parameters<LogSource>[1],
    signal: AbortSignal,
  ): AsyncIterable<readonly LogRecord[]> {
    return this.#context.engine.containers.logs(taskId, {
      ...{ sinceMs, follow, signal },
      ...(after === undefined ? { tail } : { after }),
      ...(untilMs > 0 && { untilMs }),
    });
  }

  /** What an operator wants inside a task of this node. Throws `not-found` when it is not here. */
  async reach({ task, exec, attach, top, stats }: ReachRequest, line: ReachLine): Promise<ReachEnd> {
    if (!this.#runners.has(task)) throw new SwarmError('not-found', `task ${task} is not on this node`);
    const { containers } = this.#context.engine;
    if (exec !== undefined) return runExec(containers, { containerId: task, exec }, line);
    if (attach !== undefined) return runAttach(containers, { containerId: task, attach }, line);
    if (top !== undefined) return runTop(containers, task, line);
    if (stats !== undefined) return runStats(containers, stats, line, this.#context.clock);
    throw new SwarmError('unimplemented', 'the agent of this node does not know what is asked for', {
      hint: 'The manager may be newer than the node.',
    });
  }

  /** Stops and erases every task: the node leaves. */
  async removeAll(): Promise<void> {
    for (const id of [...this.#runners.keys()]) this.#removeTask(id);
    await Promise.all([...this.#leaving].map((runner) => runner.remove()));
  }

  /** The daemon ends. Tasks stay as they are; the next worker adopts them. */
  stop(): void {
    for (const runner of [...this.#runners.values(), ...this.#leaving]) runner.stop();
  }

  /** Images that must not be removed. */
  wantedImages(): string[] {
    const live = [...this.#runners.values()].filter(({ status }) => !isTerminal(status.state));
    return this.#images.wanted(new Set(live.map(({ revisionId }) => revisionId)));
  }

  #noteRevision(revision: Revision): void {
    this.#revisions.set(revision.id, revision);
  }

  #assignTask(task: Task): void {
    const runner = this.#runners.get(task.id);
    const revision = this.#revisions.get(`${task.serviceId}.${task.specVersion}`);
    if (runner !== undefined) {
      runner.update(task, revision);
      return;
    }
    assert(revision !== undefined, `task ${task.id} came without its revision`);
    this.#start(task, revision, task.status);
  }

  #start(task: Task, revision: Revision, status: TaskStatus, limitsOf?: string): void {
    this.#images.note(revision, this.#context.secrets.images(task, revision));
    this.#runners.set(task.id, new TaskRunner(this.#context, { task, revision, status, limitsOf }));
  }

  #removeTask(id: string): void {
    const runner = this.#runners.get(id);
    if (runner === undefined) return;
    this.#runners.delete(id);
    this.#leaving.add(runner);
    void runner.remove().finally(() => this.#leaving.delete(runner));
  }

  async #adopt(entries: readonly JournalEntry[]): Promise<void> {
    const { engine, network, secrets } = this.#context;
    const containers = new Map(
      (await engine.containers.list()).map((container) => [container.id, container]),
    );
    const known = new Set(entries.map(({ task }) => task.id));
    for (const id of containers.keys()) if (!known.has(id)) await this.#discard(id);
    for (const id of secrets.list()) if (!known.has(id)) secrets.remove(id);
    for (const id of await network.list()) if (!known.has(id)) await network.detach(id);
    for (const { task, revision, status, limitsOf } of entries) {
      this.#noteRevision(revision);
      const adopted = adoptStatus(status, containers.get(task.id), this.#context.clock.nowMs());
      this.#start(task, revision, adopted, limitsOf);
    }
    workerLog.info({ tasks: entries.length, containers: containers.size }, 'adopted what was here');
  }

  /** One container that cannot be removed must not keep the node's other tasks from being looked after. */
  async #discard(id: string): Promise<void> {
    try {
      await this.#context.engine.containers.remove(id);
    } catch (error) {
      workerLog.error(
        { 'container.id': id, error: messageOf(error) },
        'container of no known task cannot be removed; the next start tries again',
      );
    }
  }
}

/** Where a task stands after a restart: the journal's word, corrected by what containerd has. */
export function adoptStatus(
  status: TaskStatus,
  container: ContainerSummary | undefined,
  nowMs: number,
): TaskStatus {
  if (isTerminal(status.state)) return status;
  const wasStarted = compareTaskStates(status.state, 'starting') >= 0;
  if (container === undefined) {
    if (!wasStarted) return { ...status, state: 'accepted' };
    return {
      ...status,
      state: 'failed',
      timestampMs: nowMs,
      error: 'the container is gone after a restart of the node',
    };
  }
  // A container that is there but was not journalled as started is prepared again: every step can be repeated.
  if (container.status.state === 'created') return { ...status, state: wasStarted ? 'starting' : 'accepted' };
  // It has not been found healthy yet.
  if (container.healthCheck !== undefined && status.state === 'starting') return status;
  const pid = container.status.state === 'running' ? container.status.pid : 0;
  return {
    ...status,
    state: 'running',
    message: 'started',
    container: { pid, exitCode: 0 },
    runningAtMs: status.runningAtMs || status.timestampMs,
  };
}
