// Everything that is decided before a container exists: its image, user, volumes and specification.

import { randomUUID } from 'node:crypto';
import os from 'node:os';
import { isCdiName } from '../../../core/cdi-name.ts';
import { SwarmError } from '../../../core/errors.ts';
import { RuntimeOptionsCodec } from '../../../proto/generated/containerd-runc.ts';
import type { SnapshotMount } from '../../../proto/generated/containerd-types.ts';
import { encode } from '../../../proto/wire.ts';
import { type Containerd, SNAPSHOTTER } from '../containerd/connection.ts';
import type { ContainerConfig, UserMapping } from '../engine.ts';
import type { BlobStore } from '../images/blob-store.ts';
import type { StoredImage } from '../images/catalog.ts';
import { readImageFiles } from '../images/image-files.ts';
import { SingleFlight } from '../limiter.ts';
import type { Machine } from '../machine.ts';
import type { Runtime } from '../runtime/runtime.ts';
import { checkIds } from '../users/container-users.ts';
import { imageViews, type PreparedMounts } from '../volumes/container-mounts.ts';
import { findCdiEdits } from './cdi.ts';
import { checkDemands, findInit, runtimePath } from './demands.ts';
import { allDevices, findDevices } from './devices.ts';
import { effectiveHealthCheck } from './health-check.ts';
import type { ContainerDirectory, ContainerRecordFile } from './record.ts';
import { signalNumber } from './signals.ts';
import { cgroupsPath, composeSpec, processArguments } from './spec.ts';
import { type AccountFiles, resolveUser } from './user.ts';

export interface ComposerOptions {
  readonly containerd: Containerd;
  readonly blobs: Pick<BlobStore, 'withLease'>;
  readonly engineId: string;
  readonly machine: Machine;
  readonly runtime: Runtime;
  readonly runtimeRoot: string;
  readonly scratchDirectory: string;
  /** With descriptions of vendors' devices. */
  readonly cdiDirectories: readonly string[];
}

