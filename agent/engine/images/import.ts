// Reads an OCI layout or a Docker archive, plain or gzipped, in whatever order its entries come. Blobs go straight into
// the content store; names, sizes and links of the archive are not trusted.

import path from 'node:path';
import { Readable } from 'node:stream';
import { createGunzip, createZstdDecompress } from 'node:zlib';
import { extract, type Header } from 'tar-stream';
import { SwarmError } from '../../../core/errors.ts';
import { type ImageReference, parseImageReference } from '../../../core/image-reference.ts';
import type { ArchiveOptions } from '../engine.ts';
import { type BlobStore, collect, type Lease } from './blob-store.ts';
import { requireRoom } from './image-disk.ts';
import {
  type Descriptor,
  DOCUMENT_BYTES_MAX,
  digestOf,
  MEDIA_TYPES,
  machinePlatform,
  parseDocument,
  parseImageDocument,
  parsePlatform,
  requirePlatform,
} from './manifest.ts';
import { type ImageParts, type ImageSource, storeImage } from './store-image.ts';

// An image has at most a few hundred parts.
const ENTRIES_MAX = 20_000;
// They are held in memory until all has been read.
const DOCUMENTS_BYTES_MAX = 64 * 2 ** 20;
const LINK_DEPTH_MAX = 8;
const MAGIC_BYTES = 4;
const SMALL_DOCUMENT = /(?:^|\/)(?:[^/]*\.json|json|oci-layout|repositories|VERSION)$/;
const OCI_BLOB = /^blobs\/sha256\/([a-f0-9]{64})$/;

interface StoredEntry {
  readonly digest: string;
  readonly size: number;
  readonly isGzip: boolean;
}

/** What an archive held. Paths are relative and free of "." and "..". */
interface ArchiveContents {
  readonly documents: Map<string, Buffer>;
  readonly blobs: Map<string, StoredEntry>;
  readonly links: Map<string, string>;
}

/** Stores every image of the archive; returns their names. `name` replaces the archive's when it holds one image. */
export async function importArchive(
  parts: ImageParts,
  archive: AsyncIterable<Uint8Array>,
  { name, platform: wanted }: ArchiveOptions,
): Promise<string[]> {
  const platform = wanted === undefined ? machinePlatform() : parsePlatform(wanted);
  return parts.blobs.withLease(async (lease) => {
    const contents = await readArchive(parts, lease, archive);
    const images = contents.documents.has('index.json')
      ? listOciImages(contents)
      : await listDockerImages(parts.blobs, lease, contents);
    if (images.length === 0) throw notAnArchive('it names no image');
    const names: string[] = [];
    for (const { target, references } of images) {
      const source = archiveSource(parts.blobs);
      const targetBytes = await parts.blobs.readDocument(target.digest);
      if (targetBytes.length !== target.size)
        throw new SwarmError('invalid-argument', `broken image: ${target.digest} has another size`);
      const stored = await storeImage(parts, { lease, source, target, targetBytes, platform });
      requirePlatform(
        references[0]?.familiar ?? name ?? target.digest,
        stored.configuration.platform,
        wanted,
      );
      const given = images.length === 1 && name !== undefined ? [parseImageReference(name)] : references;
      const all = given.length > 0 ? given : [parseImageReference(`unnamed@${target.digest}`)];
      for (const reference of all) {
        await parts.catalog.setName(lease, reference, stored, 'operator');
        names.push(reference.familiar);
      }
    }
    return names;
  });
}

function notAnArchive(reason: string): SwarmError {
  return new SwarmError('invalid-argument', `not an image archive: ${reason}`, {
    hint: 'Give an OCI layout or a Docker archive, as written by "docker save".',
  });
}

async function readArchive(
  parts: ImageParts,
  lease: Lease,
  archive: AsyncIterable<Uint8Array>,
): Promise<ArchiveContents> {
  const contents: ArchiveContents = { documents: new Map(), blobs: new Map(), links: new Map() };
  const tar = extract();
  const bytes = Readable.from(await decompressed(archive), { objectMode: false });
  bytes.on('error', (error) => tar.destroy(error));
  bytes.pipe(tar);
  let entries = 0;
  try {
    for await (const entry of tar) {
      entries += 1;
      if (entries > ENTRIES_MAX) throw notAnArchive(`it has more than ${ENTRIES_MAX} entries`);
      await readEntry(parts, lease, contents, entry.header, entry as AsyncIterable<Uint8Array>);
      entry.resume();
    }
  } catch (error) {
    if (error instanceof SwarmError) throw error;
    throw notAnArchive((error as Error).message);
  } finally {
    bytes.destroy();
  }
  return contents;
}

