// Client of the registry API v2, for one repository: manifests and blobs, with whatever authorization the registry
// asks for. Plain HTTP goes only to registries named insecure and to this machine.

import type { IncomingMessage } from 'node:http';
import { hasCode, SwarmError } from '../../../core/errors.ts';
import type { ImageReference } from '../../../core/image-reference.ts';
import type { RegistryCredentials } from '../engine.ts';
import { collect } from './blob-store.ts';
import { bodyOf, type HttpConnections } from './http.ts';
import { DOCUMENT_BYTES_MAX, digestOf, MEDIA_TYPES, parseDocument } from './manifest.ts';
import { basicAuthorization, isLoopback, parseChallenge, tokenUrl } from './registry-auth.ts';

export interface RegistryOptions {
  readonly connections: HttpConnections;
  /** Registries that may be spoken to without TLS or with an unknown certificate. */
  readonly insecureRegistries: readonly string[];
  readonly reference: ImageReference;
  readonly credentials?: RegistryCredentials | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface FetchedManifest {
  readonly bytes: Buffer;
  readonly mediaType: string;
  readonly digest: string;
}

const DOCKER_HUB = 'docker.io';
const DOCKER_HUB_HOST = 'registry-1.docker.io';
const ACCEPT = [
  MEDIA_TYPES.ociIndex,
  MEDIA_TYPES.dockerIndex,
  MEDIA_TYPES.ociManifest,
  MEDIA_TYPES.dockerManifest,
].join(', ');
const REDIRECTS_MAX = 5;
const REDIRECT_STATUSES: readonly (number | undefined)[] = [301, 302, 303, 307, 308];

interface Answer {
  readonly url: URL;
  readonly response: IncomingMessage;
}

export class RegistryClient {
  readonly #options: RegistryOptions;
  readonly #isInsecure: boolean;
  #base: URL | undefined;
  #authorization: string | undefined;

  constructor(options: RegistryOptions) {
    this.#options = options;
    const { registry } = options.reference;
    this.#isInsecure = options.insecureRegistries.includes(registry) || isLoopback(registry);
  }

  /** The document a tag or digest names, checked against the digest. */
  async manifest(tagOrDigest: string): Promise<FetchedManifest> {
    const { url, response } = await this.#get(`manifests/${tagOrDigest}`, { accept: ACCEPT });
    const bytes = await collect(bodyOf(url, response), DOCUMENT_BYTES_MAX);
    const digest = digestOf(bytes);
    if (tagOrDigest.startsWith('sha256:') && digest !== tagOrDigest)
      throw new SwarmError('failed-precondition', `${url.host} sent ${digest} for manifest ${tagOrDigest}`);
    const header = response.headers['content-type']?.split(';')[0]?.trim();
    const own = parseDocument(bytes, 'manifest')['mediaType'];
    return { bytes, digest, mediaType: typeof own === 'string' && own !== '' ? own : (header ?? '') };
  }

  /** The bytes of a blob from an offset on. The digest is checked by whoever stores them. */
  async *blob(digest: string, offset: number): AsyncIterable<Uint8Array> {
    const headers: Record<string, string> = offset > 0 ? { range: `bytes=${offset}-` } : {};
    const { url, response } = await this.#get(`blobs/${digest}`, headers);
    // A server without ranges sends everything again.
    let toSkip = response.statusCode === 206 ? 0 : offset;
    for await (const part of bodyOf(url, response)) {
      if (toSkip >= part.length) toSkip -= part.length;
      else {
        yield toSkip > 0 ? part.subarray(toSkip) : part;
        toSkip = 0;
      }
    }
  }

  async #get(path: string, headers: Record<string, string>): Promise<Answer> {
    const { reference } = this.#options;
    const url = new URL(`/v2/${reference.repository}/${path}`, await this.#baseUrl());
    let answer = await this.#follow(url, headers, this.#authorization);
    if (answer.response.statusCode === 401) {
      answer.response.resume();
      this.#authorization = await this.#authorize(answer);
      answer = await this.#follow(url, headers, this.#authorization);
    }
    const status = answer.response.statusCode ?? 0;
    if (status >= 200 && status < 300) return answer;
    throw refusal(this.#options.reference, path, answer.url, status, await errorText(answer));
  }

  /** Follows redirects; the registry's authorization stays with the registry. */
  async #follow(start: URL, headers: Record<string, string>, authorization?: string): Promise<Answer> {
    let url = start;
    for (let hop = 0; hop <= REDIRECTS_MAX; hop += 1) {
      const isHome = url.origin === start.origin;
      const response = await this.#options.connections.get(url, {
        headers: { ...headers, ...(isHome && authorization !== undefined ? { authorization } : undefined) },
        signal: this.#options.signal,
        isInsecure: this.#isInsecure,
      });
      const { location } = response.headers;
      if (!REDIRECT_STATUSES.includes(response.statusCode) || location === undefined)
        return { url, response };
      response.resume();
      const next = new URL(location, url);
      if (next.protocol !== 'https:' && !(next.protocol === 'http:' && this.#isInsecure))
        throw new SwarmError('permission-denied', `${url.host} redirects to ${next.protocol}//${next.host}`);
      url = next;
    }
    throw new SwarmError('unavailable', `${start.host} redirects more than ${REDIRECTS_MAX} times`);
  }