// containerd's rule for identifiers.
const CONTAINER_ID = /^[A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*$/;
const CONTAINER_ID_LENGTH_MAX = 76;
const HOSTNAME_LENGTH_MAX = 63;
// Accounts of this many images are remembered.
const ACCOUNTS_MAX = 64;
const RUNTIME_NAME = 'io.containerd.runc.v2';
const SPEC_TYPE = 'types.containerd.io/opencontainers/runtime-spec/1/Spec';
const OPTIONS_TYPE = 'containerd.runc.v1.Options';

export interface Composition {
  readonly record: ContainerRecordFile;
  readonly hostname: string;
  readonly spec: Readonly<Record<string, unknown>>;
  /** Absent: the engine's. */
  readonly runtimePath?: string | undefined;
}

export function checkContainerId(id: string): void {
  if (id.length > CONTAINER_ID_LENGTH_MAX || !CONTAINER_ID.test(id))
    throw new SwarmError('invalid-argument', `container id ${JSON.stringify(id)} is not valid`);
}

export class ContainerComposer {
  readonly #options: ComposerOptions;
  readonly #accounts = new Map<string, AccountFiles>();
  readonly #lookUps = new SingleFlight<AccountFiles>();

  constructor(options: ComposerOptions) {
    this.#options = options;
  }

  /** `prepared` are the container's mounts; without `users` it has the machine's. */
  async compose(
    config: ContainerConfig,
    image: StoredImage,
    parts: { directory: ContainerDirectory; prepared: PreparedMounts; users: UserMapping | undefined },
  ): Promise<Composition> {
    const { engineId, machine, runtime } = this.#options;
    const { directory, prepared, users } = parts;
    checkDemands(config, machine);
    const stopSignal = config.stopSignal || image.configuration.stopSignal || 'SIGTERM';
    signalNumber(stopSignal);
    const hostname = hostnameOf(config);
    const { command, args, id } = config;
    const files = await this.#accountFiles(image);
    const processUser = resolveUser(config.user || image.configuration.user, config.groups, files);
    const edits = await findCdiEdits({
      names: config.devices.map(({ pathOnHost }) => pathOnHost).filter(isCdiName),
      directories: this.#options.cdiDirectories,
      hostname: machine.hostname,
      user: processUser,
    });
    if (users !== undefined) checkIds(processUser);
    const spec = composeSpec({
      ...config,
      users,
      engineId,
      image: image.configuration,
      hostname,
      user: {
        ...processUser,
        additionalGids: [...processUser.additionalGids, ...(edits?.additionalGids ?? [])],
      },
      ...(edits && { edits }),
      mounts: prepared.mounts,
      hostDevices: [
        ...(config.privileged ? allDevices() : []),
        ...findDevices(config.devices, machine.hostname),
        ...(edits?.devices ?? []),
      ],
      initProgram: config.init ? findInit(machine.hostname) : undefined,
      files: config.files ?? [],
      filesDirectory: directory.filesPath,
      machine,
      seccompFilter: runtime.seccompFilter,
      ...(config.network && { networkNamespacePath: config.network.namespacePath }),
    });
    const healthCheck = effectiveHealthCheck(config.healthCheck, image.configuration);
    const views = imageViews(config);
    const record = {
      id,
      manifestDigest: image.manifest.digest,
      parentSnapshot: image.topSnapshot,
      labels: config.labels,
      command: processArguments({ command, args, image: image.configuration })[0] ?? '',
      tty: config.tty,
      ...(config.openStdin && { openStdin: true }),
      stopSignal,
      logs: config.logs,
      ...(healthCheck && { healthCheck }),
      ...(config.cgroupParent !== '' && { cgroup: cgroupsPath(engineId, id, config.cgroupParent) }),
      ...(users && { users }),
      ...(prepared.volumes.length > 0 && { volumes: prepared.volumes }),
      ...(views.length > 0 && { views, images: prepared.images }),
    };
    const chosen = runtimePath(config.runtime, runtime, machine.hostname);
    const path = chosen ?? (users === undefined ? undefined : runtime.ownUsersPath);
    return { record, hostname, spec, runtimePath: path };
  }

  /** Creates the record in containerd: what the container's snapshot hangs on. */
  async createRecord({ record, spec, runtimePath }: Composition): Promise<void> {
    const { containerd, runtime, runtimeRoot } = this.#options;
    const owner = record.users?.firstId ?? 0;
    const options = {
      binaryName: runtimePath ?? runtime.path,
      root: runtimeRoot,
      ioUid: owner,
      ioGid: owner,
    };
    await containerd.containers.create({
      container: {
        id: record.id,
        labels: {},
        image: '',
        runtime: {
          name: RUNTIME_NAME,
          options: { typeUrl: OPTIONS_TYPE, value: encode(RuntimeOptionsCodec, options) },
        },
        spec: { typeUrl: SPEC_TYPE, value: Buffer.from(JSON.stringify(spec)) },
        snapshotter: SNAPSHOTTER,
        snapshotKey: record.id,
      },
    });
  }

  /** The image's passwd and group. Read once per image: they are part of its layers. */
  async #accountFiles(image: StoredImage): Promise<AccountFiles> {
    const key = image.topSnapshot;
    const known = this.#accounts.get(key);
    if (known !== undefined) return known;
    const files = await this.#lookUps.run(key, () => this.#readAccountFiles(key));
    if (this.#accounts.size >= ACCOUNTS_MAX) this.#accounts.clear();
    this.#accounts.set(key, files);
    return files;
  }

  async #readAccountFiles(parent: string): Promise<AccountFiles> {
    return this.withImage(parent, async (mounts) => {
      const paths = ['etc/passwd', 'etc/group'];
      const [passwd = '', group = ''] = await readImageFiles(mounts, this.#options.scratchDirectory, paths);
      return { passwd, group };
    });
  }

  /** Runs the action with the mounts of a read-only view of an image. */
  async withImage<T>(parent: string, action: (mounts: readonly SnapshotMount[]) => Promise<T>): Promise<T> {
    const { containerd, blobs } = this.#options;
    return blobs.withLease(async (lease) => {
      const view = { snapshotter: SNAPSHOTTER, key: `view-${randomUUID()}` };
      const leased = { metadata: { 'containerd-lease': lease } };
      const { mounts } = await containerd.snapshots.view({ ...view, parent, labels: {} }, leased);
      try {
        return await action(mounts);
      } finally {
        await containerd.snapshots.remove(view);
      }
    });
  }
}

/** In the machine's own UTS namespace, the machine's. */
function hostnameOf({ id, hostname, utsMode }: ContainerConfig): string {
  const name = utsMode === 'host' ? os.hostname() : hostname || id.slice(0, 12);
  if (Buffer.byteLength(name) > HOSTNAME_LENGTH_MAX)
    throw new SwarmError('invalid-argument', `hostname ${name} is longer than ${HOSTNAME_LENGTH_MAX} bytes`);
  return name;
}
