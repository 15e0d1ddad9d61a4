// Turns layers into snapshots, inside containerd: Prepare, Apply, Commit for each layer that is not there yet.

import { randomUUID } from 'node:crypto';
import { type ErrorCode, hasCode, SwarmError } from '../../../core/errors.ts';
import { type Containerd, SNAPSHOTTER } from '../containerd/connection.ts';
import { SingleFlight } from '../limiter.ts';
import type { BlobStore, Lease } from './blob-store.ts';
import { type ImageDisk, whileItFits } from './image-disk.ts';
import { chainIds, type Descriptor } from './manifest.ts';

export interface UnpackPlan {
  readonly lease: Lease;
  readonly layers: readonly Descriptor[];
  readonly diffIds: readonly string[];
  /** Resolves when the layer's blob is here. */
  readonly whenFetched: (index: number) => Promise<void>;
  readonly onLayer?: (layer: Descriptor, status: 'Extracting' | 'Pull complete') => void;
  readonly signal?: AbortSignal | undefined;
}

// Why a call fails that has nothing to do with what is in the layer.
const PASSING: ReadonlySet<ErrorCode> = new Set([
  'unavailable',
  'cancelled',
  'deadline-exceeded',
  'resource-exhausted',
  'invalid-argument',
]);

export class Unpacker {
  readonly #containerd: Containerd;
  readonly #blobs: BlobStore;
  readonly #disk: ImageDisk;
  readonly #flights = new SingleFlight<void>();

  constructor(containerd: Containerd, blobs: BlobStore, disk: ImageDisk) {
    this.#containerd = containerd;
    this.#disk = disk;
    this.#blobs = blobs;
  }

  /** Unpacks in order, each layer as soon as it has been fetched. */
  async unpack(plan: UnpackPlan): Promise<void> {
    if (plan.layers.length !== plan.diffIds.length)
      throw new SwarmError('invalid-argument', 'broken image: manifest and configuration differ in layers');
    const chain = chainIds(plan.diffIds);
    for (const [index, layer] of plan.layers.entries()) {
      const name = chain[index] as string;
      await plan.whenFetched(index);
      plan.signal?.throwIfAborted();
      // First of all, so that a collection cannot take a snapshot that is found to be there.
      await this.#blobs.protectSnapshot(plan.lease, name);
      // Two images may share the layer and come at the same time.
      await this.#flights.run(name, async () => {
        if (await this.#exists(name)) return;
        plan.onLayer?.(layer, 'Extracting');
        const diffId = plan.diffIds[index] as string;
        await this.#apply(plan.lease, layer, { name, parent: chain[index - 1] ?? '', diffId });
      });
      plan.onLayer?.(layer, 'Pull complete');
    }
  }

  /** Bytes on the disk, without those of the layers below. */
  async usage(key: string): Promise<number> {
    return (await this.#containerd.snapshots.usage({ snapshotter: SNAPSHOTTER, key })).size;
  }

  async #exists(name: string): Promise<boolean> {
    try {
      await this.#containerd.snapshots.stat({ snapshotter: SNAPSHOTTER, key: name });
      return true;
    } catch (error) {
      if (hasCode(error, 'not-found')) return false;
      throw error;
    }
  }

  async #apply(
    lease: Lease,
    layer: Descriptor,
    target: { name: string; parent: string; diffId: string },
  ): Promise<void> {
    const { snapshots, diff } = this.#containerd;
    const leased = { metadata: { 'containerd-lease': lease } };
    const key = `unpack-${randomUUID()}`;
    const base = { snapshotter: SNAPSHOTTER, key };
    const { mounts } = await snapshots.prepare({ ...base, parent: target.parent, labels: {} }, leased);
    try {
      const { mediaType, digest, size } = layer;
      const blob = { mediaType, digest, size, annotations: {} };
      const growth = {
        what: `layer ${digest}`,
        packedBytes: size,
        unpackedBytes: () => this.usage(key),
      };
      const { applied } = await whileItFits(this.#disk, growth, (signal) =>
        diff.apply({ diff: blob, mounts }, { ...leased, signal }),
      ).catch((error) => {
        throw explainApply(error, layer);
      });
      if (applied?.digest !== target.diffId)
        throw new SwarmError(
          'invalid-argument',
          `broken image: layer ${digest} unpacks to ${applied?.digest}, its configuration says ${target.diffId}`,
        );
      await snapshots.commit({ ...base, name: target.name, labels: {} }, leased);
    } catch (error) {
      await snapshots.remove(base).catch(() => {});
      if (!hasCode(error, 'already-exists')) throw error;
    }
  }
}

/** What containerd says of a layer that it could not unpack, without its own directories. */
function explainApply(error: unknown, { digest }: Descriptor): unknown {
  // containerd itself is away, or the blob is.
  if (!(error instanceof SwarmError) || PASSING.has(error.code) || /content digest/.test(error.message))
    return error;
  const reason = error.message
    .replace(/^mount callback failed on \S+: /, '')
    .replaceAll(/\S+\/(?:tmpmounts\/containerd-mount\d+|snapshots\/\d+\/fs)/g, '');
  if (/no space left on device/.test(reason))
    return new SwarmError(
      'resource-exhausted',
      `layer ${digest} does not fit: no space is left on the disk`,
      {
        cause: error,
      },
    );
  return new SwarmError('invalid-argument', `broken image: layer ${digest}: ${reason}`, { cause: error });
}
