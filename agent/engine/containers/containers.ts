// The engine's containers: what `Containers` promises. All of them are kept in memory, as events and full looks at
// containerd tell; asking for their state costs no call.

import { mkdirSync, readdirSync } from 'node:fs';
import { hasCode, messageOf, SwarmError } from '../../../core/errors.ts';
import type { ResourceLimits } from '../../../core/generated/objects.ts';
import type { NetworkProbe } from '../../../core/network-probe.ts';
import type { TaskExitEvent } from '../../../proto/generated/containerd-events.ts';
import type { Logger } from '../../../rpc/logger.ts';
import { type Containerd, SNAPSHOTTER } from '../containerd/connection.ts';
import type {
  AttachSession,
  ContainerConfig,
  ContainerExit,
  ContainerProcessInfo,
  ContainerStats,
  ContainerSummary,
  Containers,
  ExecRequest,
  ExecResult,
  ExecSession,
  ExecSessionRequest,
  LogQuery,
  LogRecord,
  ProbeLimits,
  UserMapping,
} from '../engine.ts';
import type { StoredImage } from '../images/catalog.ts';
import { Limiter, SingleFlight } from '../limiter.ts';
import type { LogService } from '../logs/log-service.ts';
import type { Machine } from '../machine.ts';
import type { Measure } from '../measure.ts';
import type { ContainerUsers } from '../users/container-users.ts';
import { type ContainerMounts, imageViews } from '../volumes/container-mounts.ts';
import { attachTo } from './attach.ts';
import { type ContainerComposer, checkContainerId } from './compose.ts';
import { checkUserDemands } from './demands.ts';
import { ContainerEntry, runningPid } from './entry.ts';
import type { ContainerExecs } from './exec.ts';
import { limitFailure } from './failure.ts';
import type { ContainerLifecycle } from './lifecycle.ts';
import { probeContainer } from './network-probe.ts';
import { describeProcess, processesOf } from './processes.ts';
import { ContainerDirectory, type ContainerPlaces, type ContainerRecordFile } from './record.ts';
import { changedResources } from './resources.ts';
import { signalNumber } from './signals.ts';
import { readStats } from './stats.ts';

export interface ContainersOptions {
  readonly containerd: Containerd;
  readonly composer: ContainerComposer;
  readonly lifecycle: ContainerLifecycle;
  readonly execs: ContainerExecs;
  readonly logs: LogService;
  readonly places: ContainerPlaces;
  readonly mounts: ContainerMounts;
  readonly users: ContainerUsers;
  readonly findImage: (reference: string) => StoredImage | undefined;
  readonly engineId: string;
  readonly machine: Machine;
  readonly measure: Measure;
  readonly log: Logger;
}

// More at once only lengthens the queue inside containerd.
const PARALLEL_STARTS = 6;
const PARALLEL_REMOVALS = 4;
const RESOURCES_TYPE = 'types.containerd.io/opencontainers/runtime-spec/1/LinuxResources';
const SIGKILL = 9;
// A process that outlives SIGKILL this long hangs in the kernel.
const KILL_TIMEOUT_MS = 30_000;

export class EngineContainers implements Containers, Disposable {
  readonly #options: ContainersOptions;
  readonly #entries = new Map<string, ContainerEntry>();
  readonly #starts = new Limiter(PARALLEL_STARTS);
  readonly #removals = new Limiter(PARALLEL_REMOVALS);
  /** Takes away what creations have left that failed, where that failed as well. */
  readonly #undoing = new Map<string, () => Promise<void>>();
  readonly #undos = new SingleFlight<void>();
  readonly #closed = new AbortController();
  #isLoaded = false;

  constructor(options: ContainersOptions) {
    this.#options = options;
    const { root, filesRoot } = options.places;
    for (const directory of [root, filesRoot]) mkdirSync(directory, { recursive: true, mode: 0o711 });
  }

  /** Of ends that are waited for nobody would hear any more; their containers stay as they are. */
  [Symbol.dispose](): void {
    this.#closed.abort(new SwarmError('unavailable', 'the engine is closed'));
  }