async function readEntry(
  { blobs, disk }: ImageParts,
  lease: Lease,
  contents: ArchiveContents,
  header: Header,
  body: AsyncIterable<Uint8Array>,
): Promise<void> {
  const name = cleanPath(header.name);
  const size = header.size ?? 0;
  if (header.type === 'symlink' || header.type === 'link') {
    const base = header.type === 'symlink' ? path.posix.dirname(name) : '';
    contents.links.set(name, cleanPath(path.posix.join(base, header.linkname ?? '')));
    return;
  }
  if (header.type !== 'file') return;
  const blob = OCI_BLOB.exec(name);
  if (blob === null && SMALL_DOCUMENT.test(name)) {
    const held = [...contents.documents.values()].reduce((sum, bytes) => sum + bytes.length, 0);
    if (held + size > DOCUMENTS_BYTES_MAX)
      throw notAnArchive(`its documents are larger than ${DOCUMENTS_BYTES_MAX} bytes together`);
    contents.documents.set(name, await collect(body, DOCUMENT_BYTES_MAX));
    return;
  }
  await requireRoom(disk, `${name} in the archive`, size);
  const watched = withMagic(body);
  if (blob === null) {
    const digest = await blobs.writeUnnamed(lease, watched.bytes);
    contents.blobs.set(name, { digest, size, isGzip: watched.isGzip() });
    return;
  }
  const digest = `sha256:${blob[1]}`;
  // An archive comes once and cannot be resumed: the offset of an earlier attempt is skipped.
  await blobs.write(lease, { digest, size }, (offset) => skip(watched.bytes, offset));
  contents.blobs.set(name, { digest, size, isGzip: watched.isGzip() });
}

/** "a/b" for "./a/x/../b" and "/a/b"; never leads upwards. */
function cleanPath(name: string): string {
  return path.posix.join('/', name).slice(1).replace(/\/$/, '');
}

async function* skip(source: AsyncIterable<Uint8Array>, offset: number): AsyncIterable<Uint8Array> {
  let toSkip = offset;
  for await (const part of source) {
    if (part.length > toSkip) yield part.subarray(toSkip);
    toSkip = Math.max(0, toSkip - part.length);
  }
}

function withMagic(source: AsyncIterable<Uint8Array>): {
  bytes: AsyncIterable<Uint8Array>;
  isGzip(): boolean;
} {
  let first: Uint8Array = new Uint8Array(0);
  const bytes = (async function* () {
    for await (const part of source) {
      if (first.length < 2) first = Buffer.concat([first, part.subarray(0, 2)]);
      yield part;
    }
  })();
  return { bytes, isGzip: () => isGzipped(first) };
}

function isGzipped(bytes: Uint8Array): boolean {
  return bytes[0] === 0x1f && bytes[1] === 0x8b;
}

function isZstd(bytes: Uint8Array): boolean {
  return bytes.length >= MAGIC_BYTES && Buffer.from(bytes).readUInt32LE() === 0xfd2fb528;
}

/** What comes, without gzip or zstd around it. */
export async function decompressed(archive: AsyncIterable<Uint8Array>): Promise<AsyncIterable<Uint8Array>> {
  const iterator = archive[Symbol.asyncIterator]();
  const head: Uint8Array[] = [];
  let length = 0;
  while (length < MAGIC_BYTES) {
    const next = await iterator.next();
    if (next.done) break;
    head.push(next.value);
    length += next.value.length;
  }
  const whole = (async function* () {
    yield* head;
    yield* { [Symbol.asyncIterator]: () => iterator };
  })();
  const magic = Buffer.concat(head);
  const unpack = isGzipped(magic) ? createGunzip() : isZstd(magic) ? createZstdDecompress() : undefined;
  if (unpack === undefined) return whole;
  const source = Readable.from(whole, { objectMode: false });
  source.on('error', (error) => unpack.destroy(error));
  return source.pipe(unpack);
}

