// Blobs in containerd's content store. Everything is written under a lease: what no lease, label or image name refers
// to is collected at the next deletion.

import { createHash, randomUUID } from 'node:crypto';
import { hasCode, SwarmError } from '../../../core/errors.ts';
import { type Containerd, SNAPSHOTTER } from '../containerd/connection.ts';
import { SingleFlight } from '../limiter.ts';
import type { BlobFiles } from './blob-files.ts';
import { DOCUMENT_BYTES_MAX, digestOf } from './manifest.ts';

/** Id of a containerd lease. */
export type Lease = string;
export type Labels = Readonly<Record<string, string>>;

export interface BlobToWrite {
  readonly digest: string;
  readonly size: number;
  readonly labels?: Labels;
}

// A pull that takes longer than this has stalled many times over.
const LEASE_MS = 6 * 3600 * 1000;
const LEASE_PREFIX = 'tsswarm-';
/** Of all stores of this process. */
const liveLeases = new Set<Lease>();
// Larger messages cost fewer round trips; containerd takes 16 MiB at most.
const CHUNK_BYTES = 2 ** 20;
const SETTLE_TIMEOUT_MS = 2000;
/** For smaller ones the way through containerd costs as little. */
const FILE_BYTES_MIN = 2 ** 20;

export class BlobStore {
  readonly #containerd: Containerd;
  readonly #files: BlobFiles;
  readonly #writes = new SingleFlight<void>();

  constructor(containerd: Containerd, files: BlobFiles) {
    this.#containerd = containerd;
    this.#files = files;
  }

  /** Runs the action under a lease of its own, which ends with it. */
  async withLease<T>(action: (lease: Lease) => Promise<T>): Promise<T> {
    const id = `${LEASE_PREFIX}${randomUUID()}`;
    const expiry = new Date(Date.now() + LEASE_MS).toISOString();
    liveLeases.add(id);
    await this.#containerd.leases.create({ id, labels: { 'containerd.io/gc.expire': expiry } });
    try {
      return await action(id);
    } finally {
      liveLeases.delete(id);
      // One that cannot be deleted now is found by `endForgotten`.
      await this.#containerd.leases.delete({ id, sync: false }).catch(() => {});
    }
  }

  /** Leases whose actions have ended, or whose process has, and what they have brought of blobs. */
  async endForgotten(): Promise<void> {
    await this.#files.removeForgotten();
    const { leases } = await this.#containerd.leases.list({ filters: [] });
    for (const { id } of leases)
      if (id.startsWith(LEASE_PREFIX) && !liveLeases.has(id))
        await this.#containerd.leases.delete({ id, sync: false });
  }

