// Stores an image whose documents and layers come from somewhere, a registry or an archive: blobs with the labels that
// keep them from collection, snapshots, and the record in the catalog.

import { SwarmError } from '../../../core/errors.ts';
import { SNAPSHOTTER } from '../containerd/connection.ts';
import { Limiter } from '../limiter.ts';
import type { BlobStore, Lease } from './blob-store.ts';
import { composeImage, type ImageCatalog, type StoredImage } from './catalog.ts';
import type { ImageDisk } from './image-disk.ts';
import {
  chainIds,
  choosePlatform,
  type Descriptor,
  DOCUMENT_BYTES_MAX,
  digestOf,
  formatPlatform,
  isIndexType,
  type ManifestDocument,
  type Platform,
  parseImageConfiguration,
  parseImageDocument,
} from './manifest.ts';
import type { Unpacker } from './unpack.ts';

/** Gives the bytes of an image's parts. */
export interface ImageSource {
  readonly name: string;
  document(descriptor: Descriptor): Promise<Buffer>;
  /** Undefined: the blob is in the store already. */
  layer?(descriptor: Descriptor): Promise<void>;
}

export interface StorePlan {
  readonly lease: Lease;
  readonly source: ImageSource;
  readonly target: Descriptor;
  readonly targetBytes: Buffer;
  readonly platform: Platform;
  readonly onLayer?: (layer: Descriptor, status: 'Extracting' | 'Pull complete') => void;
  readonly signal?: AbortSignal | undefined;
}

export interface ImageParts {
  readonly blobs: BlobStore;
  readonly unpacker: Unpacker;
  readonly catalog: ImageCatalog;
  readonly disk: ImageDisk;
}

// More streams do not make one registry faster.
const PARALLEL_LAYERS = 3;
const INDEX_DEPTH_MAX = 3;

/** Stores and unpacks. Giving the image a name, before the lease ends, is the caller's part. */
export async function storeImage(parts: ImageParts, plan: StorePlan): Promise<StoredImage> {
  const { blobs, unpacker } = parts;
  const { lease, source } = plan;
  const { manifest, bytes, document } = await chooseManifest(parts, plan);
  const configBytes = await checkedDocument(source, document.config);
  const configuration = parseImageConfiguration(configBytes);
  const stop = new AbortController();
  const signal = AbortSignal.any([stop.signal, ...(plan.signal === undefined ? [] : [plan.signal])]);
  const limiter = new Limiter(PARALLEL_LAYERS);
  const fetches = document.layers.map((layer) =>
    limiter.run(async () => {
      signal.throwIfAborted();
      await source.layer?.(layer);
    }),
  );
  // A failure is reported where the layer is waited for; those behind it must not count as unhandled.
  for (const fetch of fetches) fetch.catch(() => {});
  try {
    const { layers } = document;
    const { diffIds } = configuration;
    const whenFetched = (index: number) => fetches[index] as Promise<void>;
    const { onLayer } = plan;
    await unpacker.unpack({ lease, layers, diffIds, whenFetched, signal, ...(onLayer && { onLayer }) });
  } catch (error) {
    stop.abort(error);
    await Promise.allSettled(fetches);
    throw error;
  }
  const top = chainIds(configuration.diffIds).at(-1);
  const snapshotLabel = `containerd.io/gc.ref.snapshot.${SNAPSHOTTER}`;
  await blobs.writeBytes(lease, configBytes, top === undefined ? {} : { [snapshotLabel]: top });
  await blobs.writeBytes(lease, bytes, manifestLabels(document));
  return composeImage({ target: plan.target, manifest, document, configuration });
}

interface Chosen {
  readonly manifest: Descriptor;
  readonly bytes: Buffer;
  readonly document: ManifestDocument;
}

/** Goes down from an index to this machine's manifest, storing the indexes passed. */
async function chooseManifest({ blobs }: ImageParts, plan: StorePlan): Promise<Chosen> {
  let manifest = plan.target;
  let bytes = plan.targetBytes;
  for (let depth = 0; depth < INDEX_DEPTH_MAX; depth += 1) {
    const document = parseImageDocument(bytes);
    if (document.kind === 'manifest') return { manifest, bytes, document };
    const { manifests } = document;
    const entry =
      choosePlatform(manifests, plan.platform) ??
      // Archives often leave the platform out where there is nothing to choose.
      manifests.find(
        (item) => manifests.length === 1 && (item.platform === undefined || isIndexType(item.mediaType)),
      );
    if (entry === undefined)
      throw new SwarmError(
        'not-found',
        `${plan.source.name}: no matching manifest for ${formatPlatform(plan.platform)} in the manifest list entries`,
      );
    const label = `containerd.io/gc.ref.content.m.${manifests.indexOf(entry)}`;
    await blobs.writeBytes(plan.lease, bytes, { [label]: entry.digest });
    manifest = entry;
    bytes = await checkedDocument(plan.source, entry);
  }
  throw new SwarmError('invalid-argument', `${plan.source.name}: indexes are nested too deep`);
}

async function checkedDocument(source: ImageSource, descriptor: Descriptor): Promise<Buffer> {
  if (descriptor.size > DOCUMENT_BYTES_MAX)
    throw new SwarmError(
      'invalid-argument',
      `${source.name}: document of ${descriptor.size} bytes is too large`,
    );
  const bytes = await source.document(descriptor);
  if (bytes.length !== descriptor.size || digestOf(bytes) !== descriptor.digest)
    throw new SwarmError('failed-precondition', `${source.name}: ${descriptor.digest} has other contents`);
  return bytes;
}

function manifestLabels({ config, layers }: ManifestDocument): Record<string, string> {
  const entries = layers.map((layer, index) => [`containerd.io/gc.ref.content.l.${index}`, layer.digest]);
  return { 'containerd.io/gc.ref.content.config': config.digest, ...Object.fromEntries(entries) };
}
