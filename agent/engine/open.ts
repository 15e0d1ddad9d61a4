// Opens the local engine: chooses the runtime, has containerd running, adopts what is there.

import { mkdirSync } from 'node:fs';
import path from 'node:path';
import { setInterval } from 'node:timers';
import { hasCode, messageOf, SwarmError } from '../../core/errors.ts';
import type { Logger } from '../../rpc/logger.ts';
import { engineLog } from '../log.ts';
import { containerdPlaces } from './containerd/configuration.ts';
import { type Containerd, connectContainerd } from './containerd/connection.ts';
import { endIdleShims } from './containerd/idle-shims.ts';
import { followContainerd } from './containerd/link.ts';
import { shareDirectory, unshareDirectory } from './containerd/mounts.ts';
import { ContainerdSupervisor } from './containerd/supervisor.ts';
import { CDI_DIRECTORIES } from './containers/cdi.ts';
import { ContainerComposer } from './containers/compose.ts';
import { EngineContainers } from './containers/containers.ts';
import { ContainerExecs } from './containers/exec.ts';
import { ContainerLifecycle } from './containers/lifecycle.ts';
import { engineCgroup } from './containers/spec.ts';
import type { Engine, EngineDescription } from './engine.ts';
import { BlobFiles } from './images/blob-files.ts';
import { BlobStore } from './images/blob-store.ts';
import { type ImagePolicy, type RemovalReason, usualImagePolicy } from './images/collector.ts';
import { diskOf, type ImageDisk } from './images/image-disk.ts';
import { EngineImages } from './images/images.ts';
import type { RegistrySettings } from './images/registry-settings.ts';
import { LogService } from './logs/log-service.ts';
import {
  inspectMachine,
  type Machine,
  machineWarnings,
  removeCgroup,
  removeOrphanCgroups,
} from './machine.ts';
import { measureWith, type Observe } from './measure.ts';
import { chooseRuntime, type Runtime, type RuntimeChoice } from './runtime/runtime.ts';
import { ContainerUsers } from './users/container-users.ts';
import { ContainerMounts } from './volumes/container-mounts.ts';
import { VolumeStore } from './volumes/volume-store.ts';

export interface OpenEngineOptions {
  /** Lasting: images, containers, logs. "/var/lib/tsswarm". */
  readonly dataRoot: string;
  /** Sockets and process state. "/run/tsswarm". Becomes a shared mount point. */
  readonly runDir: string;
  /** Tells engines on one machine apart; part of the containerd namespace and of cgroup paths. */
  readonly engineId: string;
  readonly registries: RegistrySettings;
  readonly runtime: RuntimeChoice;
  /** "containerd", looked up in PATH, unless given. */
  readonly containerdPath?: string;
  readonly observe?: Observe;
  /** Hears of lines that log drivers did not take. */
  readonly onDroppedLines?: (lines: number) => void;
  readonly log?: Logger;
  /** How long a silent registry is waited for. */
  readonly registryStallTimeoutMs?: number;
  /** When images are removed that nobody needs. */
  readonly imagePolicy?: ImagePolicy;
  /** Names of images that services with tasks here need; undefined: nobody knows yet, and none is removed. */
  readonly wantedImages?: () => readonly string[] | undefined;
  readonly onImageRemoved?: (reason: RemovalReason, bytes: number) => void;
  /** With descriptions of vendors' devices; the usual ones, unless given. */
  readonly cdiDirectories?: readonly string[];
  /** The disk with the images, unless given. */
  readonly imageDisk?: ImageDisk;
}

/** An engine whose containerd can be ended as well. */
export interface OwnedEngine extends Engine {
  /** Pid of containerd while it runs. */
  readonly containerdPid: number | undefined;
  /** Ends containerd and undoes the mounts. Containers should have been removed; the engine is closed afterwards. */
  shutdownContainerd(): Promise<void>;
}