interface ArchivedImage {
  readonly target: Descriptor;
  readonly references: readonly ImageReference[];
}

function listOciImages({ documents }: ArchiveContents): ArchivedImage[] {
  const index = parseImageDocument(documents.get('index.json') as Buffer);
  if (index.kind !== 'index') throw notAnArchive('index.json is no index');
  const byDigest = new Map<string, { target: Descriptor; references: ImageReference[] }>();
  for (const target of index.manifests) {
    const image = byDigest.get(target.digest) ?? { target, references: [] };
    byDigest.set(target.digest, image);
    const full = target.annotations['io.containerd.image.name'];
    const short = target.annotations['org.opencontainers.image.ref.name'];
    // The OCI annotation may hold a full name or a tag alone, which names nothing.
    const name = full ?? (short !== undefined && /[/:]/.test(short) ? short : undefined);
    if (name !== undefined) image.references.push(parseImageReference(name));
  }
  return [...byDigest.values()];
}

async function listDockerImages(
  blobs: BlobStore,
  lease: Lease,
  contents: ArchiveContents,
): Promise<ArchivedImage[]> {
  const bytes = contents.documents.get('manifest.json');
  if (bytes === undefined) throw notAnArchive('it has neither index.json nor manifest.json');
  const list: unknown = parseDocument(
    Buffer.concat([Buffer.from('{"images":'), bytes, Buffer.from('}')]),
    'manifest.json',
  )['images'];
  if (!Array.isArray(list)) throw notAnArchive('manifest.json is no list');
  const images: ArchivedImage[] = [];
  for (const item of list as { Config?: unknown; RepoTags?: unknown; Layers?: unknown }[]) {
    const tags = Array.isArray(item.RepoTags) ? item.RepoTags : [];
    const target = await synthesizeManifest(blobs, lease, contents, item);
    images.push({ target, references: tags.map((tag) => parseImageReference(String(tag))) });
  }
  return images;
}

/** A Docker archive has no manifest of its own: one is written for it. */
async function synthesizeManifest(
  blobs: BlobStore,
  lease: Lease,
  contents: ArchiveContents,
  item: { Config?: unknown; Layers?: unknown },
): Promise<Descriptor> {
  const configPath = cleanPath(String(item.Config));
  const inStore = lookUp(contents, configPath);
  const config =
    contents.documents.get(configPath) ?? (inStore && (await blobs.readDocument(inStore.digest)));
  if (config === undefined) throw notAnArchive(`its configuration ${configPath} is missing`);
  await blobs.writeBytes(lease, config);
  const layers = (Array.isArray(item.Layers) ? item.Layers : []).map((layer) => {
    const blob = lookUp(contents, cleanPath(String(layer)));
    if (blob === undefined) throw notAnArchive(`its layer ${String(layer)} is missing`);
    const mediaType = blob.isGzip ? MEDIA_TYPES.ociLayerGzip : MEDIA_TYPES.ociLayer;
    return { mediaType, digest: blob.digest, size: blob.size };
  });
  const manifest = {
    schemaVersion: 2,
    mediaType: MEDIA_TYPES.ociManifest,
    config: { mediaType: MEDIA_TYPES.ociConfig, digest: digestOf(config), size: config.length },
    layers,
  };
  const bytes = Buffer.from(JSON.stringify(manifest));
  await blobs.writeBytes(lease, bytes);
  return { mediaType: MEDIA_TYPES.ociManifest, digest: digestOf(bytes), size: bytes.length, annotations: {} };
}

/** Follows the links by which an archive repeats a layer. */
function lookUp({ blobs, links }: ArchiveContents, start: string): StoredEntry | undefined {
  let name = start;
  for (let depth = 0; depth < LINK_DEPTH_MAX; depth += 1) {
    const blob = blobs.get(name);
    const next = links.get(name);
    if (blob !== undefined || next === undefined) return blob;
    name = next;
  }
  return undefined;
}

/** For what is in the content store already. */
export function archiveSource(blobs: BlobStore): ImageSource {
  return {
    name: 'archive',
    document: ({ digest }) => blobs.readDocument(digest),
    async layer({ digest, size }) {
      if ((await blobs.sizeOf(digest)) !== size)
        throw notAnArchive(`layer ${digest} is missing or has another size`);
    },
  };
}
