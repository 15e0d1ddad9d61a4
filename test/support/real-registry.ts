// Debian's docker-registry on a loopback port, with a temporary directory, and a way to push to it.

import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { type AddressInfo, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { findExecutable } from '../../agent/engine/runtime/runtime.ts';
import type { DemoImage } from '../../deploy/demo-image.ts';
import { eventually } from './eventually.ts';

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

export async function startRegistry(): Promise<RealRegistry> {
  const directory = mkdtempSync(path.join(tmpdir(), 'tsw-registry-'));
  const host = `127.0.0.1:${await freePort()}`;
  const config = path.join(directory, 'config.yml');
  writeFileSync(
    config,
    `version: 0.1\nlog: {level: error}\nstorage:\n  filesystem: {rootdirectory: ${directory}/data}\nhttp: {addr: "${host}"}\n`,
  );
  const child = spawn('docker-registry', ['serve', config], { stdio: 'ignore' });
  const url = `http://${host}/v2/`;
  await eventually(() =>
    fetch(url).then(
      ({ ok }) => ok,
      () => false,
    ),
  );
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

async function expectOk(response: Response): Promise<Response> {
  if (!response.ok) throw new Error(`${response.url}: ${response.status} ${await response.text()}`);
  return response;
}
