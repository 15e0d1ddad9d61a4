// One HTTP exchange with a registry: a request, its head, and a body that fails when it stalls. Where others send us is
// looked at before anything is sent there.

import dns from 'node:dns';
import http from 'node:http';
import https from 'node:https';
import net from 'node:net';
import { Readable } from 'node:stream';
import tls from 'node:tls';
import { SwarmError } from '../../../core/errors.ts';
import { collect } from './blob-store.ts';
import { forbiddenAddress, isInsecureHost, isLoopback, type RegistrySettings } from './registry-settings.ts';

export interface HttpRequest {
  readonly method?: 'GET' | 'HEAD' | 'POST' | 'PUT' | 'PATCH';
  readonly headers: Readonly<Record<string, string>>;
  /** Its length has to be in the headers. */
  readonly body?: AsyncIterable<Uint8Array> | Uint8Array;
  readonly signal?: AbortSignal | undefined;
  /** The host that sent us here; absent: an operator did. */
  readonly sender?: string;
}

// A document of 4 MiB at the speed of a bad telephone line; without it, a byte now and then would do.
const DOCUMENT_LIMIT_MS = 120_000;

/** Connections to registries, kept open between requests. */
export class HttpConnections implements Disposable {
  readonly settings: RegistrySettings;
  readonly #plain = new http.Agent({ keepAlive: true, maxSockets: 8 });
  readonly #secure = new Map<string, https.Agent>();
  readonly #stallTimeoutMs: number;

  constructor(settings: RegistrySettings, stallTimeoutMs: number) {
    this.settings = settings;
    this.#stallTimeoutMs = stallTimeoutMs;
  }

  [Symbol.dispose](): void {
    for (const agent of [this.#plain, ...this.#secure.values()]) agent.destroy();
  }

  /**
   * Resolves with the head. `unavailable`, naming the host, when nothing arrives for too long; `permission-denied` when
   * the sender sends us where it may not.
   */
  request(url: URL, request: HttpRequest): Promise<http.IncomingMessage> {
    const { promise, resolve, reject } = Promise.withResolvers<http.IncomingMessage>();
    const { method = 'GET', headers, signal, sender, body } = request;
    const forbidden = this.#forbidden(url, sender);
    if (forbidden !== undefined) return Promise.reject(forbidden);
    const settings = {
      method,
      headers,
      ...(signal && { signal }),
      ...(sender !== undefined && { lookup: guardedLookup(url, sender) }),
    };
    const sent =
      url.protocol === 'http:'
        ? http.request(url, { ...settings, agent: this.#plain })
        : https.request(url, { ...settings, agent: this.#secureAgent(url.host) });
    const stalled = () =>
      new SwarmError('unavailable', `${url.host} sent nothing for ${this.#stallTimeoutMs / 1000} s`);
    sent.setTimeout(this.#stallTimeoutMs, () => sent.destroy(stalled()));
    sent.on('response', (response) => {
      // A request's timeout no longer reports once the body flows.
      response.setTimeout(this.#stallTimeoutMs, () => response.destroy(stalled()));
      resolve(response);
    });
    sent.on('error', (error) => reject(signal?.aborted ? signal.reason : failure(url, error)));
    if (body === undefined || body instanceof Uint8Array) sent.end(body);
    else
      Readable.from(body, { objectMode: false })
        .on('error', (error) => sent.destroy(error))
        .pipe(sent);
    return promise;
  }

  /** What of an address can be seen before it is looked up. */
  #forbidden(url: URL, sender: string | undefined): SwarmError | undefined {
    if (url.protocol !== 'https:' && url.protocol !== 'http:')
      return new SwarmError('permission-denied', `${sender ?? url.host}: ${url.protocol} is not spoken here`);
    if (url.protocol === 'http:' && !isInsecureHost(this.settings, url.host))
      return new SwarmError(
        'permission-denied',
        sender === undefined
          ? `${url.host} is not listed as an insecure registry: plain HTTP is not spoken to it`
          : `${sender} sends us to http://${url.host}, which is not listed as an insecure registry`,
      );
    const host = url.hostname.replace(/^\[(.*)\]$/, '$1');
    if (sender === undefined || net.isIP(host) === 0) return undefined;
    const reason = forbiddenAddress(host, isLoopback(sender));
    return reason === undefined ? undefined : misled(sender, url, reason);
  }

  #secureAgent(host: string): https.Agent {
    let agent = this.#secure.get(host);
    if (agent === undefined) {
      const authority = this.settings.authorities[host];
      agent = new https.Agent({
        keepAlive: true,
        maxSockets: 8,
        rejectUnauthorized: !isInsecureHost(this.settings, host),
        ...(authority !== undefined && { ca: [...tls.rootCertificates, authority] }),
      });
      this.#secure.set(host, agent);
    }
    return agent;
  }
}

function misled(sender: string, url: URL, reason: string): SwarmError {
  return new SwarmError('permission-denied', `${sender} sends us to ${url.host}: ${reason}`);
}

/** Names are looked at by what they resolve to, in the same look-up that the connection uses. */
function guardedLookup(url: URL, sender: string): net.LookupFunction {
  return (hostname, options, callback) =>
    dns.lookup(hostname, { ...options, all: true }, (error, addresses) => {
      if (error !== null) return callback(error, '', 4);
      for (const { address } of addresses) {
        const reason = forbiddenAddress(address, isLoopback(sender));
        if (reason !== undefined) return callback(misled(sender, url, reason), '', 4);
      }
      if (options.all === true) return callback(null, addresses);
      callback(null, addresses[0]?.address ?? '', addresses[0]?.family ?? 4);
    });
}

function failure(url: URL, error: Error): SwarmError {
  if (error instanceof SwarmError) return error;
  const isTls = /SSL|TLS|certificate|self.signed/i.test(
    `${(error as NodeJS.ErrnoException).code} ${error.message}`,
  );
  return new SwarmError('unavailable', `${url.host}: ${error.message}`, {
    cause: error,
    ...(isTls && {
      hint: `Name ${url.host} in "registries" of the node's configuration: with its authority, or as insecure.`,
    }),
  });
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

/** The whole body of a document: bounded in size and time. */
export async function documentOf(
  url: URL,
  response: http.IncomingMessage,
  bytesMax: number,
): Promise<Buffer> {
  const slow = () =>
    response.destroy(
      new SwarmError(
        'unavailable',
        `${url.host} takes longer than ${DOCUMENT_LIMIT_MS / 1000} s for a document`,
      ),
    );
  const timer = setTimeout(slow, DOCUMENT_LIMIT_MS);
  try {
    return await collect(bodyOf(url, response), bytesMax);
  } finally {
    clearTimeout(timer);
  }
}
