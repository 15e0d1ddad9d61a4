// The engine's images: what `Images` promises, put together from registry, archive, store and catalog.

import { SwarmError } from '../../../core/errors.ts';
import { type ImageReference, parseImageReference } from '../../../core/image-reference.ts';
import type { Logger } from '../../../rpc/logger.ts';
import type { Containerd } from '../containerd/connection.ts';
import type {
  ArchiveOptions,
  ImageDetails,
  ImageFromFiles,
  ImageSelection,
  Images,
  LayerSize,
  LocalImage,
  PlatformOption,
  PruneResult,
  PullOptions,
  RegistryCredentials,
  ResolvedImage,
} from '../engine.ts';
import { SingleFlight } from '../limiter.ts';
import type { Measure } from '../measure.ts';
import { type BlobStore, collect } from './blob-store.ts';
import { ImageCatalog, type StoredImage } from './catalog.ts';
import { ImageCollector, type ImagePolicy, type RemovalReason } from './collector.ts';
import { createImage } from './create-image.ts';
import { exportArchive } from './export.ts';
import { HttpConnections } from './http.ts';
import type { ImageDisk } from './image-disk.ts';
import { importArchive } from './import.ts';
import {
  chainIds,
  type Descriptor,
  DOCUMENT_BYTES_MAX,
  type Platform,
  parseImageConfiguration,
  parseImageDocument,
  requirePlatform,
} from './manifest.ts';
import { pullImage } from './pull.ts';
import { pushImage } from './push.ts';
import { RegistryClient, registryHost } from './registry.ts';
import { RegistrySession } from './registry-session.ts';
import type { RegistrySettings } from './registry-settings.ts';
import { Unpacker } from './unpack.ts';

export interface ImagesOptions {
  readonly containerd: Containerd;
  readonly blobs: BlobStore;
  readonly registries: RegistrySettings;
  readonly measure: Measure;
  readonly log: Logger;
  /** Ids of the containers that were made from an image. */
  readonly usersOf: (image: StoredImage) => readonly string[];
  readonly stallTimeoutMs?: number;
  readonly disk: ImageDisk;
  readonly policy: ImagePolicy;
  /** Names of images that services with tasks here need; undefined: nobody knows yet. */
  readonly wanted: () => readonly string[] | undefined;
  readonly onRemoved: (reason: RemovalReason, bytes: number) => void;
}

// Long enough for a registry that fetches from another one first.
const STALL_TIMEOUT_MS = 30_000;

export class EngineImages implements Images, Disposable {
  readonly #options: ImagesOptions;
  readonly #blobs: BlobStore;
  readonly #catalog: ImageCatalog;
  readonly #unpacker: Unpacker;
  readonly #connections: HttpConnections;
  /** Removes what nobody needs. */
  readonly collector: ImageCollector;
  readonly #pulls = new SingleFlight<string>();

  constructor(options: ImagesOptions) {
    this.#options = options;
    this.#blobs = options.blobs;
    this.#catalog = new ImageCatalog(options.containerd, this.#blobs);
    this.#unpacker = new Unpacker(options.containerd, this.#blobs, options.disk);
    this.#connections = new HttpConnections(options.registries, options.stallTimeoutMs ?? STALL_TIMEOUT_MS);
    this.collector = new ImageCollector({
      ...options,
      catalog: this.#catalog,
      exclusiveBytes: (image) => this.#exclusiveBytes(image),
    });
  }

  [Symbol.dispose](): void {
    this.#connections[Symbol.dispose]();
  }

  async load(): Promise<void> {
    await this.#catalog.load();
  }

  get #parts() {
    const { disk } = this.#options;
    return { blobs: this.#blobs, unpacker: this.#unpacker, catalog: this.#catalog, disk };
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
    const image = this.#catalog.find(reference);
    if (image !== undefined) this.#catalog.noteUse(image);
    return image;
  }

