// One task on this node: does what task-step.ts says is next until the task has ended, and tidies up after it. An
// order that changes interrupts whatever is going on.

import { isDeepStrictEqual } from 'node:util';
import { assert, assertNever } from '../../core/assert.ts';
import { type Clock, sleep } from '../../core/clock.ts';
import { DEFAULT_STOP_GRACE_PERIOD_MS } from '../../core/defaults.ts';
import { messageOf, SwarmError } from '../../core/errors.ts';
import {
  emptyFileVersion,
  type FileVersion,
  type LogDriver,
  type Revision,
  type Task,
  type TaskState,
  type TaskStatus,
} from '../../core/generated/objects.ts';
import { isIngressPort } from '../../core/ingress-port.ts';
import { compareTaskStates, FORMER_LIMITS, isTerminal } from '../../core/task-state.ts';
import type { ContainerExit, Engine } from '../engine/engine.ts';
import { Limiter } from '../engine/limiter.ts';
import { workerLog } from '../log.ts';
import type { TaskNetworks } from '../network/network.ts';
import { containerConfig, networkRequest, withUserns } from './container-config.ts';
import { followContainer, type Turn } from './health-watch.ts';
import type { ImagePuller } from './image-puller.ts';
import type { Journal, JournalEntry } from './journal.ts';
import { follows, type TaskSecrets } from './task-secrets.ts';
import { type Action, nextAction } from './task-step.ts';

export interface RunnerContext {
  readonly engine: Engine;
  readonly network: TaskNetworks;
  readonly secrets: TaskSecrets;
  readonly puller: ImagePuller;
  readonly journal: Journal;
  readonly clock: Clock;
  /** Few at a time, so that the first tasks of many are started while the others are still being prepared. */
  readonly preparations: Limiter;
  readonly report: (taskId: string, status: TaskStatus) => void;
  readonly onHealthCheck: (isSuccess: boolean) => void;
  /** Of services that say nothing. */
  readonly logDriver?: LogDriver | undefined;
  readonly usernsMode?: string;
}

// While containerd is away (it is restarted at once) a step is tried again after this.
const RETRY_MS = 500;
const STARTED = 'started';
const WAITING_FOR_HEALTH = 'waiting for the health check';
// Each word to the managers is an entry in the cluster's log.
const HEALTH_NEWS_MS = 5_000;

export class TaskRunner {
  readonly #context: RunnerContext;
  #revision: Revision;
  #task: Task;
  /** Id of the revision whose limits the container has. */
  #limitsOf: string;
  #status: TaskStatus;
  #isRemoved = false;
  #hasHealthCheck = false;
  /** Why a file is of an old version; empty: none is. */
  /** By the stopwatch: when the status was set; long ago when that was not by this process. */
  #setAtMs = Number.NEGATIVE_INFINITY;
  #fileProblem = '';
  /** Replacing files takes turns. */
  readonly #renewals = new Limiter(1);
  readonly #stopping = new AbortController();
  /** Aborts the step under way when the order changes. */
  #order = new AbortController();
  readonly #done: Promise<void>;

  constructor(context: RunnerContext, { task, revision, status, limitsOf = revision.id }: JournalEntry) {
    this.#context = context;
    this.#limitsOf = limitsOf;
    this.#task = task;
    this.#revision = revision;
    this.#status = status;
    this.#done = this.#run();
  }

  get status(): TaskStatus {
    return this.#status;
  }

  get revisionId(): string {
    return this.#revision.id;
  }