  /** Looks at everything: on the first call it adopts what is there, later it catches up with missed events. */
  async reconcile(): Promise<void> {
    const { containerd, lifecycle, execs } = this.#options;
    execs.holdLeftovers();
    if (!this.#isLoaded) await this.#load();
    this.#isLoaded = true;
    // What is created, started or ended while the list is made may be missing from it: only what stays as it was counts.
    const before = [...this.#entries.values()].filter(({ isStarting }) => !isStarting);
    const states = new Map(before.map((entry) => [entry, entry.state]));
    const { tasks } = await containerd.tasks.list({});
    const byId = new Map(tasks.map((task) => [task.id || task.containerId, task]));
    for (const [entry, state] of states) {
      if (entry.state === state && this.#entries.get(entry.id) === entry)
        lifecycle.reconcile(entry, byId.get(entry.id));
    }
    for (const id of byId.keys()) if (!this.#entries.has(id)) await this.#tryRemoveOrphan(id);
    for (const id of [...this.#undoing.keys()]) await this.#undo(id);
    await execs.endLeftovers((id) => this.#entries.get(id));
  }

  /** Also while it is made or removed. */
  has(id: string): boolean {
    return this.#entries.has(id);
  }

  async #load(): Promise<void> {
    const { containerd, places, logs, mounts, users } = this.#options;
    const { containers } = await containerd.containers.list({ filters: [] });
    for (const { id } of containers) {
      const directory = new ContainerDirectory(places, id);
      const entry = new ContainerEntry(directory, directory.readRecord() ?? lostRecord(id));
      this.#entries.set(id, entry);
      const exit = directory.readExit();
      if (exit === undefined) {
        if (directory.startedInBoot() !== undefined) logs.open(id, directory.path, entry.record.logs);
      } else {
        // The process before may have noted the end and not come to its last lines.
        logs.resume(id, directory.path, entry.record.logs);
        entry.markExited(exit);
      }
    }
    for (const id of [...readdirSync(places.root), ...readdirSync(places.filesRoot)]) {
      const directory = new ContainerDirectory(places, id);
      // Its creation was cut off, or its removal.
      if (this.#entries.has(id) || !directory.isMoreThanLog()) continue;
      const plan = directory.readPlan();
      await mounts.release(id, plan);
      if (plan.claimsUsers) users.release(id);
      directory.remove(true);
    }
    mounts.adopt(new Map([...this.#entries].map(([id, { record }]) => [id, record])));
  }

  async #tryRemoveOrphan(id: string): Promise<void> {
    try {
      await this.#removeOrphan(id);
      this.#options.log.warn({ 'container.id': id }, 'process without a record ended');
    } catch (error) {
      // The next full look comes back to it.
      this.#options.log.error({ 'container.id': id, reason: messageOf(error) }, 'process without a record');
    }
  }

  /** A task whose record is gone can only be deleted once it has one again. */
  async #removeOrphan(id: string): Promise<void> {
    const { containerd, composer, lifecycle } = this.#options;
    try {
      await composer.createRecord({ record: lostRecord(id), hostname: '', spec: {} });
    } catch (error) {
      if (!hasCode(error, 'already-exists')) throw error;
    }
    await lifecycle.deleteTask(id);
    await ignoreNotFound(containerd.containers.delete({ id }));
  }

  onExit(event: TaskExitEvent): void {
    const entry = this.#entries.get(event.containerId);
    if (entry !== undefined) this.#options.lifecycle.onExitEvent(entry, event);
  }

  onOutOfMemory(id: string): void {
    const entry = this.#entries.get(id);
    if (entry !== undefined) entry.isOutOfMemory = true;
  }

  /** Containers made from an image. */
  usersOf(image: StoredImage): string[] {
    return [...this.#entries.values()]
      .filter(({ record }) =>
        [record.manifestDigest, ...(record.images ?? [])].includes(image.manifest.digest),
      )
      .map(({ id }) => id);
  }

  async create(config: ContainerConfig): Promise<void> {
    checkContainerId(config.id);
    const known = this.#entries.get(config.id);
    if (known?.state.state === 'created') return;
    if (known !== undefined)
      throw new SwarmError('already-exists', `container ${config.id} exists and has been started`);
    const image = this.#options.findImage(config.image);
    if (image === undefined) throw new SwarmError('not-found', `No such image: ${config.image}`);
    await this.#starts.run(() => this.#options.measure('create', () => this.#create(config, image)));
  }

  async #create(config: ContainerConfig, image: StoredImage): Promise<void> {
    const { composer, containerd, places, mounts, users } = this.#options;
    const directory = new ContainerDirectory(places, config.id);
    const views = imageViews(config);
    await this.#undo(config.id);
    const claimsUsers = config.usernsMode === 'private' && !users.has(config.id);
    try {
      directory.writePlan({ views, claimsUsers });
      const own = await this.#usersOf(config);
      const prepared = await mounts.prepare(config, image, own);
      const composition = await composer.compose(config, image, { directory, prepared, users: own });
      directory.create(config, composition);
      directory.writeRecord(composition.record);
      await composer.createRecord(composition);
      const entry = new ContainerEntry(directory, composition.record);
      const snapshot = { snapshotter: SNAPSHOTTER, key: config.id, parent: image.topSnapshot, labels: {} };
      entry.mounts = (await containerd.snapshots.prepare(snapshot)).mounts;
      this.#entries.set(config.id, entry);
    } catch (error) {
      if (!hasCode(error, 'already-exists')) {
        this.#undoing.set(config.id, async () => {
          await ignoreNotFound(containerd.snapshots.remove({ snapshotter: SNAPSHOTTER, key: config.id }));
          await ignoreNotFound(containerd.containers.delete({ id: config.id }));
          await mounts.release(config.id, { views });
          if (claimsUsers) users.release(config.id);
          directory.remove(false);
        });
        // containerd may be away: the next attempt, or the next full look, comes back to it.
        await this.#undo(config.id).catch(() => {});
      }
      throw error;
    }
  }

  async #usersOf(config: ContainerConfig): Promise<UserMapping | undefined> {
    if (config.usernsMode !== 'private') return undefined;
    checkUserDemands(config, this.#options.machine);
    return this.#options.users.claim(config.id);
  }

  async claimUsers(id: string): Promise<UserMapping> {
    checkContainerId(id);
    return this.#options.users.claim(id);
  }

  async #undo(id: string): Promise<void> {
    const undo = this.#undoing.get(id);
    if (undo === undefined) return;
    // Whoever creates it anew waits for the one that is under way.
    await this.#undos.run(id, async () => {
      await undo();
      this.#undoing.delete(id);
    });
  }

  async start(id: string): Promise<number> {
    const entry = this.#required(id);
    return entry.turns.run(async () => {
      const { state } = entry;
      if (state.state === 'running') return state.pid;
      if (state.state === 'exited')
        throw new SwarmError('failed-precondition', `container ${id} has ended and does not start again`);
      const { measure, lifecycle } = this.#options;
      return this.#starts.run(() => measure('start', () => lifecycle.start(entry)));
    });
  }

  async wait(id: string, signal?: AbortSignal): Promise<ContainerExit> {
    const { whenExited } = this.#required(id);
    if (signal === undefined) return whenExited;
    const { promise: aborted, reject } = Promise.withResolvers<never>();
    const onAbort = () => reject(signal.reason);
    if (signal.aborted) onAbort();
    signal.addEventListener('abort', onAbort, { once: true });
    try {
      return await Promise.race([whenExited, aborted]);
    } finally {
      signal.removeEventListener('abort', onAbort);
    }
  }

  async stop(id: string, graceMs: number): Promise<void> {
    const entry = this.#required(id);
    if (entry.state.state !== 'running') return;
    const { measure, lifecycle } = this.#options;
    await measure('stop', async () => {
      await lifecycle.signal(entry, signalNumber(entry.record.stopSignal));
      if (!(await this.#endsWithin(entry, graceMs))) await this.#killAndWait(entry);
    });
  }

  async #killAndWait(entry: ContainerEntry): Promise<void> {
    if (entry.state.state === 'running') await this.#options.lifecycle.signal(entry, SIGKILL);
    if (await this.#endsWithin(entry, KILL_TIMEOUT_MS)) return;
    throw new SwarmError(
      'deadline-exceeded',
      `container ${entry.id} did not end within ${KILL_TIMEOUT_MS / 1000} s of SIGKILL`,
    );
  }

  async #endsWithin({ id }: ContainerEntry, timeoutMs: number): Promise<boolean> {
    const timeout = AbortSignal.timeout(timeoutMs);
    try {
      await this.wait(id, AbortSignal.any([timeout, this.#closed.signal]));
      return true;
    } catch (error) {
      if (!timeout.aborted) throw error;
      return false;
    }
  }

  async kill(id: string, signal: string): Promise<void> {
    await this.#options.lifecycle.signal(this.#required(id), signalNumber(signal));
  }

  async update(id: string, limits: ResourceLimits, reservedMemoryBytes: number): Promise<void> {
    const { containerd, machine } = this.#options;
    if (this.#required(id).state.state !== 'running')
      throw new SwarmError('failed-precondition', `container ${id} is not running`);
    const resources = changedResources({ limits, reservedMemoryBytes, machine });
    const value = Buffer.from(JSON.stringify(resources));
    try {
      await containerd.tasks.update({ containerId: id, resources: { typeUrl: RESOURCES_TYPE, value } });
    } catch (error) {
      if (hasCode(error, 'unavailable')) throw error;
      throw new SwarmError('failed-precondition', limitFailure(error), { cause: error });
    }
  }

  async remove(id: string, options: { readonly keepLogs?: boolean } = {}): Promise<void> {
    checkContainerId(id);
    const keepLogs = options.keepLogs === true;
    const entry = this.#entries.get(id);
    if (entry === undefined) {
      new ContainerDirectory(this.#options.places, id).remove(keepLogs);
      this.#options.users.release(id);
      return;
    }
    await entry.turns.run(async () => {
      if (!this.#entries.has(id)) return;
      await this.#options.measure('remove', () => this.#remove(entry, keepLogs));
    });
  }

  async #remove(entry: ContainerEntry, keepLogs: boolean): Promise<void> {
    const { containerd, lifecycle, logs, mounts, users } = this.#options;
    const { id } = entry;
    if (entry.state.state === 'running') await this.#killAndWait(entry);
    if (entry.settled !== undefined) await entry.settled;
    else await lifecycle.deleteTask(id);
    await this.#removals.run(async () => {
      await ignoreNotFound(containerd.snapshots.remove({ snapshotter: SNAPSHOTTER, key: id }));
      await mounts.release(id, entry.record);
      await ignoreNotFound(containerd.containers.delete({ id }));
    });
    users.release(id);
    logs.remove(id, entry.directory.path, keepLogs);
    entry.directory.remove(keepLogs);
    this.#entries.delete(id);
  }

  async inspect(id: string): Promise<ContainerSummary | undefined> {
    const entry = this.#entries.get(id);
    return entry && summarize(entry);
  }

  async list(): Promise<ContainerSummary[]> {
    return [...this.#entries.values()].map(summarize);
  }

  async *logs(id: string, query: LogQuery = {}): AsyncIterable<readonly LogRecord[]> {
    checkContainerId(id);
    const { driver, keepsFile } = this.#entries.get(id)?.record.logs ?? {};
    if (keepsFile === false)
      throw new SwarmError(
        'failed-precondition',
        `its log driver ${driver ?? 'none'} keeps no lines on the node that could be read`,
      );
    const { path } = new ContainerDirectory(this.#options.places, id);
    yield* this.#options.logs.read(id, path, query);
  }

  async exec(id: string, request: ExecRequest): Promise<ExecResult> {
    return this.#options.execs.run(this.#required(id), request);
  }

  async openExec(id: string, request: ExecSessionRequest): Promise<ExecSession> {
    return this.#options.execs.open(this.#required(id), request);
  }

  async attach(id: string): Promise<AttachSession> {
    return attachTo(this.#required(id), this.#options);
  }

  async stats(id: string): Promise<ContainerStats> {
    const entry = this.#required(id);
    return readStats(entry, runningPid(entry), this.#options);
  }

  async processes(id: string): Promise<readonly ContainerProcessInfo[]> {
    const entry = this.#required(id);
    runningPid(entry);
    return processesOf(entry, this.#options).map(describeProcess);
  }

  async probe(id: string, probe: NetworkProbe, limits: ProbeLimits): Promise<string | undefined> {
    return probeContainer(runningPid(this.#required(id)), probe, limits);
  }

  #required(id: string): ContainerEntry {
    const entry = this.#entries.get(id);
    if (entry === undefined) throw new SwarmError('not-found', `No such container: ${id}`);
    return entry;
  }
}

function summarize({ id, record, state }: ContainerEntry): ContainerSummary {
  const { labels, healthCheck, users } = record;
  return { id, labels, status: state, ...(users && { users }), ...(healthCheck && { healthCheck }) };
}

/** For a container whose own file is gone: good enough to see and remove it. */
function lostRecord(id: string): ContainerRecordFile {
  return {
    id,
    manifestDigest: '',
    parentSnapshot: '',
    labels: {},
    command: '',
    tty: false,
    stopSignal: 'SIGTERM',
    logs: { maxSizeBytes: 0, maxFiles: 1 },
  };
}

async function ignoreNotFound(call: Promise<unknown>): Promise<void> {
  try {
    await call;
  } catch (error) {
    if (!hasCode(error, 'not-found')) throw error;
  }
}
