// The engine's images: what `Images` promises, put together from registry, archive, store and catalog.

import { SwarmError } from '../../../core/errors.ts';
import { type ImageReference, parseImageReference } from '../../../core/image-reference.ts';
import type { Logger } from '../../../rpc/logger.ts';
import type { Containerd } from '../containerd/connection.ts';
import type { Images, LocalImage, PullOptions, ResolvedImage } from '../engine.ts';
import { SingleFlight } from '../limiter.ts';
import type { Measure } from '../measure.ts';
import { BlobStore, collect } from './blob-store.ts';
import { ImageCatalog, type StoredImage } from './catalog.ts';
import { exportArchive } from './export.ts';
import { HttpConnections } from './http.ts';
import { importArchive } from './import.ts';
import {
  DOCUMENT_BYTES_MAX,
  type Platform,
  parseImageConfiguration,
  parseImageDocument,
} from './manifest.ts';
import { pullImage } from './pull.ts';
import { RegistryClient } from './registry.ts';
import { Unpacker } from './unpack.ts';

export interface ImagesOptions {
  readonly containerd: Containerd;
  readonly insecureRegistries: readonly string[];
  readonly measure: Measure;
  readonly log: Logger;
  /** Ids of the containers that were made from an image. */
  readonly usersOf: (image: StoredImage) => readonly string[];
  readonly stallTimeoutMs?: number;
}

// Long enough for a registry that fetches from another one first.
const STALL_TIMEOUT_MS = 30_000;

export class EngineImages implements Images, Disposable {
  readonly #options: ImagesOptions;
  readonly #blobs: BlobStore;
  readonly #catalog: ImageCatalog;
  readonly #unpacker: Unpacker;
  readonly #connections: HttpConnections;
  readonly #pulls = new SingleFlight<string>();

  constructor(options: ImagesOptions) {
    this.#options = options;
    this.#blobs = new BlobStore(options.containerd);
    this.#catalog = new ImageCatalog(options.containerd, this.#blobs);
    this.#unpacker = new Unpacker(options.containerd, this.#blobs);
    this.#connections = new HttpConnections(options.stallTimeoutMs ?? STALL_TIMEOUT_MS);
  }

  [Symbol.dispose](): void {
    this.#connections[Symbol.dispose]();
  }

  async load(): Promise<void> {
    await this.#catalog.load();
  }

  get #parts() {
    return { blobs: this.#blobs, unpacker: this.#unpacker, catalog: this.#catalog };
  }

  async list(): Promise<LocalImage[]> {
    return this.#catalog.all().map((image) => this.#catalog.describe(image));
  }

  async find(reference: string): Promise<LocalImage | undefined> {
    const image = this.#catalog.find(reference);
    return image && this.#catalog.describe(image);
  }

  /** What containers are made from. */
  findStored(reference: string): StoredImage | undefined {
    return this.#catalog.find(reference);
  }

  async pull(text: string, options: PullOptions = {}): Promise<string> {
    const reference = parseImageReference(text);
    const { username = '' } = options.credentials ?? {};
    const key = [reference.normalized, options.platform ?? '', username].join(' ');
    const pull = () =>
      this.#options.measure('pull', async () => {
        const registry = this.#registry(reference, options);
        return pullImage({ ...this.#parts, registry, log: this.#options.log }, reference, options);
      });
    for (;;) {
      options.signal?.throwIfAborted();
      try {
        return await this.#pulls.run(key, pull);
      } catch (error) {
        // Whoever shared this pull may have given it up; this caller has not.
        const isAborted = error instanceof Error && error.name === 'AbortError';
        if (!isAborted || options.signal?.aborted) throw error;
      }
    }
  }

  #registry(reference: ImageReference, options: Pick<PullOptions, 'credentials' | 'signal'>): RegistryClient {
    const { insecureRegistries } = this.#options;
    const { credentials, signal } = options;
    return new RegistryClient({
      connections: this.#connections,
      insecureRegistries,
      reference,
      credentials,
      signal,
    });
  }

  async resolve(
    text: string,
    options: Pick<PullOptions, 'credentials' | 'signal'> = {},
  ): Promise<ResolvedImage> {
    const reference = parseImageReference(text);
    const registry = this.#registry(reference, options);
    const { bytes, digest } = await registry.manifest(reference.digest ?? reference.tag ?? 'latest');
    const document = parseImageDocument(bytes);
    if (document.kind === 'index') {
      const platforms = document.manifests
        .map(({ platform }) => platform)
        // Attestations are listed for the platform "unknown".
        .filter((platform): platform is Platform => platform !== undefined && platform.os !== 'unknown');
      return { digest, platforms: platforms.map(({ os, architecture }) => ({ os, architecture })) };
    }
    const config = await collect(registry.blob(document.config.digest, 0), DOCUMENT_BYTES_MAX);
    const { os, architecture } = parseImageConfiguration(config).platform;
    return { digest, platforms: [{ os, architecture }] };
  }

  async import(archive: AsyncIterable<Uint8Array>, name?: string): Promise<string[]> {
    return this.#options.measure('import', () => importArchive(this.#parts, archive, name));
  }

  async *export(references: readonly string[]): AsyncIterable<Uint8Array> {
    const images = references.map((text) => ({ text, image: this.#required(text) }));
    const byManifest = Map.groupBy(images, ({ image }) => image.manifest.digest);
    const exported = [...byManifest.values()].map((group) => ({
      image: (group[0] as { image: StoredImage }).image,
      names: group.flatMap(({ text, image }) => this.#namesMeant(text, image)),
    }));
    yield* exportArchive(this.#blobs, exported);
  }

  #required(text: string): StoredImage {
    const image = this.#catalog.find(text);
    if (image === undefined) throw new SwarmError('not-found', `No such image: ${text}`);
    return image;
  }

  /** The name itself when the text is one, all names when it is an id. */
  #namesMeant(text: string, image: StoredImage): ImageReference[] {
    const names = this.#catalog.namesOf(image);
    const own = names.filter(({ familiar, normalized }) => {
      if (/^(?:sha256:)?[a-f0-9]{64}$/.test(text)) return false;
      const wanted = parseImageReference(text);
      return wanted.normalized === normalized || wanted.familiar === familiar;
    });
    return own.length > 0 ? own : names;
  }

  async remove(
    text: string,
    options: { readonly force?: boolean } = {},
  ): Promise<{ untagged: string[]; deleted: string[] }> {
    const image = this.#required(text);
    const all = this.#catalog.namesOf(image);
    const going = this.#namesMeant(text, image);
    const isLast = going.length === all.length;
    const users = this.#options.usersOf(image);
    if (isLast && users.length > 0 && options.force !== true)
      throw new SwarmError('failed-precondition', `image ${text} is used by container ${users[0]}`, {
        hint: 'Remove the container first, or use force.',
      });
    for (const name of going) await this.#catalog.removeName(name);
    return { untagged: going.map(({ familiar }) => familiar), deleted: isLast ? [image.configDigest] : [] };
  }
}
