// Debian's CFSSL server on a loopback port, signing with a root of ours.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { findExecutable } from '../../agent/engine/runtime/runtime.ts';
import type { Root } from '../../manager/ca/certificate-tool.ts';
import { eventually } from './eventually.ts';
import { freePort } from './real-registry.ts';

export const missingForCfssl: string | false =
  findExecutable('cfssl') === undefined ? 'needs cfssl (apt-get install golang-cfssl)' : false;

export interface RealCfssl extends AsyncDisposable {
  /** Of the call that signs. */
  readonly url: string;
}

export interface CfsslOptions {
  /** What goes into the signing profile over what nodes need. */
  readonly profile?: Record<string, unknown>;
  /** Named profiles besides. */
  readonly profiles?: Record<string, unknown>;
  /** Makes it an HTTPS server with this certificate; with `clientsPem` it asks for one of theirs. */
  readonly tls?: { readonly certificatePem: string; readonly keyPem: string; readonly clientsPem?: string };
}

const NODE_PROFILE = { usages: ['signing', 'server auth', 'client auth'], expiry: '24h' };

export async function startCfssl(
  root: Root,
  { profile, profiles, tls }: CfsslOptions = {},
): Promise<RealCfssl> {
  const directory = mkdtempSync(path.join(tmpdir(), 'tsw-cfssl-'));
  const file = (name: string, content: string) => {
    writeFileSync(path.join(directory, name), content, { mode: 0o600 });
    return path.join(directory, name);
  };
  const signing = { default: { ...NODE_PROFILE, ...profile }, profiles: profiles ?? {} };
  const port = await freePort();
  const args = [
    ...['serve', '-address', '127.0.0.1', '-port', String(port)],
    ...['-config', file('config.json', JSON.stringify({ signing }))],
    ...['-ca', file('ca.pem', root.certificatePem), '-ca-key', file('ca-key.pem', root.keyPem)],
    ...(tls
      ? ['-tls-cert', file('tls.pem', tls.certificatePem), '-tls-key', file('tls-key.pem', tls.keyPem)]
      : []),
    ...(tls?.clientsPem ? ['-mutual-tls-ca', file('clients.pem', tls.clientsPem)] : []),
  ];
  const child = spawn('cfssl', args, { stdio: 'ignore', cwd: directory });
  const exit = once(child, 'exit');
  const stop = async () => {
    child.kill();
    await exit;
    rmSync(directory, { recursive: true });
  };
  try {
    await eventually(() => isOpen(port));
  } catch (error) {
    await stop();
    throw error;
  }
  const scheme = tls === undefined ? 'http' : 'https';
  return { url: `${scheme}://127.0.0.1:${port}/api/v1/cfssl/sign`, [Symbol.asyncDispose]: stop };
}

function isOpen(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1');
    socket.on('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.on('error', () => resolve(false));
  });
}
