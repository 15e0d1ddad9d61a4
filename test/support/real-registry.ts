// Debian's docker-registry on a loopback port, with a temporary directory, and a way to push to it.

import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { type AddressInfo, connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { findExecutable } from '../../agent/engine/runtime/runtime.ts';
import type { DemoImage } from '../../deploy/demo-image.ts';
import { eventually } from './eventually.ts';
import { ISSUER, SERVICE, type TokenServer, USERNAME } from './token-server.ts';

export const missingForRegistry: string | false =
  findExecutable('docker-registry') === undefined ? 'needs docker-registry' : false;

export interface RealRegistry extends AsyncDisposable {
  readonly host: string;
  /** Returns the manifest's digest. */
  push(repository: string, tag: string, image: Pick<DemoImage, 'manifest' | 'blobs'>): Promise<string>;
  pushManifest(repository: string, tag: string, bytes: Buffer, type: string): Promise<string>;
}

/** A loopback port that nothing listens on at the moment. */
export async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}

export interface RegistryOptions {
  /** "basic" knows the user and password of the token server's. */
  readonly auth?: 'basic' | TokenServer;
  /** A host of its own: a network namespace, and where to listen. */
  readonly place?: { readonly netns: string; readonly host: string };
  readonly tls?: { readonly certFile: string; readonly keyFile: string };
}

// bcrypt of the token server's password.
const PASSWORD_HASH = '$2b$04$KVEiTqOX0tOl1bK9sbiALuFaRm1wcW0UuRZgMs4YiCIyrqQVbsnLm';

export async function startRegistry(options: RegistryOptions = {}): Promise<RealRegistry> {
  const directory = mkdtempSync(path.join(tmpdir(), 'tsw-registry-'));
  const { place } = options;
  const host = place?.host ?? `127.0.0.1:${await freePort()}`;
  const config = path.join(directory, 'config.yml');
  writeFileSync(path.join(directory, 'htpasswd'), `${USERNAME}:${PASSWORD_HASH}\n`);
  writeFileSync(config, JSON.stringify(configuration(directory, host, options)));
  const command = ['docker-registry', 'serve', config];
  const [program = '', ...args] =
    place === undefined ? command : ['nsenter', `--net=/run/netns/${place.netns}`, ...command];
  const child = spawn(program, args, { stdio: 'ignore' });
  const url = `http://${host}/v2/`;
  // Who asks one in another namespace has to wait for it.
  if (place === undefined) await eventually(() => answers(host));
  const pushManifest = async (repository: string, tag: string, bytes: Buffer, type: string) => {
    const body = new Uint8Array(bytes);
    await expectOk(
      await fetch(`${url}${repository}/manifests/${tag}`, {
        method: 'PUT',
        body,
        headers: { 'content-type': type },
      }),
    );
    return `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
  };
  return {
    host,
    pushManifest,
    async push(repository, tag, image) {
      for (const [digest, bytes] of image.blobs) {
        const start = await expectOk(await fetch(`${url}${repository}/blobs/uploads/`, { method: 'POST' }));
        const location = new URL(start.headers.get('location') ?? '', url);
        location.searchParams.set('digest', digest);
        await expectOk(await fetch(location, { method: 'PUT', body: new Uint8Array(bytes) }));
      }
      return pushManifest(repository, tag, image.manifest, 'application/vnd.oci.image.manifest.v1+json');
    },
    async [Symbol.asyncDispose]() {
      const exited = once(child, 'exit');
      child.kill('SIGKILL');
      await exited;
      rmSync(directory, { recursive: true, force: true });
    },
  };
}

/** YAML is what the registry reads, and JSON is YAML. */
function configuration(directory: string, addr: string, { auth, tls }: RegistryOptions): object {
  const token = auth !== 'basic' &&
    auth !== undefined && {
      token: { realm: auth.realm, service: SERVICE, issuer: ISSUER, rootcertbundle: auth.certFile },
    };
  const basic = { htpasswd: { realm: 'test', path: path.join(directory, 'htpasswd') } };
  return {
    version: 0.1,
    log: { level: 'error' },
    storage: { filesystem: { rootdirectory: path.join(directory, 'data') } },
    http: { addr, ...(tls && { tls: { certificate: tls.certFile, key: tls.keyFile } }) },
    ...(auth !== undefined && { auth: auth === 'basic' ? basic : token }),
  };
}

function answers(host: string): Promise<boolean> {
  const [address = '', port] = host.split(':');
  return new Promise((resolve) => {
    const socket = connect(Number(port), address, () => {
      socket.destroy();
      resolve(true);
    });
    socket.on('error', () => resolve(false));
  });
}

async function expectOk(response: Response): Promise<Response> {
  if (!response.ok) throw new Error(`${response.url}: ${response.status} ${await response.text()}`);
  return response;
}
