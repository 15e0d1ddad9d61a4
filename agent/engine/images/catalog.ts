// The images that are here, by name and by digest. containerd's image names are the truth; this process is the only
// writer, so they are read once and kept in memory: looking for an image costs no call.

import { hasCode } from '../../../core/errors.ts';
import {
  familiarRepository,
  type ImageReference,
  isDigest,
  parseImageReference,
} from '../../../core/image-reference.ts';
import type { Containerd } from '../containerd/connection.ts';
import type { LocalImage } from '../engine.ts';
import type { BlobStore, Lease } from './blob-store.ts';
import {
  chainIds,
  type Descriptor,
  type ImageConfiguration,
  type ManifestDocument,
  parseImageConfiguration,
  parseImageDocument,
} from './manifest.ts';

/** All of an image that does not depend on its names. */
export interface StoredImage {
  readonly target: Descriptor;
  readonly manifest: Descriptor;
  readonly configDigest: string;
  readonly layers: readonly Descriptor[];
  readonly configuration: ImageConfiguration;
  /** The snapshot that containers start from. Empty for an image without layers. */
  readonly topSnapshot: string;
  readonly sizeBytes: number;
}

/** Puts an image's parts together. */
export function composeImage(parts: {
  readonly target: Descriptor;
  readonly manifest: Descriptor;
  readonly document: ManifestDocument;
  readonly configuration: ImageConfiguration;
}): StoredImage {
  const { target, manifest, document, configuration } = parts;
  const { config, layers } = document;
  return {
    target,
    manifest,
    configDigest: config.digest,
    layers,
    configuration,
    topSnapshot: chainIds(configuration.diffIds).at(-1) ?? '',
    sizeBytes: layers.reduce((sum, layer) => sum + layer.size, config.size + manifest.size),
  };
}

interface Name {
  readonly reference: ImageReference;
  readonly target: Descriptor;
  /** The manifest that was kept, of those the target lists. */
  readonly manifestDigest: string;
  readonly origin: Origin;
  /** As containerd keeps it; memory may know better. */
  readonly usedAtMs: number;
}

/** Where a name came from: what a registry has can be had again. */
export type Origin = 'registry' | 'operator';

const MANIFEST_LABEL = 'tsswarm/manifest';
const ORIGIN_LABEL = 'tsswarm/origin';
const USED_LABEL = 'tsswarm/used-at-ms';
// "sha256:" is optional in front of an id; a prefix of fewer digits is too likely to be a name.
const ID_PREFIX = /^(?:sha256:)?([a-f0-9]{4,64})$/;

export class ImageCatalog {
  readonly #containerd: Containerd;
  readonly #blobs: BlobStore;
  readonly #names = new Map<string, Name>();
  readonly #stored = new Map<string, StoredImage>();
  /** When an image was last made use of, by manifest. */
  readonly #usedAtMs = new Map<string, number>();

  constructor(containerd: Containerd, blobs: BlobStore) {
    this.#containerd = containerd;
    this.#blobs = blobs;
  }

  /** Reads all names and their images. An image whose parts are missing is left out, and pulled again when needed. */
  async load(): Promise<void> {
    const { images } = await this.#containerd.images.list({ filters: [] });
    this.#names.clear();
    for (const { name, target, labels } of images) {
      const manifestDigest = labels[MANIFEST_LABEL];
      if (target === undefined || manifestDigest === undefined) continue;
      try {
        await this.#read(target, manifestDigest);
      } catch (error) {
        if (hasCode(error, 'unavailable')) throw error;
        continue;
      }
      const origin = labels[ORIGIN_LABEL] === 'registry' ? 'registry' : 'operator';
      // What an older version has left is as if used now.
      const usedAtMs = Number(labels[USED_LABEL]) || Date.now();
      const reference = parseImageReference(name);
      this.#names.set(name, { reference, target, manifestDigest, origin, usedAtMs });
      this.#usedAtMs.set(manifestDigest, Math.max(usedAtMs, this.#usedAtMs.get(manifestDigest) ?? 0));
    }
  }

  async #read(target: Descriptor, manifestDigest: string): Promise<void> {
    if (this.#stored.has(manifestDigest)) return;
    const bytes = await this.#blobs.readDocument(manifestDigest);
    const document = parseImageDocument(bytes);
    if (document.kind !== 'manifest') return;
    const configuration = parseImageConfiguration(await this.#blobs.readDocument(document.config.digest));
    const manifest = { mediaType: '', digest: manifestDigest, size: bytes.length, annotations: {} };
    this.#stored.set(manifestDigest, composeImage({ target, manifest, document, configuration }));
  }

  /** Points a name at an image; an older image loses it. */
  async setName(
    lease: Lease | undefined,
    reference: ImageReference,
    stored: StoredImage,
    origin: Origin,
  ): Promise<void> {
    const usedAtMs = Date.now();
    const { target, manifest } = stored;
    const name = {
      reference: parseImageReference(storedName(reference)),
      target,
      manifestDigest: manifest.digest,
      origin,
      usedAtMs,
    };
    await this.#write(lease, name);
    this.#stored.set(manifest.digest, stored);
    this.#names.set(storedName(reference), name);
    this.#usedAtMs.set(manifest.digest, usedAtMs);
    this.#forgetUnnamed();
  }

  async #write(lease: Lease | undefined, name: Name): Promise<void> {
    const { mediaType, digest, size } = name.target;
    const image = {
      name: storedName(name.reference),
      labels: {
        [MANIFEST_LABEL]: name.manifestDigest,
        [ORIGIN_LABEL]: name.origin,
        [USED_LABEL]: String(name.usedAtMs),
      },
      target: { mediaType, digest, size, annotations: {} },
    };
    const leased = lease === undefined ? {} : { metadata: { 'containerd-lease': lease } };
    try {
      await this.#containerd.images.create({ image }, leased);
    } catch (error) {
      if (!hasCode(error, 'already-exists')) throw error;
      await this.#containerd.images.update({ image }, leased);
    }
  }

