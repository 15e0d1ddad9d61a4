// Everything that is decided before a container exists: its image, user, volumes and specification.

import { randomUUID } from 'node:crypto';
import path from 'node:path';
import { SwarmError } from '../../../core/errors.ts';
import type { Mount } from '../../../core/generated/objects.ts';
import { RuntimeOptionsCodec } from '../../../proto/generated/containerd-runc.ts';
import type { SnapshotMount } from '../../../proto/generated/containerd-types.ts';
import { encode } from '../../../proto/wire.ts';
import { type Containerd, SNAPSHOTTER } from '../containerd/connection.ts';
import type { ContainerConfig } from '../engine.ts';
import type { BlobStore } from '../images/blob-store.ts';
import type { StoredImage } from '../images/catalog.ts';
import { SingleFlight } from '../limiter.ts';
import type { Machine } from '../machine.ts';
import type { Runtime } from '../runtime/runtime.ts';
import { effectiveHealthCheck } from './health-check.ts';
import { readImageFiles } from './image-files.ts';
import type { ContainerDirectory, ContainerRecordFile } from './record.ts';
import { signalNumber } from './signals.ts';
import { composeSpec, processArguments } from './spec.ts';
import { type AccountFiles, resolveUser } from './user.ts';
import { fillVolumes, isEmptyVolume } from './volume.ts';

export interface ComposerOptions {
  readonly containerd: Containerd;
  readonly blobs: Pick<BlobStore, 'withLease'>;
  readonly engineId: string;
  readonly machine: Machine;
  readonly runtime: Runtime;
  readonly runtimeRoot: string;
  readonly scratchDirectory: string;
  readonly volumesDirectory: string;
}

// containerd's rule for identifiers.
const CONTAINER_ID = /^[A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*$/;
const CONTAINER_ID_LENGTH_MAX = 76;
const VOLUME_NAME = /^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,254}$/;
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

  async compose(
    config: ContainerConfig,
    image: StoredImage,
    directory: ContainerDirectory,
  ): Promise<Composition> {
    const stopSignal = config.stopSignal || image.configuration.stopSignal || 'SIGTERM';
    signalNumber(stopSignal);
    const hostname = config.hostname || config.id.slice(0, 12);
    if (Buffer.byteLength(hostname) > HOSTNAME_LENGTH_MAX)
      throw new SwarmError(
        'invalid-argument',
        `hostname ${hostname} is longer than ${HOSTNAME_LENGTH_MAX} bytes`,
      );
    const { command, args, env, workdir, readOnly, tty, limits, reservedMemoryBytes } = config;
    const files = await this.#accountFiles(image);
    const mounts = this.#mounts(config, image, directory);
    await this.#fillVolumes(image, mounts);
    const spec = composeSpec({
      id: config.id,
      engineId: this.#options.engineId,
      image: image.configuration,
      command,
      args,
      env,
      workdir,
      readOnly,
      tty,
      limits,
      reservedMemoryBytes,
      hostname,
      user: resolveUser(config.user || image.configuration.user, config.groups, files),
      mounts,
      files: config.files ?? [],
      filesDirectory: directory.filesPath,
      machine: this.#options.machine,
      seccompFilter: this.#options.runtime.seccompFilter,
      ...(config.network && { networkNamespacePath: config.network.namespacePath }),
    });
    const healthCheck = effectiveHealthCheck(config.healthCheck, image.configuration);
    const record = {
      id: config.id,
      manifestDigest: image.manifest.digest,
      parentSnapshot: image.topSnapshot,
      labels: config.labels,
      command: processArguments({ command, args, image: image.configuration })[0] ?? '',
      tty,
      stopSignal,
      logs: config.logs,
      ...(healthCheck && { healthCheck }),
    };
    return { record, hostname, spec };
  }

  /** Creates the record in containerd: what the container's snapshot hangs on. */
  async createRecord({ record, spec }: Composition): Promise<void> {
    const { containerd, runtime, runtimeRoot } = this.#options;
    const options = { binaryName: runtime.path, root: runtimeRoot };
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
    return this.#withImage(parent, async (mounts) => {
      const paths = ['etc/passwd', 'etc/group'];
      const [passwd = '', group = ''] = await readImageFiles(mounts, this.#options.scratchDirectory, paths);
      return { passwd, group };
    });
  }

  /** Runs the action with the mounts of a read-only view of an image. */
  async #withImage<T>(parent: string, action: (mounts: readonly SnapshotMount[]) => Promise<T>): Promise<T> {
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

  /** Volumes as directories: named ones are the engine's, the others live with the container. */
  #mounts(config: ContainerConfig, image: StoredImage, directory: ContainerDirectory): Mount[] {
    const given = new Set(config.mounts.map(({ target }) => path.posix.normalize(target)));
    const declared = image.configuration.volumes
      .filter((target) => !given.has(path.posix.normalize(target)))
      .map((target) => ({ ...ANONYMOUS_VOLUME, target }));
    return [...config.mounts, ...declared].map((mount, index) => {
      if (!path.posix.isAbsolute(mount.target))
        throw new SwarmError(
          'invalid-argument',
          `mount target ${JSON.stringify(mount.target)} is not absolute`,
        );
      if (mount.type !== 'volume') return mount;
      const source = mount.source === '' ? directory.volume(index) : this.#namedVolume(mount.source);
      return { ...mount, source };
    });
  }

  /** As Docker does: a volume that is empty starts with what the image has in its place. */
  async #fillVolumes(image: StoredImage, mounts: readonly Mount[]): Promise<void> {
    const empty = mounts
      .filter(({ type, source }) => type === 'volume' && isEmptyVolume(source))
      .map(({ source, target }) => ({ directory: source, target }));
    if (empty.length === 0) return;
    const { scratchDirectory } = this.#options;
    await this.#withImage(image.topSnapshot, (view) => fillVolumes(view, scratchDirectory, empty));
  }

  #namedVolume(name: string): string {
    if (!VOLUME_NAME.test(name))
      throw new SwarmError('invalid-argument', `volume name ${JSON.stringify(name)} is not valid`);
    return path.join(this.#options.volumesDirectory, name);
  }
}

const ANONYMOUS_VOLUME: Mount = {
  type: 'volume',
  source: '',
  target: '',
  readOnly: false,
  bindPropagation: '',
  tmpfsSizeBytes: 0,
  tmpfsMode: 0,
};
