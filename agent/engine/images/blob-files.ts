// Large blobs, received as files of containerd's content store. Through its interface every byte is copied four times and
// hashed over there; what lies where containerd keeps blobs (blobs/<algorithm>/<hex>, as in an OCI layout) is taken by a
// commit without bytes, as content of another namespace is. A collection that comes between removes it, and the commit fails.

import { createHash } from 'node:crypto';
import { constants } from 'node:fs';
import { type FileHandle, mkdir, open, readdir, rename, rm, stat } from 'node:fs/promises';
import path from 'node:path';
import { SwarmError } from '../../../core/errors.ts';

export interface ExpectedBlob {
  readonly digest: string;
  readonly size: number;
}

const ALGORITHM = 'sha256';
/** The lease of a pull ends after as long. */
const PARTIAL_KEPT_MS = 6 * 3600 * 1000;
const PIECE_BYTES = 2 ** 20;

export class BlobFiles {
  readonly #blobs: string;
  readonly #partial: string;

  /** `containerdRoot` is containerd's own directory. */
  constructor(containerdRoot: string) {
    const store = path.join(containerdRoot, 'io.containerd.content.v1.content');
    this.#blobs = path.join(store, 'blobs', ALGORITHM);
    // Of the same file system.
    this.#partial = path.join(store, 'partial');
  }

  accepts({ digest }: ExpectedBlob): boolean {
    return digest.startsWith(`${ALGORITHM}:`);
  }

  /**
   * Puts a blob where containerd keeps it, from where an earlier attempt broke off. `source` gives the bytes from an
   * offset. Fails with `unavailable` when they end too early, `failed-precondition` when they are others.
   */
  async receive(
    blob: ExpectedBlob,
    source: (offset: number) => AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
  ): Promise<void> {
    const hex = blob.digest.slice(ALGORITHM.length + 1);
    const partial = path.join(this.#partial, hex);
    await mkdir(this.#partial, { recursive: true, mode: 0o700 });
    await mkdir(this.#blobs, { recursive: true, mode: 0o755 });
    const file = await open(partial, constants.O_RDWR | constants.O_CREAT, 0o600);
    try {
      const found = await appendTo(file, blob, source);
      if (found !== hex) {
        // Whatever was kept does not lead to this digest.
        await rm(partial, { force: true });
        throw new SwarmError(
          'failed-precondition',
          `blob ${blob.digest} has other contents: sha256:${found}`,
        );
      }
      await file.chmod(0o444);
      await file.datasync();
    } finally {
      await file.close();
    }
    await rename(partial, path.join(this.#blobs, hex));
  }

  /** What pulls that were given up have left. */
  async removeForgotten(): Promise<void> {
    await mkdir(this.#partial, { recursive: true, mode: 0o700 });
    for (const name of await readdir(this.#partial)) {
      const partial = path.join(this.#partial, name);
      const ageMs = Date.now() - (await stat(partial)).mtimeMs;
      if (ageMs > PARTIAL_KEPT_MS) await rm(partial, { force: true });
    }
  }
}

/** Returns the hexadecimal digest of the whole file. */
async function appendTo(
  file: FileHandle,
  { digest, size }: ExpectedBlob,
  source: Parameters<BlobFiles['receive']>[1],
): Promise<string> {
  const hash = createHash(ALGORITHM);
  let offset = 0;
  for await (const part of file.createReadStream({
    start: 0,
    autoClose: false,
    highWaterMark: PIECE_BYTES,
  })) {
    hash.update(part);
    offset += part.length;
  }
  let parts: Uint8Array[] = [];
  let length = 0;
  const write = async () => {
    if (length > 0) await file.writev(parts, offset - length);
    parts = [];
    length = 0;
  };
  try {
    for await (const part of offset < size ? source(offset) : []) {
      if (offset + part.length > size)
        throw new SwarmError('failed-precondition', `blob ${digest} is larger than ${size} bytes`);
      hash.update(part);
      parts.push(part);
      length += part.length;
      offset += part.length;
      if (length >= PIECE_BYTES) await write();
    }
  } finally {
    // Of a source that fails, what it gave is kept: the next attempt goes on from there.
    await write();
  }
  if (offset < size) throw new SwarmError('unavailable', `blob ${digest} broke off at ${offset} bytes`);
  return hash.digest('hex');
}
