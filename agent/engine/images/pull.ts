// Pulls one image from its registry: broken downloads go on where they stopped, layers are unpacked while later ones
// still come.

import { setTimeout as delay } from 'node:timers/promises';
import { hasCode, messageOf, SwarmError } from '../../../core/errors.ts';
import type { ImageReference } from '../../../core/image-reference.ts';
import type { Logger } from '../../../rpc/logger.ts';
import type { PullOptions, PullProgress } from '../engine.ts';
import { type BlobStore, collect, type Lease } from './blob-store.ts';
import { requireRoom } from './image-disk.ts';
import {
  type Descriptor,
  DOCUMENT_BYTES_MAX,
  isIndexType,
  machinePlatform,
  parsePlatform,
} from './manifest.ts';
import type { RegistryClient } from './registry.ts';
import { type ImageParts, type ImageSource, storeImage } from './store-image.ts';

// Attempts that bring no new byte; one that does starts the count anew.
const ATTEMPTS_MAX = 5;
const RETRY_DELAY_MS = 200;
const PROGRESS_PERIOD_MS = 100;

export interface PullContext extends ImageParts {
  readonly registry: RegistryClient;
  readonly log: Logger;
}

/** Returns the digest that the name resolved to. */
export async function pullImage(
  context: PullContext,
  reference: ImageReference,
  options: PullOptions,
): Promise<string> {
  const { registry, blobs, catalog } = context;
  const report = options.onProgress ?? (() => {});
  const wanted = reference.digest ?? reference.tag ?? 'latest';
  const { bytes, digest, mediaType } = await registry.manifest(wanted);
  const target = { mediaType, digest, size: bytes.length, annotations: {} };
  report({ id: '', status: `Pulling from ${reference.repository}`, currentBytes: 0, totalBytes: 0 });
  await blobs.withLease(async (lease) => {
    const stored = await storeImage(context, {
      lease,
      target,
      targetBytes: bytes,
      source: registrySource(context, reference, { lease, report, signal: options.signal }),
      platform: options.platform === undefined ? machinePlatform() : parsePlatform(options.platform),
      onLayer: (layer, status) =>
        report({ id: layer.digest, status, currentBytes: layer.size, totalBytes: layer.size }),
      signal: options.signal,
    });
    await catalog.setName(lease, reference, stored, 'registry');
  });
  report({ id: '', status: `Digest: ${digest}`, currentBytes: 0, totalBytes: 0 });
  return digest;
}

interface Download {
  readonly lease: Lease;
  readonly report: (progress: PullProgress) => void;
  readonly signal: AbortSignal | undefined;
}

function registrySource(context: PullContext, reference: ImageReference, download: Download): ImageSource {
  const { registry, blobs } = context;
  return {
    name: reference.familiar,
    async document(descriptor) {
      if (isDocumentType(descriptor.mediaType)) return (await registry.manifest(descriptor.digest)).bytes;
      return collect(registry.blob(descriptor.digest, 0), DOCUMENT_BYTES_MAX);
    },
    async layer(descriptor) {
      const { digest, size } = descriptor;
      // Protected before it is looked for: a collection may be under way.
      await blobs.protect(download.lease, digest);
      const present = await blobs.sizeOf(digest);
      if (present !== undefined) {
        if (present !== size)
          throw new SwarmError(
            'failed-precondition',
            `${reference.familiar}: layer ${digest} has ${present} bytes, its manifest says ${size}`,
          );
        download.report({ id: digest, status: 'Already exists', currentBytes: size, totalBytes: size });
        return;
      }
      await requireRoom(context.disk, `${reference.familiar}: layer ${digest}`, size);
      await fetchLayer(context, descriptor, download);
      download.report({ id: digest, status: 'Download complete', currentBytes: size, totalBytes: size });
    },
  };
}

function isDocumentType(mediaType: string): boolean {
  return isIndexType(mediaType) || /\.manifest\.v[12]\+json$/.test(mediaType);
}

async function fetchLayer(
  { registry, blobs, log }: { registry: RegistryClient; blobs: BlobStore; log: Logger },
  layer: Descriptor,
  { lease, report, signal }: Download,
): Promise<void> {
  let furthest = 0;
  for (let attempt = 1; ; attempt += 1) {
    const { origin } = registry;
    try {
      await blobs.write(lease, layer, (offset) =>
        counted(registry.blob(layer.digest, offset), offset, (currentBytes) => {
          if (currentBytes > furthest) attempt = 1;
          furthest = Math.max(furthest, currentBytes);
          report({ id: layer.digest, status: 'Downloading', currentBytes, totalBytes: layer.size });
        }),
      );
      return;
    } catch (error) {
      signal?.throwIfAborted();
      const isLost = !hasCode(error, 'unavailable') || attempt >= ATTEMPTS_MAX;
      if (isLost && !registry.leave(origin, messageOf(error))) throw error;
      if (isLost) attempt = 0;
      log.warn({ layer: layer.digest, attempt, reason: messageOf(error) }, 'download broken, going on');
      await delay(RETRY_DELAY_MS * attempt, undefined, { signal });
    }
  }
}

/** Passes bytes on and reports how far they reach, not too often. */
async function* counted(
  source: AsyncIterable<Uint8Array>,
  start: number,
  onOffset: (offset: number) => void,
): AsyncIterable<Uint8Array> {
  let offset = start;
  let reportedAtMs = 0;
  for await (const part of source) {
    offset += part.length;
    const nowMs = Date.now();
    if (nowMs - reportedAtMs >= PROGRESS_PERIOD_MS) {
      reportedAtMs = nowMs;
      onOffset(offset);
    }
    yield part;
  }
}
