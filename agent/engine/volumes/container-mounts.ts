// What a container's mounts need before it starts: volumes made, filled and mounted, images brought into view, paths
// inside them pinned. Each container has a folder for it among what ends with the boot; what a killed process has left there
// is taken away by the next.

import { createHash } from 'node:crypto';
import {
  chownSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  rmdirSync,
  rmSync,
  statSync,
  unlinkSync,
} from 'node:fs';
import path from 'node:path';
import { hasCode, SwarmError } from '../../../core/errors.ts';
import { emptyMount, type Mount } from '../../../core/generated/objects.ts';
import type { SnapshotMount } from '../../../proto/generated/containerd-types.ts';
import { type Containerd, SNAPSHOTTER } from '../containerd/connection.ts';
import { restrictionsAt, unmountAll } from '../containerd/mounts.ts';
import type { HostMount } from '../containers/oci-mounts.ts';
import type { ContainerConfig, UserMapping } from '../engine.ts';
import type { StoredImage } from '../images/catalog.ts';
import { mountSnapshot } from '../images/image-files.ts';
import { Limiter } from '../limiter.ts';
import { withMappedLayers } from '../users/mapped-layers.ts';
import { fillVolumes } from './fill-volume.ts';
import { mapOwners } from './mapped-owners.ts';
import { pinSubpath } from './pinned-paths.ts';
import type { VolumeStore } from './volume-store.ts';

export interface ContainerMountsOptions {
  readonly containerd: Containerd;
  readonly store: VolumeStore;
  /** Shared with containerd, and gone with the boot. */
  readonly directory: string;
  readonly scratchDirectory: string;
  readonly findImage: (reference: string) => StoredImage | undefined;
  readonly withImage: <T>(
    parent: string,
    action: (mounts: readonly SnapshotMount[]) => Promise<T>,
  ) => Promise<T>;
}

export interface PreparedMounts {
  /** Volumes and images are directories now. */
  readonly mounts: readonly HostMount[];
  readonly volumes: readonly string[];
  /** Manifest digests of the images that are mounted. */
  readonly images: readonly string[];
}

/** What is left to undo, from what a container's record says. */
export interface MountRecord {
  readonly volumes?: readonly string[];
  readonly views?: readonly string[];
}

const GC_ROOT = 'containerd.io/gc.root';

/** Names of the snapshots that show a container's image mounts. */
export function imageViews(config: ContainerConfig): string[] {
  return config.mounts.flatMap(({ type }, index) => (type === 'image' ? [`${config.id}-view-${index}`] : []));
}

export class ContainerMounts {
  readonly #options: ContainerMountsOptions;
  // Two containers that share a new volume must not both fill it.
  readonly #filling = new Limiter(1);

  constructor(options: ContainerMountsOptions) {
    this.#options = options;
    mkdirSync(options.directory, { recursive: true, mode: 0o711 });
  }

  /** With `users`, what is mounted has the owners inside that it has outside. */
  async prepare(config: ContainerConfig, image: StoredImage, users?: UserMapping): Promise<PreparedMounts> {
    const all = [...config.mounts, ...declaredVolumes(config, image)];
    const folder = users && this.#folder(config.id, users);
    const mounts: Mount[] = [];
    const volumes: string[] = [];
    const images: string[] = [];
    for (const [index, mount] of all.entries()) {
      if (!path.posix.isAbsolute(mount.target))
        throw new SwarmError(
          'invalid-argument',
          `mount target ${JSON.stringify(mount.target)} is not absolute`,
        );
      const place = path.join(this.#options.directory, config.id, String(index));
      if (mount.type === 'volume') {
        const name = mount.source || anonymousName(config.id, mount.target);
        volumes.push(name);
        mounts.push(
          await this.#volume(
            config.id,
            { ...mount, source: name },
            { image, place, isNamed: mount.source !== '' },
          ),
        );
      } else if (mount.type === 'image') {
        const view = { key: `${config.id}-view-${index}`, place, users };
        const { digest, source } = await this.#image(config.id, mount, view);
        images.push(digest);
        mounts.push({ ...mount, source });
      } else {
        if (mount.type === 'bind') prepareBind(mount);
        mounts.push(mount);
      }
    }
    if (folder !== undefined && users !== undefined)
      for (const [index, mount] of mounts.entries())
        mounts[index] = mapOwners(mount, path.join(folder, `${index}-own`), users);
    const places = mounts.filter(({ type }) => type !== 'tmpfs').map(({ source }) => source);
    const restrictions = restrictionsAt(places);
    const restricted = mounts.map((mount) => {
      const index = mount.type === 'tmpfs' ? -1 : places.indexOf(mount.source);
      return { ...mount, restrictions: restrictions[index] ?? [] };
    });
    return { mounts: restricted, volumes, images };
  }

