// Talks to one registry or mirror about one repository, with whatever authorization it asks for. Its authorization stays
// with it, wherever it redirects us.

import type { IncomingMessage } from 'node:http';
import { hasCode, SwarmError } from '../../../core/errors.ts';
import type { RegistryCredentials } from '../engine.ts';
import { documentOf, type HttpConnections, type HttpRequest } from './http.ts';
import { DOCUMENT_BYTES_MAX, parseDocument } from './manifest.ts';
import { basicAuthorization, parseChallenge, tokenUrl } from './registry-auth.ts';
import { isInsecureHost } from './registry-settings.ts';

export interface SessionOptions {
  readonly connections: HttpConnections;
  /** host[:port]; or a mirror's URL. */
  readonly address: string;
  /** What is asked for when the registry does not say: "repository:team/app:pull"; empty: nothing but to be let in. */
  readonly scope: string;
  /** What it is about, for messages: "pull access denied for team/app". */
  readonly denied: string;
  readonly credentials?: RegistryCredentials | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface Answer {
  readonly url: URL;
  readonly response: IncomingMessage;
}

export type RequestParts = Pick<HttpRequest, 'method' | 'headers' | 'body'>;

const REDIRECTS_MAX = 5;
const REDIRECT_STATUSES: readonly (number | undefined)[] = [301, 302, 303, 307, 308];
// As Docker's client introduces itself to token servers: they keep a list.
const CLIENT_ID = 'tsswarm';

export class RegistrySession {
  readonly #options: SessionOptions;
  #base: Promise<URL> | undefined;
  #authorization: string | undefined;

  constructor(options: SessionOptions) {
    this.#options = options;
  }

  /** For messages. */
  get address(): string {
    return this.#options.address;
  }

  /** "/v2/" and this. */
  async url(path: string): Promise<URL> {
    this.#base ??= this.#chooseBase();
    return new URL(path, await this.#base);
  }

  /** An answer of any status, but never one that asks for authorization: that is `permission-denied`. */
  async ask(url: URL, request: RequestParts): Promise<Answer> {
    const home = (await this.url('')).origin;
    let answer = await this.#follow(url, home, request);
    if (answer.response.statusCode !== 401) return answer;
    const refused = await errorText(answer);
    const isFirst = this.#authorization === undefined;
    this.#authorization = await this.#authorize(answer);
    // What has been sent of a stream cannot be sent again: the caller begins anew.
    if (request.body !== undefined && !(request.body instanceof Uint8Array))
      throw isFirst
        ? new SwarmError('unavailable', `${url.host} asks for authorization`)
        : new SwarmError('unavailable', `${url.host} asks for authorization again: ${refused}`);
    answer = await this.#follow(url, home, request);
    if (answer.response.statusCode !== 401) return answer;
    throw this.denied(url.host, (await errorText(answer)) || 'its authorization is not enough');
  }

  denied(host: string, reason: string): SwarmError {
    return new SwarmError('permission-denied', `${this.#options.denied}: ${host}: ${reason}`);
  }

  async #follow(start: URL, home: string, request: RequestParts): Promise<Answer> {
    const { connections, signal } = this.#options;
    let url = start;
    let sender: string | undefined = start.origin === home ? undefined : new URL(home).host;
    for (let hop = 0; hop <= REDIRECTS_MAX; hop += 1) {
      const authorization = url.origin === home ? this.#authorization : undefined;
      const headers = { ...request.headers, ...(authorization !== undefined && { authorization }) };
      const response = await connections.request(url, {
        ...request,
        headers,
        signal,
        ...(sender !== undefined && { sender }),
      });
      const { location } = response.headers;
      if (!REDIRECT_STATUSES.includes(response.statusCode) || location === undefined)
        return { url, response };
      response.resume();
      if (request.body !== undefined)
        throw new SwarmError('failed-precondition', `${url.host} redirects an upload to ${location}`);
      sender = url.host;
      url = addressIn(location, url);
    }
    throw new SwarmError('unavailable', `${start.host} redirects more than ${REDIRECTS_MAX} times`);
  }