  noteUse(image: StoredImage): void {
    this.#usedAtMs.set(image.manifest.digest, Date.now());
  }

  usedAtMs(image: StoredImage): number {
    return this.#usedAtMs.get(image.manifest.digest) ?? 0;
  }

  /** A registry has all of its names. */
  canBePulledAgain(image: StoredImage): boolean {
    return [...this.#names.values()]
      .filter(({ manifestDigest }) => manifestDigest === image.manifest.digest)
      .every(({ origin }) => origin === 'registry');
  }

  /** Writes down when images were used, where containerd's word is older than this. */
  async saveUse(olderThanMs: number): Promise<void> {
    for (const [key, name] of this.#names) {
      const usedAtMs = this.#usedAtMs.get(name.manifestDigest) ?? 0;
      if (usedAtMs - name.usedAtMs < olderThanMs) continue;
      const next = { ...name, usedAtMs };
      await this.#write(undefined, next);
      // It may have been pointed elsewhere, or removed, meanwhile.
      if (this.#names.get(key) === name) this.#names.set(key, next);
    }
  }

  /** With `isAwaited` the disk has the room afterwards. */
  async removeName(reference: ImageReference, isAwaited = false): Promise<void> {
    const name = storedName(reference);
    try {
      await this.#containerd.images.delete({ name, sync: isAwaited });
    } catch (error) {
      if (!hasCode(error, 'not-found')) throw error;
    }
    this.#names.delete(name);
    this.#forgetUnnamed();
  }

  #forgetUnnamed(): void {
    const named = new Set([...this.#names.values()].map(({ manifestDigest }) => manifestDigest));
    for (const digest of this.#stored.keys())
      if (!named.has(digest)) {
        this.#stored.delete(digest);
        this.#usedAtMs.delete(digest);
      }
  }

  /** By name, name and digest, or id. */
  find(text: string): StoredImage | undefined {
    const id = ID_PREFIX.exec(text)?.[1];
    const named =
      isDigest(text) || /^[a-f0-9]{64}$/.test(text) ? undefined : this.#findNamed(parseImageReference(text));
    if (named !== undefined || id === undefined) return named;
    const matches = [...this.#stored.values()].filter(
      ({ configDigest, target }) =>
        configDigest.startsWith(`sha256:${id}`) || (id.length === 64 && target.digest === `sha256:${id}`),
    );
    return matches.length === 1 ? matches[0] : undefined;
  }

  #findNamed(wanted: ImageReference): StoredImage | undefined {
    const { digest } = wanted;
    const name =
      digest === undefined
        ? this.#names.get(storedName(wanted))
        : [...this.#names.values()].find(
            ({ reference, target, manifestDigest }) =>
              sameRepository(reference, wanted) && (target.digest === digest || manifestDigest === digest),
          );
    return name && this.#stored.get(name.manifestDigest);
  }

  /** The names of an image. */
  namesOf(image: StoredImage): ImageReference[] {
    return [...this.#names.values()]
      .filter(({ manifestDigest }) => manifestDigest === image.manifest.digest)
      .map(({ reference }) => reference);
  }

  all(): StoredImage[] {
    return [...this.#stored.values()];
  }

  describe(image: StoredImage): LocalImage {
    const names = this.namesOf(image);
    const digests = names.map(
      ({ registry, repository }) => `${familiarRepository(registry, repository)}@${image.target.digest}`,
    );
    return {
      digest: image.target.digest,
      id: image.configDigest,
      tags: names.filter(({ tag }) => tag !== undefined).map(({ familiar }) => familiar),
      digests: [...new Set(digests)],
      createdAtMs: image.configuration.createdAtMs,
      sizeBytes: image.sizeBytes,
      labels: image.configuration.labels,
    };
  }
}

function sameRepository(one: ImageReference, other: ImageReference): boolean {
  return one.registry === other.registry && one.repository === other.repository;
}

/** A name with tag and digest is kept by its digest alone: the tag may move on, the digest cannot. */
function storedName({ registry, repository, tag, digest }: ImageReference): string {
  return `${registry}/${repository}${digest === undefined ? `:${tag}` : `@${digest}`}`;
}