  async #volume(
    containerId: string,
    mount: Mount,
    { image, place, isNamed }: { image: StoredImage; place: string; isNamed: boolean },
  ): Promise<Mount> {
    const { store, scratchDirectory, withImage } = this.#options;
    const name = mount.source;
    await store.create({
      name,
      labels: mount.volumeLabels,
      options: mount.volumeDriver?.options ?? {},
      ...(!isNamed && { containerId }),
    });
    const directory = await store.claim(name, containerId);
    if (!mount.volumeNoCopy && mount.subpath === '')
      await this.#filling.run(() =>
        store.fillOnce(name, (into) =>
          withImage(image.topSnapshot, (view) =>
            fillVolumes(view, scratchDirectory, [{ directory: into, target: mount.target }]),
          ),
        ),
      );
    if (mount.subpath === '') return { ...mount, source: directory };
    pinSubpath(directory, mount.subpath, place);
    return { ...mount, source: place };
  }

  /** Mounts of a container's snapshot that show it as the container is to see it, for as long as the action takes. */
  async withRoot<T>(
    containerId: string,
    { snapshot, users }: { snapshot: readonly SnapshotMount[]; users: UserMapping | undefined },
    action: (mounts: readonly SnapshotMount[]) => Promise<T>,
  ): Promise<T> {
    if (users === undefined) return action(snapshot);
    return withMappedLayers(snapshot, { directory: this.#folder(containerId, users), users }, action);
  }

  /** Which none but the container's root enters: what is bound may lie where no user of the machine gets. */
  #folder(containerId: string, { firstId }: UserMapping): string {
    const folder = path.join(this.#options.directory, containerId);
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    chownSync(folder, firstId, firstId);
    return folder;
  }

  async #image(
    containerId: string,
    mount: Mount,
    { key, place, users }: { key: string; place: string; users: UserMapping | undefined },
  ): Promise<{ digest: string; source: string }> {
    const { findImage, containerd } = this.#options;
    const image = findImage(mount.source);
    if (image === undefined) throw new SwarmError('not-found', `No such image: ${mount.source}`);
    const view = { snapshotter: SNAPSHOTTER, key };
    const parent = image.topSnapshot;
    // Nothing else refers to it.
    const labels = { [GC_ROOT]: new Date().toISOString() };
    const root = `${place}-image`;
    const { mounts } = await containerd.snapshots.view({ ...view, parent, labels });
    mkdirSync(root, { recursive: true, mode: 0o711 });
    await this.withRoot(containerId, { snapshot: mounts, users }, async (shown) =>
      mountSnapshot(shown, root),
    );
    const { digest } = image.manifest;
    if (mount.subpath === '') return { digest, source: root };
    pinSubpath(root, mount.subpath, place);
    return { digest, source: place };
  }

  /** Undoes it all. Safe to repeat. */
  async release(containerId: string, { views = [] }: MountRecord): Promise<void> {
    const { containerd, store, directory } = this.#options;
    removePlaces(path.join(directory, containerId));
    for (const key of views) {
      try {
        await containerd.snapshots.remove({ snapshotter: SNAPSHOTTER, key });
      } catch (error) {
        if (!hasCode(error, 'not-found')) throw error;
      }
    }
    store.release(containerId);
  }

  /** On the first look: the containers there are count as users, what others have left goes. */
  adopt(records: ReadonlyMap<string, MountRecord>): void {
    const { store, directory } = this.#options;
    for (const [id, { volumes = [] }] of records) for (const name of volumes) store.addUser(name, id);
    for (const id of readdirSync(directory)) if (!records.has(id)) removePlaces(path.join(directory, id));
    store.sweep((id) => records.has(id));
  }
}

/** The VOLUMEs of an image that no mount covers. */
function declaredVolumes(config: ContainerConfig, image: StoredImage): Mount[] {
  const given = new Set(config.mounts.map(({ target }) => path.posix.normalize(target)));
  return image.configuration.volumes
    .filter((target) => !given.has(path.posix.normalize(target)))
    .map((target) => ({ ...emptyMount, type: 'volume', target }));
}

/** The same however often the container's creation is begun. */
function anonymousName(containerId: string, target: string): string {
  return createHash('sha256').update(`${containerId} ${target}`).digest('hex');
}

function prepareBind({ source, bindCreateSource }: Mount): void {
  if (bindCreateSource) mkdirSync(source, { recursive: true, mode: 0o755 });
  if (statSync(source, { throwIfNoEntry: false }) === undefined)
    throw new SwarmError('invalid-argument', `bind source path does not exist: ${source}`, {
      hint: 'Make it on the node, or let it be made: bind-create-src in the mount.',
    });
}

function removePlaces(directory: string): void {
  if (!existsSync(directory)) return;
  // Pinned paths of an image lie in the view of it: they come first in the order of names.
  for (const name of readdirSync(directory).sort()) {
    const place = path.join(directory, name);
    unmountAll(place);
    if (lstatSync(place).isDirectory()) rmdirSync(place);
    else unlinkSync(place);
  }
  rmSync(directory, { recursive: true });
}
