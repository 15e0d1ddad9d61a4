// Client of the registry API v2, for one repository: manifests and blobs, from a mirror where there is one, else from the
// registry itself. Credentials are the registry's: a mirror never sees them.

import { SwarmError } from '../../../core/errors.ts';
import type { ImageReference } from '../../../core/image-reference.ts';
import type { Logger } from '../../../rpc/logger.ts';
import type { RegistryCredentials } from '../engine.ts';
import { bodyOf, documentOf, type HttpConnections } from './http.ts';
import { DOCUMENT_BYTES_MAX, digestOf, MEDIA_TYPES, parseDocument } from './manifest.ts';
import { type Answer, errorText, RegistrySession } from './registry-session.ts';

export interface RegistryOptions {
  readonly connections: HttpConnections;
  readonly reference: ImageReference;
  readonly credentials?: RegistryCredentials | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly log: Logger;
}

export interface FetchedManifest {
  readonly bytes: Buffer;
  readonly mediaType: string;
  readonly digest: string;
}

const DOCKER_HUB = 'docker.io';
const DOCKER_HUB_HOST = 'registry-1.docker.io';
const TAGS_PER_PAGE = 100;
// Nobody wants to pull so many.
const TAGS_MAX = 10_000;
const ACCEPT = [
  MEDIA_TYPES.ociIndex,
  MEDIA_TYPES.dockerIndex,
  MEDIA_TYPES.ociManifest,
  MEDIA_TYPES.dockerManifest,
].join(', ');

/** Where a registry answers. */
export function registryHost(registry: string): string {
  return registry === DOCKER_HUB ? DOCKER_HUB_HOST : registry;
}

export class RegistryClient {
  readonly #options: RegistryOptions;
  /** Mirrors in order, the registry last. A mirror that fails is not asked again by this client. */
  readonly #sessions: RegistrySession[];
  readonly #upstream: RegistrySession;
  readonly #failures: string[] = [];

  constructor(options: RegistryOptions) {
    this.#options = options;
    const { reference, connections, credentials, signal } = options;
    const common = {
      connections,
      signal,
      scope: `repository:${reference.repository}:pull`,
      denied: `pull access denied for ${reference.familiar}, repository does not exist or needs credentials`,
    };
    const mirrors = connections.settings.mirrors[reference.registry] ?? [];
    const address = registryHost(reference.registry);
    this.#upstream = new RegistrySession({ ...common, address, credentials });
    this.#sessions = [
      ...mirrors.map((mirror) => new RegistrySession({ ...common, address: mirror })),
      this.#upstream,
    ];
  }

  /** The document a tag or digest names, checked against the digest. */
  manifest(tagOrDigest: string): Promise<FetchedManifest> {
    return this.#anywhere(async (session) => {
      const { url, response } = await this.#get(session, `manifests/${tagOrDigest}`, { accept: ACCEPT });
      const bytes = await documentOf(url, response, DOCUMENT_BYTES_MAX);
      const digest = digestOf(bytes);
      if (tagOrDigest.startsWith('sha256:') && digest !== tagOrDigest)
        throw new SwarmError('failed-precondition', `${url.host} sent ${digest} for manifest ${tagOrDigest}`);
      const header = response.headers['content-type']?.split(';')[0]?.trim();
      const own = parseDocument(bytes, 'manifest')['mediaType'];
      return { bytes, digest, mediaType: typeof own === 'string' && own !== '' ? own : (header ?? '') };
    });
  }

  /** The bytes of a blob from an offset on. The digest is checked by whoever stores them. */
  async *blob(digest: string, offset: number): AsyncIterable<Uint8Array> {
    const headers: Record<string, string> = offset > 0 ? { range: `bytes=${offset}-` } : {};
    const { url, response } = await this.#anywhere((session) =>
      this.#get(session, `blobs/${digest}`, headers),
    );
    // A server without ranges sends everything again.
    let toSkip =
      response.statusCode === 206 ? startOf(response.headers['content-range'], offset, url) : offset;
    for await (const part of bodyOf(url, response)) {
      if (toSkip >= part.length) toSkip -= part.length;
      else {
        yield toSkip > 0 ? part.subarray(toSkip) : part;
        toSkip = 0;
      }
    }
  }

  /** All tags of the repository, as the registry itself has them. */
  async tags(): Promise<string[]> {
    const tags: string[] = [];
    let path: string | undefined = `tags/list?n=${TAGS_PER_PAGE}`;
    while (path !== undefined) {
      const { url, response }: Answer = await this.#get(this.#upstream, path, {});
      const page = parseDocument(await documentOf(url, response, DOCUMENT_BYTES_MAX), 'list of tags')['tags'];
      const names = (Array.isArray(page) ? page : []).filter((tag) => typeof tag === 'string');
      tags.push(...names);
      if (tags.length > TAGS_MAX)
        throw new SwarmError('resource-exhausted', `${url.host} lists more than ${TAGS_MAX} tags`);
      // Of the registry's own link only the place where the next page begins is taken.
      const last = nextPage(response.headers['link']);
      path = names.length > 0 && last !== undefined ? `tags/list?n=${TAGS_PER_PAGE}&last=${last}` : undefined;
    }
    return tags;
  }

  /** Who is asked next; for `leave`. */
  get origin(): string {
    return (this.#sessions[0] as RegistrySession).address;
  }

  /** This origin lies or breaks off: true when it was a mirror, and another one can be asked. */
  leave(origin: string, reason: string): boolean {
    const first = this.#sessions[0] as RegistrySession;
    const isMirror = origin !== this.#upstream.address;
    // Another download may have left it already.
    if (isMirror && first.address === origin) this.#dropMirror(first, reason);
    return isMirror;
  }

  async #anywhere<T>(ask: (session: RegistrySession) => Promise<T>): Promise<T> {
    for (;;) {
      const session = this.#sessions[0] as RegistrySession;
      try {
        return await ask(session);
      } catch (error) {
        this.#options.signal?.throwIfAborted();
        if (!(error instanceof SwarmError)) throw error;
        if (session === this.#upstream) throw this.#withMirrors(error);
        // Another request may have left it meanwhile.
        if (this.#sessions[0] === session) this.#dropMirror(session, error.message);
      }
    }
  }

  #dropMirror(session: RegistrySession, reason: string): void {
    this.#sessions.shift();
    this.#failures.push(`mirror ${session.address}: ${reason}`);
    this.#options.log.warn({ mirror: session.address, reason }, 'mirror left out');
  }

  #withMirrors(error: SwarmError): SwarmError {
    if (this.#failures.length === 0) return error;
    const { code, message, hint } = error;
    const told = [message, ...this.#failures].join('; ');
    return new SwarmError(code, told, { cause: error, ...(hint !== undefined && { hint }) });
  }

  async #get(session: RegistrySession, path: string, headers: Record<string, string>): Promise<Answer> {
    const { reference } = this.#options;
    const answer = await session.ask(await session.url(`${reference.repository}/${path}`), { headers });
    const status = answer.response.statusCode ?? 0;
    if (status >= 200 && status < 300) return answer;
    throw refusal(session, { reference, path, url: answer.url, status, text: await errorText(answer) });
  }
}