  /** The size of a blob, or undefined when it is not here. */
  async sizeOf(digest: string): Promise<number | undefined> {
    try {
      return (await this.#containerd.content.info({ digest })).info?.size;
    } catch (error) {
      if (hasCode(error, 'not-found')) return undefined;
      throw error;
    }
  }

  /** All of a blob, or a part of it. */
  async *read(digest: string, part = { offset: 0, size: 0 }): AsyncIterable<Uint8Array> {
    for await (const { data } of this.#containerd.content.read({ digest, ...part })) yield data;
  }

  /** A whole document; refuses what is too large to be one. */
  async readDocument(digest: string): Promise<Buffer> {
    return collect(this.read(digest), DOCUMENT_BYTES_MAX);
  }

  async protect(lease: Lease, digest: string): Promise<void> {
    await this.#containerd.leases.addResource({ id: lease, resource: { id: digest, type: 'content' } });
  }

  async protectSnapshot(lease: Lease, name: string): Promise<void> {
    const resource = { id: name, type: `snapshots/${SNAPSHOTTER}` };
    await this.#containerd.leases.addResource({ id: lease, resource });
  }

  async setLabels(digest: string, labels: Labels): Promise<void> {
    const info = { digest, size: 0, labels };
    await this.#containerd.content.update({ info, updateMask: { paths: ['labels'] } });
  }

  /** Writes a small blob whose bytes are at hand. */
  async writeBytes(lease: Lease, bytes: Uint8Array, labels: Labels = {}): Promise<void> {
    const blob = { digest: digestOf(bytes), size: bytes.length, labels };
    await this.write(lease, blob, (offset) => [bytes.subarray(offset)]);
    await this.setLabels(blob.digest, labels);
  }

  /**
   * Writes a blob, from where an earlier attempt broke off. `open` gives the bytes from an offset. The digest is checked.
   * A blob that is there already is kept.
   */
  async write(
    lease: Lease,
    blob: BlobToWrite,
    open: (offset: number) => AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
  ): Promise<void> {
    // First of all, so that a collection cannot take a blob that is found to be there.
    await this.protect(lease, blob.digest);
    await this.#writes.run(blob.digest, () => this.#write(lease, blob, open));
  }

  async #write(lease: Lease, blob: BlobToWrite, open: Parameters<BlobStore['write']>[2]): Promise<void> {
    const present = await this.sizeOf(blob.digest);
    if (present !== undefined) return requireSize(blob, present);
    const ref = `tsswarm-${blob.digest}`;
    const isFile = blob.size >= FILE_BYTES_MIN && this.#files.accepts(blob);
    if (isFile) await this.#files.receive(blob, open);
    const start = isFile ? blob.size : await this.#offsetOf(ref);
    const source = start < blob.size ? open(start) : [];
    try {
      await this.#send(lease, { ref, start, ...blob }, source);
    } catch (error) {
      if (hasCode(error, 'already-exists')) return;
      // Whatever was kept does not lead to this digest.
      if (hasCode(error, 'failed-precondition') || hasCode(error, 'out-of-sequence'))
        await this.#containerd.content.abort({ ref }).catch(() => {});
      // containerd has collected the beginning meanwhile: from the start, it works.
      if (hasCode(error, 'out-of-sequence'))
        throw new SwarmError('unavailable', `what was here of blob ${blob.digest} is gone`, { cause: error });
      throw error;
    }
  }

  async #offsetOf(ref: string): Promise<number> {
    try {
      return (await this.#containerd.content.status({ ref })).status?.offset ?? 0;
    } catch (error) {
      if (hasCode(error, 'not-found')) return 0;
      throw error;
    }
  }

  /** Writes bytes of unknown digest and size; returns the digest. */
  async writeUnnamed(lease: Lease, source: AsyncIterable<Uint8Array>): Promise<string> {
    const plan = { ref: `tsswarm-import-${randomUUID()}`, start: 0, digest: '' };
    const hash = createHash('sha256');
    const hashed = async function* () {
      for await (const part of source) {
        hash.update(part);
        yield part;
      }
    };
    try {
      await this.#send(lease, plan, hashed());
    } catch (error) {
      if (!hasCode(error, 'already-exists')) throw error;
    }
    const digest = `sha256:${hash.digest('hex')}`;
    await this.protect(lease, digest);
    return digest;
  }

  async #send(
    lease: Lease,
    plan: Outgoing,
    source: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
  ): Promise<void> {
    const stop = new AbortController();
    const call = this.#containerd.content.write({
      metadata: { 'containerd-lease': lease },
      signal: stop.signal,
    });
    const answers = untilEnd(call);
    answers.catch(() => {});
    const message = { ref: plan.ref, total: plan.size ?? 0, expected: plan.digest };
    let offset = plan.start;
    try {
      for await (const data of inChunks(source)) {
        if (plan.size !== undefined && offset + data.length > plan.size)
          throw new SwarmError(
            'failed-precondition',
            `blob ${plan.digest} is larger than ${plan.size} bytes`,
          );
        await call.send({ action: 'write', ...message, offset, data, labels: {} });
        offset += data.length;
      }
      const total = plan.size ?? offset;
      if (offset < total)
        throw new SwarmError('unavailable', `blob ${plan.digest} broke off at ${offset} bytes`);
      const labels = plan.labels ?? {};
      await call.send({ action: 'commit', ...message, total, offset, data: NO_BYTES, labels });
      call.end();
      await answers;
    } catch (error) {
      // What was sent is to be kept: the next attempt goes on from there.
      call.end();
      const timer = setTimeout(() => stop.abort(), SETTLE_TIMEOUT_MS);
      await answers.catch(() => {});
      clearTimeout(timer);
      throw error;
    }
  }
}

/** Bytes on their way to containerd; without a size all that come are taken. */
interface Outgoing {
  readonly ref: string;
  readonly start: number;
  /** Empty: not known before. */
  readonly digest: string;
  readonly size?: number;
  readonly labels?: Labels;
}

function requireSize({ digest, size }: BlobToWrite, present: number): void {
  if (present !== size)
    throw new SwarmError('failed-precondition', `blob ${digest} has ${present} bytes, not ${size}`);
}

async function untilEnd(answers: AsyncIterable<unknown>): Promise<void> {
  for await (const _ of answers);
}

const NO_BYTES = new Uint8Array(0);

/** Larger pieces of the same bytes. Of a source that fails, all that it gave comes first. */
async function* inChunks(
  source: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
): AsyncIterable<Uint8Array> {
  let parts: Uint8Array[] = [];
  let length = 0;
  let failure: { readonly error: unknown } | undefined;
  try {
    for await (const part of source) {
      parts.push(part);
      length += part.length;
      if (length < CHUNK_BYTES) continue;
      yield* slices(Buffer.concat(parts, length));
      parts = [];
      length = 0;
    }
  } catch (error) {
    failure = { error };
  }
  if (length > 0) yield* slices(Buffer.concat(parts, length));
  if (failure !== undefined) throw failure.error;
}

function* slices(bytes: Uint8Array): Iterable<Uint8Array> {
  for (let at = 0; at < bytes.length; at += 4 * CHUNK_BYTES) yield bytes.subarray(at, at + 4 * CHUNK_BYTES);
}

/** All bytes of a stream; refuses to hold more than `bytesMax`. */
export async function collect(source: AsyncIterable<Uint8Array>, bytesMax: number): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  let length = 0;
  for await (const part of source) {
    length += part.length;
    if (length > bytesMax)
      throw new SwarmError('invalid-argument', `document is larger than ${bytesMax} bytes`);
    parts.push(part);
  }
  return Buffer.concat(parts, length);
}