  async pull(text: string, options: PullOptions = {}): Promise<string> {
    const reference = parseImageReference(text);
    // Who shows something else to the registry may get another answer.
    const key = JSON.stringify([reference.normalized, options.platform, options.credentials]);
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
    const { credentials, signal } = options;
    const { log } = this.#options;
    return new RegistryClient({ connections: this.#connections, reference, credentials, signal, log });
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

  async tags(text: string, options: Pick<PullOptions, 'credentials' | 'signal'> = {}): Promise<string[]> {
    return this.#registry(parseImageReference(text), options).tags();
  }

  async import(archive: AsyncIterable<Uint8Array>, options: ArchiveOptions = {}): Promise<string[]> {
    return this.#options.measure('import', () => importArchive(this.#parts, archive, options));
  }

  async *export(references: readonly string[], { platform }: PlatformOption = {}): AsyncIterable<Uint8Array> {
    const images = references.map((text) => ({ text, image: this.#required(text, platform) }));
    const byManifest = Map.groupBy(images, ({ image }) => image.manifest.digest);
    const exported = [...byManifest.values()].map((group) => ({
      image: (group[0] as { image: StoredImage }).image,
      names: group.flatMap(({ text, image }) => this.#namesMeant(text, image)),
    }));
    yield* exportArchive(this.#blobs, exported);
  }

  #required(text: string, platform?: string): StoredImage {
    const image = this.#catalog.find(text);
    if (image === undefined) throw new SwarmError('not-found', `No such image: ${text}`);
    requirePlatform(text, image.configuration.platform, platform);
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
    options: PlatformOption & { readonly force?: boolean } = {},
  ): Promise<{ untagged: string[]; deleted: string[] }> {
    const image = this.#required(text, options.platform);
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

  async check(registry: string, credentials: RegistryCredentials, signal?: AbortSignal): Promise<void> {
    const session = new RegistrySession({
      connections: this.#connections,
      address: registryHost(registry),
      scope: '',
      denied: `login to ${registry} failed`,
      credentials,
      signal,
    });
    const { url, response } = await session.ask(await session.url(''), { headers: {} });
    response.resume();
    const { statusCode = 0 } = response;
    if (statusCode < 200 || statusCode >= 300)
      throw new SwarmError(
        'failed-precondition',
        `${url.host} is no registry: it answers with status ${statusCode}`,
      );
  }

  async push(text: string, options: PullOptions = {}): Promise<{ digest: string; sizeBytes: number }> {
    const reference = parseImageReference(text);
    const { tag, registry, repository, familiar } = reference;
    if (tag === undefined)
      throw new SwarmError('invalid-argument', `cannot push a digest reference: ${text}`);
    const image = this.#catalog.find(`${registry}/${repository}:${tag}`);
    if (image === undefined)
      throw new SwarmError('not-found', `An image does not exist locally with the tag: ${familiar}`);
    const { credentials, signal, platform } = options;
    requirePlatform(familiar, image.configuration.platform, platform);
    const pushed = await this.#options.measure('push', () =>
      pushImage(
        {
          blobs: this.#blobs,
          session: new RegistrySession({
            connections: this.#connections,
            address: registryHost(registry),
            scope: `repository:${repository}:pull,push`,
            denied: `push access denied for ${familiar}`,
            credentials,
            signal,
          }),
          repository,
          tag,
          otherRepository: (digest) => this.#otherRepository(reference, digest),
          report: options.onProgress ?? (() => {}),
          signal,
          log: this.#options.log,
        },
        image,
      ),
    );
    return { digest: pushed.digest, sizeBytes: pushed.size };
  }

  /** One of the same registry that a local image with this layer came from or went to. */
  #otherRepository({ registry, repository }: ImageReference, digest: string): string | undefined {
    for (const image of this.#catalog.all()) {
      if (!image.layers.some((layer) => layer.digest === digest)) continue;
      const other = this.#catalog
        .namesOf(image)
        .find((name) => name.registry === registry && name.repository !== repository);
      if (other !== undefined) return other.repository;
    }
    return undefined;
  }

  async tag(source: string, target: string): Promise<void> {
    const reference = parseImageReference(target);
    if (reference.digest !== undefined)
      throw new SwarmError('invalid-argument', `refusing to create a tag with a digest reference: ${target}`);
    await this.#catalog.setName(undefined, reference, this.#required(source), 'operator');
  }

  async inspect(text: string, { platform }: PlatformOption = {}): Promise<ImageDetails> {
    const image = this.#required(text, platform);
    const configuration = await this.#blobs.readDocument(image.configDigest);
    const layers = await Promise.all(image.layers.map((_, index) => this.#layerSize(image, index)));
    return { summary: this.#catalog.describe(image), configuration, layers };
  }

  async #layerSize({ layers, configuration }: StoredImage, index: number): Promise<LayerSize> {
    const { digest, size } = layers[index] as Descriptor;
    const chain = chainIds(configuration.diffIds)[index] as string;
    return { digest, sizeBytes: size, unpackedBytes: await this.#unpacker.usage(chain) };
  }

  async create(files: AsyncIterable<Uint8Array>, options: ImageFromFiles): Promise<string> {
    return this.#options.measure('import', () => createImage(this.#parts, files, options));
  }

  prune(selection: ImageSelection): Promise<PruneResult> {
    return this.collector.prune(selection);
  }

  /** Of its layers those that no other image has, packed and unpacked. */
  async #exclusiveBytes(image: StoredImage): Promise<number> {
    const others = this.#catalog.all().filter(({ manifest }) => manifest.digest !== image.manifest.digest);
    const shared = new Set(others.flatMap(({ layers }) => layers.map(({ digest }) => digest)));
    let bytes = 0;
    for (const [index, { digest }] of image.layers.entries()) {
      if (shared.has(digest)) continue;
      const size = await this.#layerSize(image, index);
      bytes += size.sizeBytes + size.unpackedBytes;
    }
    return bytes;
  }
}