  /** TLS where it is spoken; else, for insecure registries only, plain HTTP. */
  async #chooseBase(): Promise<URL> {
    const { address, connections, signal } = this.#options;
    if (address.includes('://')) return new URL(`${address.replace(/\/+$/, '')}/v2/`);
    const secure = new URL(`https://${address}/v2/`);
    if (!isInsecureHost(connections.settings, address)) return secure;
    try {
      const response = await connections.request(secure, { headers: {}, signal });
      response.resume();
      return secure;
    } catch (error) {
      if (!hasCode(error, 'unavailable')) throw error;
      return new URL(`http://${address}/v2/`);
    }
  }

  async #authorize({ url, response }: Answer): Promise<string> {
    const { credentials, connections, scope } = this.#options;
    const challenge = parseChallenge(response.headers['www-authenticate'] ?? '');
    if (challenge === undefined) throw this.denied(url.host, 'asks for an unknown kind of authorization');
    if (challenge.scheme === 'basic') {
      if (credentials === undefined) throw this.denied(url.host, 'no credentials given');
      return basicAuthorization(credentials.username, credentials.password);
    }
    const realm = tokenUrl(challenge, scope);
    if (realm.protocol !== 'https:' && !isInsecureHost(connections.settings, realm.host))
      throw new SwarmError(
        'permission-denied',
        `${url.host} sends its clients to ${realm.origin} for a token, without TLS`,
      );
    return `Bearer ${await this.#token(realm, url.host)}`;
  }

  async #token(realm: URL, sender: string): Promise<string> {
    const { credentials, connections, signal } = this.#options;
    const { url, ...request } = tokenRequest(realm, credentials);
    const response = await connections.request(url, {
      ...request,
      signal,
      ...(realm.host !== sender && { sender }),
    });
    const body = await documentOf(realm, response, DOCUMENT_BYTES_MAX);
    if (response.statusCode !== 200)
      throw response.statusCode === 401 || response.statusCode === 403
        ? this.denied(realm.host, `token refused with status ${response.statusCode}`)
        : new SwarmError(
            'unavailable',
            `${realm.host} answers with status ${response.statusCode} to a request for a token`,
          );
    const json = parseDocument(body, 'token');
    const token = json['token'] ?? json['access_token'];
    if (typeof token !== 'string') throw this.denied(realm.host, 'answer without a token');
    return token;
  }
}

/** A plain request with the password, or OAuth2 with what stands for it: the parameters then go into the body. */
function tokenRequest(
  realm: URL,
  credentials: RegistryCredentials | undefined,
): RequestParts & { readonly url: URL } {
  if (credentials === undefined) return { url: realm, headers: {} };
  const { username, password, identityToken = '' } = credentials;
  if (identityToken === '')
    return { url: realm, headers: { authorization: basicAuthorization(username, password) } };
  const form = new URLSearchParams(realm.search);
  const url = new URL(realm);
  url.search = '';
  form.set('grant_type', 'refresh_token');
  form.set('client_id', CLIENT_ID);
  form.set('refresh_token', identityToken);
  const body = Buffer.from(form.toString());
  const headers = {
    'content-type': 'application/x-www-form-urlencoded',
    'content-length': String(body.length),
  };
  return { url, method: 'POST', headers, body };
}

/** What a Location header says. */
export function addressIn(location: string, base: URL): URL {
  if (!URL.canParse(location, base.href))
    throw new SwarmError('failed-precondition', `${base.host} redirects to what is no address`);
  return new URL(location, base);
}

/** The registry's own words, when its error document has any. */
export async function errorText({ url, response }: Answer): Promise<string> {
  try {
    const json = parseDocument(await documentOf(url, response, 64 * 1024), 'error');
    const errors = Array.isArray(json['errors']) ? json['errors'] : [];
    const messages = errors.map((entry: { message?: unknown }) => String(entry?.message ?? ''));
    return messages
      .filter((text) => text !== '')
      .join('; ')
      .slice(0, 1000);
  } catch (error) {
    if (error instanceof SwarmError) return '';
    throw error;
  }
}