  async #baseUrl(): Promise<URL> {
    this.#base ??= await this.#chooseBase();
    return this.#base;
  }

  /** TLS where it is spoken; else, for insecure registries only, plain HTTP. */
  async #chooseBase(): Promise<URL> {
    const { registry } = this.#options.reference;
    const host = registry === DOCKER_HUB ? DOCKER_HUB_HOST : registry;
    const secure = new URL(`https://${host}`);
    if (!this.#isInsecure) return secure;
    try {
      const { connections, signal } = this.#options;
      const response = await connections.get(new URL('/v2/', secure), {
        headers: {},
        signal,
        isInsecure: true,
      });
      response.resume();
      return secure;
    } catch (error) {
      if (!hasCode(error, 'unavailable')) throw error;
      return new URL(`http://${host}`);
    }
  }

  async #authorize({ url, response }: Answer): Promise<string> {
    const { credentials, reference } = this.#options;
    const challenge = parseChallenge(response.headers['www-authenticate'] ?? '');
    if (challenge === undefined)
      throw new SwarmError('permission-denied', `${url.host} asks for an unknown kind of authorization`);
    if (challenge.scheme === 'basic') {
      if (credentials === undefined) throw denied(reference, url.host, 'no credentials given');
      return basicAuthorization(credentials.username, credentials.password);
    }
    const realm = tokenUrl(challenge, `repository:${reference.repository}:pull`);
    if (realm.protocol !== 'https:' && !this.#isInsecure)
      throw new SwarmError(
        'permission-denied',
        `${url.host} sends its clients to ${realm.origin} for a token`,
      );
    return `Bearer ${await this.#token(realm)}`;
  }

  async #token(realm: URL): Promise<string> {
    const { credentials, connections, signal, reference } = this.#options;
    const authorization = credentials && basicAuthorization(credentials.username, credentials.password);
    const headers = authorization === undefined ? {} : { authorization };
    const response = await connections.get(realm, { headers, signal, isInsecure: this.#isInsecure });
    const body = await collect(bodyOf(realm, response), DOCUMENT_BYTES_MAX);
    if (response.statusCode !== 200)
      throw denied(reference, realm.host, `token refused with status ${response.statusCode}`);
    const json = parseDocument(body, 'token');
    const token = json['token'] ?? json['access_token'];
    if (typeof token !== 'string') throw denied(reference, realm.host, 'answer without a token');
    return token;
  }
}

function denied(reference: ImageReference, host: string, reason: string): SwarmError {
  return new SwarmError(
    'permission-denied',
    `pull access denied for ${reference.familiar}, repository does not exist or needs credentials: ${host}: ${reason}`,
  );
}

function refusal(
  reference: ImageReference,
  path: string,
  url: URL,
  status: number,
  text: string,
): SwarmError {
  const reason = text === '' ? `status ${status}` : text;
  if (status === 401 || status === 403) return denied(reference, url.host, reason);
  if (status === 404 && path.startsWith('manifests/'))
    return new SwarmError('not-found', `manifest for ${reference.familiar} not found: ${reason}`);
  if (status === 404) return new SwarmError('not-found', `${url.host} does not have ${path}: ${reason}`);
  if (status === 429 || status >= 500)
    return new SwarmError('unavailable', `${url.host} answers ${path} with status ${status}: ${reason}`);
  return new SwarmError(
    'failed-precondition',
    `${url.host} answers ${path} with status ${status}: ${reason}`,
  );
}

/** The registry's own words, when its error document has any. */
async function errorText({ url, response }: Answer): Promise<string> {
  try {
    const json = parseDocument(await collect(bodyOf(url, response), 64 * 1024), 'error');
    const errors = Array.isArray(json['errors']) ? json['errors'] : [];
    const messages = errors.map((entry: { message?: unknown }) => String(entry?.message ?? ''));
    return messages.filter((text) => text !== '').join('; ');
  } catch (error) {
    if (error instanceof SwarmError) return '';
    throw error;
  }
}
