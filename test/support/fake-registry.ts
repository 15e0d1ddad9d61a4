// A registry in this process, which can ask for credentials, redirect, stall and lie. Real registries are used where
// that is not needed.

import { createHash } from 'node:crypto';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { DemoImage } from '../../deploy/demo-image.ts';

export interface Exchange {
  readonly path: string;
  readonly headers: IncomingMessage['headers'];
}

/** Answers a blob request in place of the registry; false leaves it to the registry. */
export type BlobFault = (answer: ServerResponse, bytes: Buffer, offset: number) => boolean;

export interface FakeRegistryOptions {
  readonly auth?: 'basic' | 'bearer';
  readonly username?: string;
  readonly password?: string;
  /** Blobs are served elsewhere. */
  readonly blobRedirect?: (digest: string) => string;
  readonly onBlob?: BlobFault;
  readonly ignoresRange?: boolean;
}

const MANIFEST_TYPE = 'application/vnd.oci.image.manifest.v1+json';

export class FakeRegistry implements AsyncDisposable {
  readonly exchanges: Exchange[] = [];
  readonly manifests = new Map<string, { bytes: Buffer; type: string }>();
  readonly blobs = new Map<string, Buffer>();
  readonly #options: FakeRegistryOptions;
  readonly #server: Server;

  private constructor(options: FakeRegistryOptions) {
    this.#options = options;
    this.#server = createServer((request, answer) => this.#answer(request, answer));
  }

  static async start(options: FakeRegistryOptions = {}): Promise<FakeRegistry> {
    const registry = new FakeRegistry(options);
    await new Promise<void>((resolve) => registry.#server.listen(0, '127.0.0.1', resolve));
    return registry;
  }

  get host(): string {
    return `127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  /** Serves an image under a tag and its digest. */
  add(tag: string, image: Pick<DemoImage, 'manifest' | 'blobs'>): string {
    const digest = this.addManifest(tag, image.manifest, MANIFEST_TYPE);
    for (const [key, bytes] of image.blobs) this.blobs.set(key, bytes);
    return digest;
  }

  addManifest(tag: string, bytes: Buffer, type: string): string {
    const digest = `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
    this.manifests.set(digest, { bytes, type }).set(tag, { bytes, type });
    return digest;
  }

  #answer(request: IncomingMessage, answer: ServerResponse): void {
    const url = new URL(request.url ?? '/', `http://${this.host}`);
    this.exchanges.push({ path: url.pathname, headers: request.headers });
    const match = /^\/v2\/.+\/(manifests|blobs)\/(.+)$/.exec(url.pathname);
    const key = match?.[2] ?? '';
    if (url.pathname === '/token') this.#token(request, answer);
    else if (!this.#isAuthorized(request)) this.#challenge(answer);
    else if (match?.[1] === 'manifests') this.#manifest(answer, key);
    else if (match?.[1] === 'blobs') this.#blob(request, answer, key);
    else answer.end('{}');
  }

  #manifest(answer: ServerResponse, key: string): void {
    const manifest = this.manifests.get(key);
    if (manifest === undefined) {
      fail(answer, 404, 'MANIFEST_UNKNOWN', 'manifest unknown');
      return;
    }
    answer.setHeader('content-type', manifest.type);
    answer.end(manifest.bytes);
  }

  #blob(request: IncomingMessage, answer: ServerResponse, digest: string): void {
    const bytes = this.blobs.get(digest);
    const elsewhere = this.#options.blobRedirect?.(digest);
    const range = this.#options.ignoresRange
      ? undefined
      : /^bytes=(\d+)-$/.exec(request.headers.range ?? '')?.[1];
    const offset = Number(range ?? 0);
    if (bytes === undefined) fail(answer, 404, 'BLOB_UNKNOWN', 'blob unknown');
    else if (elsewhere !== undefined) answer.writeHead(307, { location: elsewhere }).end();
    else if (!this.#options.onBlob?.(answer, bytes, offset)) {
      answer.writeHead(range === undefined ? 200 : 206, { 'content-length': bytes.length - offset });
      answer.end(bytes.subarray(offset));
    }
  }

  #credentials(): string {
    const { username = 'user', password = 'secret' } = this.#options;
    return `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`;
  }

  #isAuthorized({ headers }: IncomingMessage): boolean {
    if (this.#options.auth === undefined) return true;
    return (
      headers.authorization === (this.#options.auth === 'basic' ? this.#credentials() : 'Bearer good-token')
    );
  }

  #challenge(answer: ServerResponse): void {
    const bearer = `Bearer realm="http://${this.host}/token",service="fake",scope="repository:app:pull"`;
    answer.setHeader('www-authenticate', this.#options.auth === 'basic' ? 'Basic realm="fake"' : bearer);
    fail(answer, 401, 'UNAUTHORIZED', 'authentication required');
  }

  #token({ headers }: IncomingMessage, answer: ServerResponse): void {
    if (headers.authorization === this.#credentials())
      answer.end(JSON.stringify({ token: 'good-token', expires_in: 60 }));
    else fail(answer, 401, 'DENIED', 'bad password');
  }
}

function fail(answer: ServerResponse, status: number, code: string, message: string): void {
  answer.writeHead(status, { 'content-type': 'application/json' });
  answer.end(JSON.stringify({ errors: [{ code, message }] }));
}