const ENGINE_ID = /^[A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*$/;
// A safety net under the events.
const RECONCILE_PERIOD_MS = 10_000;
// A disk does not fill up in less, but for what unpacking images itself refuses.
const SWEEP_PERIOD_MS = 60_000;
// containerd may be killed while the engine opens; more often, something is wrong with what it holds.
const FIRST_LOOK_ATTEMPTS_MAX = 20;

/** Resolves when containerd answers and all containers are adopted. */
export async function openEngine(options: OpenEngineOptions): Promise<OwnedEngine> {
  const { dataRoot, runDir, engineId, log = engineLog } = options;
  if (!ENGINE_ID.test(engineId))
    throw new SwarmError('invalid-argument', `engine id ${JSON.stringify(engineId)} is not valid`);
  for (const directory of [dataRoot, path.join(dataRoot, 'scratch')])
    mkdirSync(directory, { recursive: true, mode: 0o711 });
  shareDirectory(runDir);
  const machine = inspectMachine();
  const runtime = await chooseRuntime({ choice: options.runtime, runDir, dataRoot, engineId, machine, log });
  const parts = buildParts(options, { machine, runtime, log });
  const { containerd, blobs, supervisor, images, containers, volumes, logs } = parts;
  const stop = new AbortController();
  const connection = connect(parts, stop.signal);
  const reconciling = setInterval(() => {
    containers
      .reconcile()
      .then(() => blobs.endForgotten())
      .then(() => removeOrphanCgroups(machine, engineCgroup(engineId), (id) => containers.has(id)))
      .catch((error) => log.warn({ reason: messageOf(error) }, 'full look failed, will retry'));
  }, RECONCILE_PERIOD_MS);
  const sweeping = setInterval(() => void images.collector.sweepSafely(Date.now()), SWEEP_PERIOD_MS);
  const close = async () => {
    clearInterval(reconciling);
    clearInterval(sweeping);
    stop.abort();
    await connection.ended;
    containers[Symbol.dispose]();
    logs[Symbol.dispose]();
    images[Symbol.dispose]();
    containerd.close();
  };
  try {
    await connection.ready;
  } catch (error) {
    await close();
    throw error;
  }
  const warnings = [...machineWarnings(machine), ...runtime.warnings];
  return {
    images,
    containers,
    volumes,
    get containerdPid() {
      return supervisor.pid;
    },
    async describe(): Promise<EngineDescription> {
      const { cgroupVersion } = machine;
      return {
        containerdVersion: connection.version(),
        runtime: runtime.description,
        cgroupVersion,
        warnings,
      };
    },
    async shutdownContainerd() {
      await close();
      const remaining = await containers.list();
      await supervisor.shutdown();
      if (remaining.length === 0) {
        const pids = endIdleShims(`tsswarm-${engineId}`);
        if (pids.length > 0) log.warn({ pids }, 'shims without containers ended');
      }
      unshareDirectory(runDir);
      try {
        removeCgroup(machine, engineCgroup(engineId));
      } catch (error) {
        // Containers that were left running are in it.
        log.warn({ reason: messageOf(error) }, 'cgroup not removed');
      }
    },
    [Symbol.asyncDispose]: close,
  };
}

interface Parts {
  readonly containerd: Containerd;
  readonly blobs: BlobStore;
  readonly supervisor: ContainerdSupervisor;
  readonly log: Logger;
  readonly logs: LogService;
  readonly images: EngineImages;
  readonly containers: EngineContainers;
  readonly volumes: VolumeStore;
}

interface Surroundings {
  readonly machine: Machine;
  readonly runtime: Runtime;
  readonly log: Logger;
}

/** The engine's parts, tied to each other; nothing runs yet. */
function buildParts(options: OpenEngineOptions, { machine, runtime, log }: Surroundings): Parts {
  const { dataRoot, runDir, engineId } = options;
  const places = containerdPlaces(dataRoot, runDir);
  const containerd = connectContainerd(places.socketPath, `tsswarm-${engineId}`);
  const supervisor = new ContainerdSupervisor(
    {
      places,
      containerdPath: options.containerdPath ?? 'containerd',
      hidesUnifiedControllers: runtime.hidesUnifiedControllers,
      log,
    },
    containerd,
  );
  const measure = measureWith(options.observe);
  const logs = new LogService(path.join(dataRoot, 'spool'), log, options.onDroppedLines);
  const blobs = new BlobStore(containerd, new BlobFiles(places.root));
  const images = new EngineImages({
    blobs,
    containerd,
    registries: options.registries,
    measure,
    log,
    usersOf: (image) => containers.usersOf(image),
    disk: options.imageDisk ?? diskOf(dataRoot),
    policy: options.imagePolicy ?? usualImagePolicy,
    wanted: options.wantedImages ?? (() => undefined),
    onRemoved: options.onImageRemoved ?? (() => {}),
    ...(options.registryStallTimeoutMs && { stallTimeoutMs: options.registryStallTimeoutMs }),
  });
  const scratchDirectory = path.join(dataRoot, 'scratch');
  const composer = new ContainerComposer({
    containerd,
    blobs,
    engineId,
    machine,
    runtime,
    runtimeRoot: path.join(runDir, 'runtime'),
    scratchDirectory,
    cdiDirectories: options.cdiDirectories ?? CDI_DIRECTORIES,
  });
  const volumes = new VolumeStore({
    root: path.join(dataRoot, 'volumes'),
    mountsRoot: path.join(runDir, 'volumes'),
  });
  const mounts = new ContainerMounts({
    containerd,
    store: volumes,
    directory: path.join(runDir, 'mounts'),
    scratchDirectory,
    findImage: (reference) => images.findStored(reference),
    withImage: (parent, action) => composer.withImage(parent, action),
  });
  const containers: EngineContainers = new EngineContainers({
    containerd,
    composer,
    lifecycle: new ContainerLifecycle({ containerd, engineId, machine, logs, mounts, log }),
    execs: new ContainerExecs({ containerd, directory: path.join(runDir, 'exec'), engineId, machine, log }),
    logs,
    mounts,
    users: new ContainerUsers(path.join(runDir, 'users')),
    engineId,
    machine,
    places: { root: path.join(dataRoot, 'containers'), filesRoot: path.join(runDir, 'etc') },
    findImage: (reference) => images.findStored(reference),
    measure,
    log,
  });
  return { containerd, blobs, supervisor, log, logs, images, containers, volumes };
}

interface Connection {
  /** Resolves after the first full look; rejects when that cannot be had. */
  readonly ready: Promise<void>;
  readonly ended: Promise<void>;
  version(): string;
}

/** Follows containerd until aborted. */
function connect(
  { containerd, supervisor, log, images, containers }: Parts,
  signal: AbortSignal,
): Connection {
  const ready = Promise.withResolvers<void>();
  let current = '';
  let failures = 0;
  let isReady = false;
  const lookAtAll = async () => {
    await createNamespace(containerd);
    if (!isReady) await images.load();
    await containers.reconcile();
    isReady = true;
    ready.resolve();
  };
  const following = followContainerd(
    {
      containerd,
      supervisor,
      log,
      onExit: (event) => containers.onExit(event),
      onOutOfMemory: (id) => containers.onOutOfMemory(id),
      async onConnected(version) {
        current = version;
        try {
          await lookAtAll();
        } catch (error) {
          failures += 1;
          if (failures >= FIRST_LOOK_ATTEMPTS_MAX) ready.reject(error);
          throw error;
        }
      },
    },
    signal,
  );
  const ended = following.catch((error) => {
    if (signal.aborted) return;
    log.fatal({ reason: messageOf(error) }, 'containerd cannot be kept running');
    ready.reject(error);
  });
  return { ready: ready.promise, ended, version: () => current };
}

async function createNamespace(containerd: Containerd): Promise<void> {
  try {
    await containerd.namespaces.create({ namespace: { name: containerd.namespace, labels: {} } });
  } catch (error) {
    if (!hasCode(error, 'already-exists')) throw error;
  }
}
