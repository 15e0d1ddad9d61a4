// Makes an image of one layer from the archive of a root file system, as "docker import" does.

import { createHash } from 'node:crypto';
import { PassThrough, Readable } from 'node:stream';
import { createGzip } from 'node:zlib';
import { messageOf, SwarmError } from '../../../core/errors.ts';
import { parseImageReference } from '../../../core/image-reference.ts';
import type { ImageFromFiles } from '../engine.ts';
import { applyChanges } from './image-changes.ts';
import { archiveSource, decompressed } from './import.ts';
import { type Descriptor, digestOf, MEDIA_TYPES, machinePlatform, parsePlatform } from './manifest.ts';
import { type ImageParts, storeImage } from './store-image.ts';

const UNNAMED = 'unnamed';

/** Returns the image's id. The archive may be compressed with gzip or zstd. */
export async function createImage(
  parts: ImageParts,
  archive: AsyncIterable<Uint8Array>,
  options: ImageFromFiles,
): Promise<string> {
  const config = applyChanges(options.changes ?? []);
  const given = options.platform === undefined ? machinePlatform() : parsePlatform(options.platform);
  const name = options.reference === undefined ? undefined : parseImageReference(options.reference);
  if (name?.digest !== undefined)
    throw new SwarmError('invalid-argument', `cannot give an image a digest: ${options.reference}`);
  return parts.blobs.withLease(async (lease) => {
    const hash = createHash('sha256');
    const layerDigest = await parts.blobs.writeUnnamed(
      lease,
      compressedAgain(await decompressed(archive), hash),
    );
    const created = new Date().toISOString();
    const configuration = Buffer.from(
      JSON.stringify({
        created,
        ...given,
        config,
        rootfs: { type: 'layers', diff_ids: [`sha256:${hash.digest('hex')}`] },
        history: [{ created, ...(options.message !== undefined && { comment: options.message }) }],
      }),
    );
    const layer = await describe(parts, MEDIA_TYPES.ociLayerGzip, layerDigest);
    const manifest = Buffer.from(
      JSON.stringify({
        schemaVersion: 2,
        mediaType: MEDIA_TYPES.ociManifest,
        config: {
          mediaType: MEDIA_TYPES.ociConfig,
          digest: digestOf(configuration),
          size: configuration.length,
        },
        layers: [layer],
      }),
    );
    await parts.blobs.writeBytes(lease, configuration);
    await parts.blobs.writeBytes(lease, manifest);
    const target: Descriptor = {
      mediaType: MEDIA_TYPES.ociManifest,
      digest: digestOf(manifest),
      size: manifest.length,
      annotations: {},
    };
    const source = archiveSource(parts.blobs);
    const stored = await storeImage(parts, { lease, source, target, targetBytes: manifest, platform: given });
    const reference = name ?? parseImageReference(`${UNNAMED}@${target.digest}`);
    await parts.catalog.setName(lease, reference, stored, 'operator');
    return stored.configDigest;
  });
}

async function describe({ blobs }: ImageParts, mediaType: string, digest: string) {
  return { mediaType, digest, size: (await blobs.sizeOf(digest)) ?? 0 };
}

/** What comes is hashed as it is and passed on compressed. */
async function* compressedAgain(
  plain: AsyncIterable<Uint8Array>,
  hash: ReturnType<typeof createHash>,
): AsyncIterable<Uint8Array> {
  const tee = new PassThrough();
  tee.on('data', (part: Uint8Array) => hash.update(part));
  const source = Readable.from(plain, { objectMode: false });
  const gzip = createGzip();
  source.on('error', (error) => gzip.destroy(error));
  source.pipe(tee).pipe(gzip);
  try {
    yield* gzip as AsyncIterable<Uint8Array>;
  } catch (error) {
    if (error instanceof SwarmError) throw error;
    throw new SwarmError('invalid-argument', `the archive cannot be read: ${messageOf(error)}`);
  } finally {
    source.destroy();
  }
}