  /** The manager has changed what it wants of this task, or the limits and reservations of its service. */
  update(task: Task, revision: Revision = this.#revision): void {
    const isOtherOrder = task.desiredState !== this.#task.desiredState;
    const isOtherSpec = revision.id !== this.#revision.id;
    if (!isOtherOrder && !isOtherSpec) return;
    this.#task = task;
    this.#revision = revision;
    if (isOtherSpec)
      this.#adopt().catch((error) =>
        workerLog.error({ 'task.id': task.id, error: messageOf(error) }, 'limits are not looked after'),
      );
    if (isOtherOrder) this.#interrupt();
  }

  /** Written down first: after a crash nothing else tells that the container has other limits than its task. */
  async #adopt(): Promise<void> {
    await this.#record(this.#status);
    await this.#applyLimits();
  }

  /** What cannot be applied is told; the task goes on with what it has. */
  #applyLimits(): Promise<void> {
    return this.#renewals.run(async () => {
      const { id, spec } = this.#revision;
      if (this.#isStopped || this.#limitsOf === id || this.#status.state !== 'running') return;
      const { limits, reservations } = spec.task.resources;
      let problem = '';
      try {
        await this.#context.engine.containers.update(this.#task.id, limits, reservations.memoryBytes);
        this.#limitsOf = id;
        await this.#record(this.#status);
      } catch (error) {
        problem = messageOf(error);
        workerLog.warn({ 'task.id': this.#task.id, error: problem }, 'limits stay as they were');
      }
      const { state } = this.#status;
      if (state !== 'running' || this.#isStopped) return;
      await this.#set(state, problem === '' ? STARTED : `${FORMER_LIMITS}${problem}`, {
        error: this.#status.error,
        timestampMs: this.#status.timestampMs,
      });
    });
  }

  #record(status: TaskStatus): Promise<void> {
    const limitsOf = this.#limitsOf === this.#revision.id ? undefined : this.#limitsOf;
    return this.#context.journal.save({ task: this.#task, revision: this.#revision, status, limitsOf });
  }

  /** These secrets and configs have other versions than before. */
  followVersions(sourceIds: ReadonlySet<string>): void {
    if (!follows(this.#revision, sourceIds)) return;
    this.#renewFiles().catch((error) =>
      workerLog.error({ 'task.id': this.#task.id, error: messageOf(error) }, 'files are not looked after'),
    );
  }

  /** The manager has forgotten the task: resolves when nothing of it is left here. */
  remove(): Promise<void> {
    this.#isRemoved = true;
    this.#interrupt();
    return this.#done;
  }

  /** The daemon ends: the task stays as it is for the next one. Nothing is recorded or reported any more. */
  stop(): void {
    this.#stopping.abort();
    this.#interrupt();
  }

  get #isStopped(): boolean {
    return this.#stopping.signal.aborted;
  }

  #interrupt(): void {
    const order = this.#order;
    this.#order = new AbortController();
    order.abort();
  }

  get #desired(): TaskState {
    return this.#isRemoved ? 'remove' : this.#task.desiredState;
  }

  async #run(): Promise<void> {
    for (;;) {
      await this.#retrying(() => this.#advance());
      if (this.#isStopped) return;
      if (isTerminal(this.#status.state)) break;
      if (nextAction(this.#status.state, this.#desired) === 'rest') await aborted(this.#order.signal);
    }
    await this.#retrying(() => this.#release());
    while (!this.#isRemoved && !this.#isStopped) await aborted(this.#order.signal);
    await this.#retrying(() => this.#erase());
  }

  /** Takes the next step, if there is one. Chosen anew at every attempt: the order may have changed meanwhile. */
  async #advance(): Promise<void> {
    const action = nextAction(this.#status.state, this.#desired);
    if (action !== 'rest') await this.#step(action);
  }

  /** One step; what goes wrong with the task itself becomes its status, what goes wrong around it is tried again. */
  async #step(action: Exclude<Action, 'rest'>): Promise<void> {
    const { signal } = this.#order;
    try {
      await this.#perform(action, signal);
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof SwarmError && error.code === 'unavailable') {
        workerLog.warn({ 'task.id': this.#task.id, action, error: error.message }, 'step will be repeated');
        await sleep(this.#context.clock, RETRY_MS, signal).catch(() => {});
        return;
      }
      const state = compareTaskStates(this.#status.state, 'starting') < 0 ? 'rejected' : 'failed';
      workerLog.warn({ 'task.id': this.#task.id, action, error: messageOf(error) }, 'task has failed');
      await this.#set(state, state === 'rejected' ? 'preparing' : 'starting', { error: messageOf(error) });
    }
  }

  async #perform(action: Exclude<Action, 'rest'>, signal: AbortSignal): Promise<void> {
    switch (action) {
      case 'accept':
        return this.#set('accepted', 'accepted');
      case 'prepare':
        await this.#set('preparing', 'preparing');
        return this.#prepare(signal);
      case 'start':
        if (this.#status.state !== 'starting') await this.#set('starting', 'starting');
        return this.#start(signal);
      case 'wait':
        return this.#wait(signal);
      case 'shut-down':
        return this.#shutDown(signal);
      default:
        return assertNever(action);
    }
  }

  async #prepare(signal: AbortSignal): Promise<void> {
    const { engine, network, puller, secrets } = this.#context;
    const { spec } = this.#revision;
    const images = secrets.images(this.#task, this.#revision);
    const pulling = puller.ensure(this.#revision, images, () => secrets.registryAuth(this.#revision));
    await Promise.race([pulling, abortion(signal)]);
    await this.#context.preparations.run(async () => {
      signal.throwIfAborted();
      const container = withUserns(secrets.container(this.#task, this.#revision), this.#context.usernsMode);
      const isPrivate = container.usernsMode === 'private';
      const users = isPrivate ? await engine.containers.claimUsers(this.#task.id) : undefined;
      const files = secrets.provide(this.#task, this.#revision, { container, users });
      const versions = secrets.versions(container);
      const madeNamespace = users?.networkNamespace;
      const endpoint = await network.attach({ ...networkRequest(this.#task, spec), madeNamespace });
      const config = containerConfig(this.#task, this.#revision, {
        container,
        files,
        endpoint,
        logDriver: this.#context.logDriver,
      });
      const { id } = this.#revision;
      await engine.containers.create(config);
      this.#limitsOf = id;
      await this.#set('ready', 'prepared', { ports: endpoint.ports, files: versions });
    });
    await this.#renewFiles();
  }

  async #start(signal: AbortSignal): Promise<void> {
    const { containers } = this.#context.engine;
    const found = await containers.inspect(this.#task.id);
    if (found === undefined) throw new SwarmError('internal', 'the container is gone');
    // After a crash it may run already, or have run.
    const pid =
      found.status.state === 'running' ? found.status.pid : await this.#startProcess(found.status.state);
    const container = { pid, exitCode: 0 };
    this.#hasHealthCheck = found.healthCheck !== undefined;
    if (this.#hasHealthCheck) {
      await this.#set('starting', WAITING_FOR_HEALTH, { container });
      const turn = await this.#follow('starting', signal);
      if (turn.kind !== 'healthy') return this.#endAfter(turn);
    }
    await this.#set('running', STARTED, { container, runningAtMs: this.#context.clock.nowMs() });
    await this.#renewFiles();
  }

  /** Until its container is made, a task takes what is there then. What goes wrong is told while it runs. */
  #renewFiles(): Promise<void> {
    const { secrets, configs } = this.#revision.spec.task.container;
    if (secrets.length + configs.length === 0) return Promise.resolve();
    return this.#renewals.run(async () => {
      const { state } = this.#status;
      if (this.#isStopped || isTerminal(state) || compareTaskStates(state, 'ready') < 0) return;
      const { engine, secrets: book } = this.#context;
      const users = (await engine.containers.inspect(this.#task.id))?.users;
      const { signals, problem, versions } = book.refresh(this.#task, this.#revision, users);
      const failures = await this.#sendSignals(signals);
      const { files: known } = this.#status;
      const files = versions.map((now, position) => now ?? known[position] ?? emptyFileVersion);
      await this.#tellFiles(files, [problem, ...failures].filter((text) => text !== '').join('; '));
    });
  }

  /** Returns what went wrong. */
  async #sendSignals(signals: readonly string[]): Promise<string[]> {
    const { containers } = this.#context.engine;
    const failures: string[] = [];
    for (const signal of signals) {
      try {
        // One that starts later begins with the new version.
        if ((await containers.inspect(this.#task.id))?.status.state === 'running')
          await containers.kill(this.#task.id, signal);
      } catch (error) {
        failures.push(`signal ${signal} could not be sent after a new version: ${messageOf(error)}`);
      }
    }
    return failures;
  }

  async #tellFiles(files: readonly FileVersion[], problem: string): Promise<void> {
    const { state, message, error, timestampMs } = this.#status;
    const isNews = problem !== '' || error === this.#fileProblem;
    this.#fileProblem = problem;
    if (problem !== '') workerLog.error({ 'task.id': this.#task.id, error: problem }, 'old version stays');
    if (state !== 'running' || this.#isStopped) return;
    // It is running since when it was.
    await this.#set(state, message, { files, timestampMs, error: isNews ? problem : error });
  }

  #startProcess(state: 'created' | 'exited'): Promise<number> {
    return state === 'created' ? this.#context.engine.containers.start(this.#task.id) : Promise.resolve(0);
  }

  async #wait(signal: AbortSignal): Promise<void> {
    await this.#applyLimits();
    const turn = await this.#follow('healthy', signal);
    assert(turn.kind !== 'healthy', 'a healthy container became healthy');
    await this.#endAfter(turn);
  }

  #follow(health: 'starting' | 'healthy', signal: AbortSignal): Promise<Turn> {
    const { engine, clock, onHealthCheck } = this.#context;
    return followContainer(
      {
        containers: engine.containers,
        containerId: this.#task.id,
        clock,
        onCheck: onHealthCheck,
        onFailure: (reason) => this.#tellHealthFailure(reason),
      },
      health,
      signal,
    );
  }

  /** Why it still starts: managers hear it when that takes long. */
  async #tellHealthFailure(reason: string): Promise<void> {
    if (this.#status.state !== 'starting') return;
    if (this.#context.clock.elapsedMs() - this.#setAtMs < HEALTH_NEWS_MS) return;
    await this.#set('starting', WAITING_FOR_HEALTH, { error: `the health check failed: ${reason}` });
  }

  async #endAfter(turn: Exclude<Turn, { kind: 'healthy' }>): Promise<void> {
    if (turn.kind === 'ended') return this.#end(turn.exit);
    // Its end and the failure of a check in it come together.
    const found = await this.#context.engine.containers.inspect(this.#task.id);
    if (found?.status.state === 'exited') return this.#end(found.status.exit);
    const error = `unhealthy container: ${turn.reason}`;
    workerLog.warn({ 'task.id': this.#task.id, error }, 'container is stopped');
    // No new connections from now on: managers tell the other nodes.
    await this.#set(this.#status.state, 'stopping', { error });
    // Connections to what is not well are not worth waiting for.
    await this.#end(await this.#stopContainer(0, this.#order.signal), error);
  }

  async #end(exit: ContainerExit, error?: string): Promise<void> {
    await this.#freePorts();
    const container = { pid: 0, exitCode: exit.exitCode };
    const detail = { container, timestampMs: exit.exitedAtMs };
    if (exit.exitCode === 0 && error === undefined) await this.#set('complete', 'finished', detail);
    else await this.#set('failed', 'started', { ...detail, error: error ?? describeExit(exit) });
  }

  async #stopContainer(drainMs: number, signal: AbortSignal): Promise<ContainerExit> {
    const { containers } = this.#context.engine;
    await this.#drain(drainMs, signal);
    const graceMs = this.#revision.spec.task.container.stopGracePeriodMs ?? DEFAULT_STOP_GRACE_PERIOD_MS;
    await containers.stop(this.#task.id, graceMs);
    return containers.wait(this.#task.id);
  }

  /** A container that ends meanwhile has no connections to wait for. */
  async #drain(drainMs: number, signal: AbortSignal): Promise<void> {
    const { engine, network } = this.#context;
    const over = new AbortController();
    const ended = engine.containers.wait(this.#task.id, over.signal).then(
      () => over.abort(),
      () => {}, // Whatever it is comes up again when the container is stopped.
    );
    await network.drain(this.#task.id, drainMs, AbortSignal.any([signal, over.signal]));
    over.abort();
    await ended;
    signal.throwIfAborted();
  }

  async #shutDown(signal: AbortSignal): Promise<void> {
    const { id } = this.#task;
    const drainMs = this.#isRemoved ? 0 : this.#revision.spec.endpoint.drainMs;
    const container = await this.#context.engine.containers.inspect(id);
    let exitCode = container?.status.state === 'exited' ? container.status.exit.exitCode : 0;
    if (container?.status.state === 'running')
      exitCode = (await this.#stopContainer(drainMs, signal)).exitCode;
    await this.#freePorts();
    await this.#set('shutdown', 'shutdown', {
      ...(container === undefined ? undefined : { container: { pid: 0, exitCode } }),
    });
  }

  /**
   * Before the end is told: the next task may ask for ports of this node as soon as managers know of it. Without such
   * ports the news goes first, since others still send connections.
   */
  async #freePorts(): Promise<void> {
    if (this.#revision.spec.endpoint.ports.every(isIngressPort)) return;
    try {
      await this.#context.network.detach(this.#task.id);
    } catch (error) {
      // `#release` comes back to it; the news of the end does not wait for that.
      workerLog.warn({ 'task.id': this.#task.id, error: messageOf(error) }, 'ports not given back yet');
    }
  }

  /** Gives back all but the log: an ended task stays readable until the manager forgets it. */
  async #release(): Promise<void> {
    const { engine, network, secrets } = this.#context;
    await engine.containers.remove(this.#task.id, { keepLogs: !this.#isRemoved });
    secrets.remove(this.#task.id);
    await network.detach(this.#task.id);
  }

  async #erase(): Promise<void> {
    const { engine, journal } = this.#context;
    await engine.containers.remove(this.#task.id);
    await journal.delete(this.#task.id);
  }

  /** What must happen is never given up: a failure (a full disk, say) is logged and tried again until it works. */
  async #retrying(work: () => Promise<void>): Promise<void> {
    while (!this.#isStopped) {
      try {
        await work();
        return;
      } catch (error) {
        if (this.#isStopped) return;
        workerLog.error(
          { 'task.id': this.#task.id, error: messageOf(error) },
          'work on task failed, will retry',
        );
        await sleep(this.#context.clock, RETRY_MS, this.#stopping.signal).catch(() => {});
      }
    }
  }

  /** What a restart can find out from containerd is not written down; that a container was healthy is not there. */
  #mustSurvive(state: TaskState): boolean {
    const wasHealthy = state === 'running' && this.#hasHealthCheck;
    return state === 'accepted' || state === 'starting' || wasHealthy || isTerminal(state);
  }

  async #set(state: TaskState, message: string, detail: Partial<TaskStatus> = {}): Promise<void> {
    if (this.#isStopped) throw new SwarmError('cancelled', 'the agent is stopping');
    const { clock, report } = this.#context;
    const before = this.#status;
    // The machine's clock may have jumped back; what is older than what a manager has is dropped there.
    const timestampMs = Math.max(detail.timestampMs ?? clock.nowMs(), before.timestampMs);
    const next = { ...before, error: '', ...detail, timestampMs, state, message };
    const isStep = state !== before.state;
    if (isStep && this.#mustSurvive(state)) await this.#record(next);
    this.#status = next;
    this.#setAtMs = clock.elapsedMs();
    const isNews = message !== before.message || next.error !== before.error;
    if (isStep || isNews || !isDeepStrictEqual(next.files, before.files)) report(this.#task.id, next);
  }
}

function describeExit({ exitCode, outOfMemory }: ContainerExit): string {
  return `task: non-zero exit (${exitCode})${outOfMemory ? ': out of memory, the limit of the container was reached' : ''}`;
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener('abort', () => resolve(), { once: true });
  });
}

async function abortion(signal: AbortSignal): Promise<never> {
  await aborted(signal);
  throw new SwarmError('cancelled', 'the order has changed');
}
