// Sends one image to a registry: what is there already is not sent again, what another repository of the registry has is
// mounted from there, and a large blob goes in pieces, so that a broken upload goes on where it stopped.

import { setTimeout as delay } from 'node:timers/promises';
import { hasCode, SwarmError } from '../../../core/errors.ts';
import type { Logger } from '../../../rpc/logger.ts';
import type { PullProgress } from '../engine.ts';
import { Limiter } from '../limiter.ts';
import type { BlobStore } from './blob-store.ts';
import type { StoredImage } from './catalog.ts';
import { MEDIA_TYPES, parseDocument } from './manifest.ts';
import { strangeStatus } from './registry.ts';
import {
  type Answer,
  addressIn,
  errorText,
  type RegistrySession,
  type RequestParts,
} from './registry-session.ts';

export interface PushPlan {
  readonly blobs: BlobStore;
  readonly session: RegistrySession;
  readonly repository: string;
  readonly tag: string;
  /** Another repository of the registry that should have the blob. */
  readonly otherRepository: (digest: string) => string | undefined;
  readonly report: (progress: PullProgress) => void;
  readonly signal: AbortSignal | undefined;
  readonly log: Logger;
}

interface Blob {
  readonly digest: string;
  readonly size: number;
}

/** Up to this a blob is sent in one request. */
export const PIECE_BYTES = 16 * 2 ** 20;
const PARALLEL_BLOBS = 3;
// Attempts that bring no new byte.
const ATTEMPTS_MAX = 5;
const RETRY_DELAY_MS = 200;

/** Returns the manifest's digest and size. The manifest comes last: what it names has to be there. */
export async function pushImage(plan: PushPlan, image: StoredImage): Promise<Blob> {
  const manifest = await plan.blobs.readDocument(image.manifest.digest);
  const config = { digest: image.configDigest, size: (await plan.blobs.sizeOf(image.configDigest)) ?? 0 };
  const limiter = new Limiter(PARALLEL_BLOBS);
  const layers = new Map(image.layers.map((layer) => [layer.digest, layer]));
  const pushes = [...layers.values(), config].map((blob) =>
    limiter.run(() => retrying(plan, blob, new Upload(plan, blob))),
  );
  await Promise.allSettled(pushes);
  await Promise.all(pushes);
  await putManifest(plan, manifest);
  return { digest: image.manifest.digest, size: manifest.length };
}

async function putManifest(plan: PushPlan, bytes: Buffer): Promise<void> {
  const { session, repository, tag } = plan;
  const type = parseDocument(bytes, 'manifest')['mediaType'];
  const headers = {
    'content-type': typeof type === 'string' ? type : MEDIA_TYPES.ociManifest,
    'content-length': String(bytes.length),
  };
  const answer = await session.ask(await session.url(`${repository}/manifests/${tag}`), {
    method: 'PUT',
    headers,
    body: bytes,
  });
  await requireStatus(session, answer, [200, 201, 202], `manifests/${tag}`);
}

async function retrying(plan: PushPlan, blob: Blob, upload: Upload): Promise<void> {
  let furthest = 0;
  for (let attempt = 1; ; attempt += 1) {
    try {
      await upload.run();
      return;
    } catch (error) {
      plan.signal?.throwIfAborted();
      if (upload.sentBytes > furthest) attempt = 1;
      furthest = Math.max(furthest, upload.sentBytes);
      if (!hasCode(error, 'unavailable') || attempt >= ATTEMPTS_MAX) throw error;
      plan.log.warn({ blob: blob.digest, attempt, reason: error.message }, 'upload broken, going on');
      await delay(RETRY_DELAY_MS * attempt, undefined, { signal: plan.signal });
    }
  }
}

/** One blob on its way; may be run again after a failure. */
class Upload {
  readonly #plan: PushPlan;
  readonly #blob: Blob;
  #location: URL | undefined;
  /** What the registry has of it. */
  sentBytes = 0;

  constructor(plan: PushPlan, blob: Blob) {
    this.#plan = plan;
    this.#blob = blob;
  }

