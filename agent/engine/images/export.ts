// Writes images as one archive that is an OCI layout and a Docker archive at once.

import { once } from 'node:events';
import { type Pack, pack } from 'tar-stream';
import type { ImageReference } from '../../../core/image-reference.ts';
import type { BlobStore } from './blob-store.ts';
import type { StoredImage } from './catalog.ts';

export interface ExportedImage {
  readonly image: StoredImage;
  readonly names: readonly ImageReference[];
}

const blobPath = (digest: string) => `blobs/sha256/${digest.slice('sha256:'.length)}`;

/** The archive's bytes. Blobs that images share are written once. */
export async function* exportArchive(
  blobs: BlobStore,
  images: readonly ExportedImage[],
): AsyncIterable<Uint8Array> {
  const tar = pack();
  const writing = writeArchive(tar, blobs, images).catch((error: Error) => tar.destroy(error));
  try {
    yield* tar as AsyncIterable<Uint8Array>;
  } finally {
    tar.destroy();
    await writing;
  }
}

async function writeArchive(tar: Pack, blobs: BlobStore, images: readonly ExportedImage[]): Promise<void> {
  writeDocument(tar, 'oci-layout', { imageLayoutVersion: '1.0.0' });
  const written = new Set<string>();
  for (const { image } of images) {
    const { target, manifest, configDigest, layers } = image;
    for (const digest of [
      target.digest,
      manifest.digest,
      configDigest,
      ...layers.map((layer) => layer.digest),
    ]) {
      if (written.has(digest)) continue;
      written.add(digest);
      await writeBlob(tar, blobs, digest);
    }
  }
  writeDocument(tar, 'index.json', { schemaVersion: 2, manifests: images.flatMap(indexEntries) });
  writeDocument(tar, 'manifest.json', images.map(dockerEntry));
  tar.finalize();
}

function writeDocument(tar: Pack, name: string, document: unknown): void {
  tar.entry({ name, mode: 0o644, mtime: new Date(0) }, JSON.stringify(document));
}

async function writeBlob(tar: Pack, blobs: BlobStore, digest: string): Promise<void> {
  const size = (await blobs.sizeOf(digest)) ?? 0;
  const { promise: written, resolve, reject } = Promise.withResolvers<void>();
  const header = { name: blobPath(digest), size, mode: 0o644, mtime: new Date(0) };
  const entry = tar.entry(header, (error) => (error ? reject(error) : resolve()));
  for await (const part of blobs.read(digest)) if (!entry.write(part)) await once(entry, 'drain');
  entry.end(null);
  await written;
}

function indexEntries({ image, names }: ExportedImage): unknown[] {
  const { mediaType, digest, size } = image.target;
  if (names.length === 0) return [{ mediaType, digest, size }];
  return names.map(({ normalized, tag }) => ({
    mediaType,
    digest,
    size,
    annotations: {
      'io.containerd.image.name': normalized,
      ...(tag === undefined ? undefined : { 'org.opencontainers.image.ref.name': tag }),
    },
  }));
}

function dockerEntry({ image, names }: ExportedImage): unknown {
  return {
    Config: blobPath(image.configDigest),
    RepoTags: names.filter(({ tag }) => tag !== undefined).map(({ familiar }) => familiar),
    Layers: image.layers.map(({ digest }) => blobPath(digest)),
  };
}
