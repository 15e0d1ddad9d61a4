// One HTTP exchange with a registry: a request, its head, and a body that fails when it stalls.

import http from 'node:http';
import https from 'node:https';
import { SwarmError } from '../../../core/errors.ts';

export interface HttpOptions {
  readonly headers: Readonly<Record<string, string>>;
  readonly signal?: AbortSignal | undefined;
}

/** Connections to registries, kept open between requests. */
export class HttpConnections implements Disposable {
  readonly #plain = new http.Agent({ keepAlive: true, maxSockets: 8 });
  readonly #secure = new https.Agent({ keepAlive: true, maxSockets: 8 });
  readonly #unverified = new https.Agent({ keepAlive: true, maxSockets: 8, rejectUnauthorized: false });
  readonly #stallTimeoutMs: number;

  constructor(stallTimeoutMs: number) {
    this.#stallTimeoutMs = stallTimeoutMs;
  }

  [Symbol.dispose](): void {
    for (const agent of [this.#plain, this.#secure, this.#unverified]) agent.destroy();
  }

  /** Resolves with the head. `unavailable`, naming the host, when nothing arrives for too long. */
  get(url: URL, options: HttpOptions & { readonly isInsecure: boolean }): Promise<http.IncomingMessage> {
    const { promise, resolve, reject } = Promise.withResolvers<http.IncomingMessage>();
    const { headers, signal } = options;
    const settings = { headers, ...(signal === undefined ? undefined : { signal }) };
    const request =
      url.protocol === 'http:'
        ? http.get(url, { ...settings, agent: this.#plain })
        : https.get(url, { ...settings, agent: options.isInsecure ? this.#unverified : this.#secure });
    const stalled = () =>
      new SwarmError('unavailable', `${url.host} sent nothing for ${this.#stallTimeoutMs / 1000} s`);
    request.setTimeout(this.#stallTimeoutMs, () => request.destroy(stalled()));
    request.on('response', (response) => {
      // A request's timeout no longer reports once the body flows.
      response.setTimeout(this.#stallTimeoutMs, () => response.destroy(stalled()));
      resolve(response);
    });
    request.on('error', (error) => reject(signal?.aborted ? signal.reason : failure(url, error)));
    return promise;
  }
}

function failure(url: URL, error: Error): SwarmError {
  if (error instanceof SwarmError) return error;
  return new SwarmError('unavailable', `${url.host}: ${error.message}`, { cause: error });
}

/** The body; broken connections come out as `unavailable`, naming the host. */
export async function* bodyOf(url: URL, response: http.IncomingMessage): AsyncIterable<Uint8Array> {
  try {
    yield* response as AsyncIterable<Uint8Array>;
    if (!response.complete) throw new SwarmError('unavailable', `${url.host} broke off its answer`);
  } catch (error) {
    if (error instanceof Error && error.name === 'AbortError') throw error;
    throw failure(url, error as Error);
  }
}