  async run(): Promise<void> {
    if (this.#location === undefined) {
      if (await this.#isThere()) return this.#report('Layer already exists');
      const from = await this.#begin();
      if (from !== undefined) return this.#report(`Mounted from ${from}`);
    } else await this.#lookUp();
    this.#report('Pushing');
    if (this.#blob.size > PIECE_BYTES) await this.#sendPieces();
    await this.#finish();
    this.#report('Pushed');
  }

  async #isThere(): Promise<boolean> {
    const { session, repository } = this.#plan;
    const url = await session.url(`${repository}/blobs/${this.#blob.digest}`);
    const answer = await session.ask(url, { method: 'HEAD', headers: {} });
    answer.response.resume();
    const { statusCode = 0 } = answer.response;
    if (statusCode === 200) return true;
    if (statusCode !== 404 && statusCode !== 403)
      throw strangeStatus(url, `blobs/${this.#blob.digest}`, statusCode, 'looking for a blob');
    return false;
  }

  /** Returns the repository that it was mounted from; else there is a location to send it to. */
  async #begin(): Promise<string | undefined> {
    const { session, repository, otherRepository } = this.#plan;
    const url = await session.url(`${repository}/blobs/uploads/`);
    const from = otherRepository(this.#blob.digest);
    if (from !== undefined && (await this.#mount(url, from))) return from;
    if (this.#location === undefined) {
      const answer = await this.#ask(url, { method: 'POST', headers: { 'content-length': '0' } });
      await requireStatus(session, answer, [202], 'blobs/uploads/');
      this.#follow(answer);
    }
    return undefined;
  }

  async #mount(uploads: URL, from: string): Promise<boolean> {
    const url = new URL(uploads);
    url.searchParams.set('mount', this.#blob.digest);
    url.searchParams.set('from', from);
    try {
      const answer = await this.#ask(url, { method: 'POST', headers: { 'content-length': '0' } });
      answer.response.resume();
      if (answer.response.statusCode === 201) return true;
      // Not to be had from there: the upload has begun instead.
      if (answer.response.statusCode === 202) this.#follow(answer);
      return false;
    } catch (error) {
      // Who may write here may not read there.
      if (hasCode(error, 'permission-denied')) return false;
      throw error;
    }
  }

  /** Where a broken upload stands. A registry that has forgotten it is asked for a new one. */
  async #lookUp(): Promise<void> {
    const answer = await this.#ask(this.#location as URL, { headers: {} });
    answer.response.resume();
    if (answer.response.statusCode === 204 || answer.response.statusCode === 202) {
      this.sentBytes = receivedBytes(answer);
      this.#follow(answer);
      return;
    }
    this.#location = undefined;
    this.sentBytes = 0;
    await this.#begin();
  }

  async #sendPieces(): Promise<void> {
    const { digest, size } = this.#blob;
    while (this.sentBytes < size) {
      const start = this.sentBytes;
      const length = Math.min(PIECE_BYTES, size - start);
      const answer = await this.#ask(this.#location as URL, {
        method: 'PATCH',
        headers: {
          'content-type': 'application/octet-stream',
          'content-length': String(length),
          'content-range': `${start}-${start + length - 1}`,
        },
        body: this.#plan.blobs.read(digest, { offset: start, size: length }),
      });
      await requireStatus(this.#plan.session, answer, [202], 'upload');
      this.#follow(answer);
      this.sentBytes = start + length;
      this.#report('Pushing');
    }
  }

  /** What is left, and the digest that all of it has. */
  async #finish(): Promise<void> {
    const { digest, size } = this.#blob;
    const url = new URL(this.#location as URL);
    url.searchParams.set('digest', digest);
    const rest = this.sentBytes >= size ? 0 : size - this.sentBytes;
    const answer = await this.#ask(url, {
      method: 'PUT',
      headers: { 'content-type': 'application/octet-stream', 'content-length': String(rest) },
      ...(rest > 0 && { body: this.#plan.blobs.read(digest, { offset: this.sentBytes, size: rest }) }),
    });
    await requireStatus(this.#plan.session, answer, [201, 204], 'upload');
    this.sentBytes = size;
  }

  #ask(url: URL, request: RequestParts): Promise<Answer> {
    return this.#plan.session.ask(url, request);
  }

  #follow({ url, response }: Answer): void {
    const { location } = response.headers;
    if (location !== undefined) this.#location = addressIn(location, url);
    if (this.#location === undefined)
      throw new SwarmError('failed-precondition', `${url.host} does not say where to send a blob`);
  }

  #report(status: string): void {
    const { digest, size } = this.#blob;
    this.#plan.report({ id: digest, status, currentBytes: this.sentBytes, totalBytes: size });
  }
}

/** "Range: 0-99" means that a hundred bytes are there. */
function receivedBytes({ response }: Answer): number {
  const last = /^(?:bytes=)?0-(\d+)$/.exec(response.headers.range ?? '')?.[1];
  // "0-0" is said for nothing as well as for one byte.
  return last === undefined || last === '0' ? 0 : Number(last) + 1;
}

/** Reads the answer to its end. Throws for every other status. */
async function requireStatus(
  session: RegistrySession,
  answer: Answer,
  expected: readonly number[],
  path: string,
): Promise<void> {
  const { statusCode = 0 } = answer.response;
  if (expected.includes(statusCode)) {
    answer.response.resume();
    return;
  }
  const text = (await errorText(answer)) || `status ${statusCode}`;
  if (statusCode === 403) throw session.denied(answer.url.host, text);
  throw strangeStatus(answer.url, path, statusCode, text);
}