/** `<…?last=TAG…>; rel="next"` says that there are more tags behind this one. */
function nextPage(link: string | string[] | undefined): string | undefined {
  const [, last] = /<[^>]*[?&]last=([^&>]+)[^>]*>;\s*rel="?next/.exec(String(link ?? '')) ?? [];
  return last;
}

/** How much of a part has to be skipped: some servers send more than was asked for. */
function startOf(range: string | undefined, wanted: number, url: URL): number {
  const start = Number(/^bytes (\d+)-/.exec(range ?? '')?.[1] ?? wanted);
  if (start > wanted)
    throw new SwarmError('unavailable', `${url.host} sends bytes from ${start} on, not from ${wanted}`);
  return wanted - start;
}

interface Refusal {
  readonly reference: ImageReference;
  readonly path: string;
  readonly url: URL;
  readonly status: number;
  readonly text: string;
}

/** What a status means that is no success. */
function refusal(session: RegistrySession, { reference, path, url, status, text }: Refusal): SwarmError {
  const reason = text === '' ? `status ${status}` : text;
  if (status === 403) return session.denied(url.host, reason);
  if (status === 404 && path.startsWith('tags/'))
    return new SwarmError('not-found', `repository of ${reference.familiar} not found: ${reason}`);
  if (status === 404 && path.startsWith('manifests/'))
    return new SwarmError('not-found', `manifest for ${reference.familiar} not found: ${reason}`);
  if (status === 404) return new SwarmError('not-found', `${url.host} does not have ${path}: ${reason}`);
  return strangeStatus(url, path, status, reason);
}

/** `unavailable` when asking again may help. */
export function strangeStatus(url: URL, path: string, status: number, reason: string): SwarmError {
  const isTransient = status === 429 || status === 408 || status >= 500;
  return new SwarmError(
    isTransient ? 'unavailable' : 'failed-precondition',
    `${url.host} answers ${path} with status ${status}: ${reason}`,
  );
}
