// A token server in front of a real registry: gives signed tokens for what a user asks to do, as Docker Hub does. Knows
// one user.

import { execFileSync } from 'node:child_process';
import { createPrivateKey, sign, X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { text } from 'node:stream/consumers';

export const USERNAME = 'user';
export const PASSWORD = 'open sesame';
export const IDENTITY_TOKEN = 'refresh-me';
export const SERVICE = 'the-registry';
export const ISSUER = 'the-issuer';

/** A key and a certificate of it that stands for itself, in files. */
export function selfSigned(directory: string, name: string): { certFile: string; keyFile: string } {
  const [certFile, keyFile] = [path.join(directory, `${name}.pem`), path.join(directory, `${name}.key`)];
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout', keyFile];
  const names = ['-subj', `/CN=${name}`, '-addext', 'subjectAltName=IP:127.0.0.1,DNS:localhost'];
  execFileSync('openssl', ['req', '-x509', ...key, '-out', certFile, '-days', '2', ...names], {
    stdio: 'ignore',
  });
  return { certFile, keyFile };
}

export class TokenServer implements AsyncDisposable {
  /** The scopes of all tokens that were given. */
  readonly scopes: string[] = [];
  readonly certFile: string;
  readonly #directory = mkdtempSync(path.join(tmpdir(), 'img-token-'));
  readonly #keyFile: string;
  readonly #server: Server;

  private constructor() {
    const { certFile, keyFile } = selfSigned(this.#directory, 'token');
    this.certFile = certFile;
    this.#keyFile = keyFile;
    this.#server = createServer((request, answer) => {
      this.#answer(request, answer).catch((error: Error) => answer.destroy(error));
    });
  }

  static async start(): Promise<TokenServer> {
    const server = new TokenServer();
    server.#server.listen(0, '127.0.0.1');
    await once(server.#server, 'listening');
    return server;
  }

  get realm(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}/token`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections();
    this.#server.close();
    await once(this.#server, 'close');
    rmSync(this.#directory, { recursive: true });
  }

  async #answer(request: IncomingMessage, answer: ServerResponse): Promise<void> {
    const parameters = await this.#parameters(request);
    if (!this.#isKnown(request, parameters)) answer.writeHead(401).end('{}');
    else answer.end(JSON.stringify({ token: this.#token(parameters.getAll('scope')) }));
  }

  async #parameters(request: IncomingMessage): Promise<URLSearchParams> {
    if (request.method === 'POST') return new URLSearchParams(await text(request));
    return new URL(request.url ?? '/', this.realm).searchParams;
  }

  #isKnown(request: IncomingMessage, parameters: URLSearchParams): boolean {
    if (request.method === 'POST')
      return (
        parameters.get('grant_type') === 'refresh_token' && parameters.get('refresh_token') === IDENTITY_TOKEN
      );
    const pair = Buffer.from(`${USERNAME}:${PASSWORD}`).toString('base64');
    return request.headers.authorization === `Basic ${pair}`;
  }

  /** The scopes are "repository:NAME:ACTION,ACTION", more than one with blanks between. */
  #token(scopes: readonly string[]): string {
    const asked = scopes.flatMap((scope) => scope.split(' '));
    this.scopes.push(...asked);
    const access = asked.map((scope) => {
      const [type, name, actions = ''] = scope.split(':');
      return { type, name, actions: actions.split(',') };
    });
    const nowS = Math.floor(Date.now() / 1000);
    const times = { iat: nowS, nbf: nowS - 10, exp: nowS + 60 };
    const der = new X509Certificate(readFileSync(this.certFile)).raw.toString('base64');
    const parts = [
      { typ: 'JWT', alg: 'ES256', x5c: [der] },
      { iss: ISSUER, sub: USERNAME, aud: SERVICE, jti: String(this.scopes.length), ...times, access },
    ].map((part) => Buffer.from(JSON.stringify(part)).toString('base64url'));
    const key = createPrivateKey(readFileSync(this.#keyFile));
    const signature = sign('sha256', Buffer.from(parts.join('.')), { key, dsaEncoding: 'ieee-p1363' });
    return [...parts, signature.toString('base64url')].join('.');
  }
}
