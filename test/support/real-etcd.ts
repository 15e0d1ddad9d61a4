// Debian's etcd on loopback ports of its own, one or more members, with a temporary directory: for tests and benchmarks
// that kill it, hold it and start it again.

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createWriteStream, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { Etcd3, type IOptions } from 'etcd3';
import { findExecutable } from '../../agent/engine/runtime/runtime.ts';
import type { EtcdSettings } from '../../manager/etcd-log/settings.ts';
import { eventually } from './eventually.ts';
import { freePort } from './real-registry.ts';

export const missingForEtcd: string | false =
  findExecutable('etcd') === undefined ? 'needs etcd (apt-get install etcd-server)' : false;

export interface EtcdOptions {
  readonly members?: number;
  /** PEM files; clients have to show a certificate of the authority. */
  readonly tls?: { readonly caFile: string; readonly certFile: string; readonly keyFile: string };
  readonly flags?: readonly string[];
}

interface Member {
  readonly name: string;
  readonly clientUrl: string;
  readonly peerUrl: string;
  process: ChildProcess | undefined;
}

const START_LIMIT_MS = 30_000;

export class RealEtcd {
  readonly directory = mkdtempSync(path.join(tmpdir(), 'tsw-etcd-'));
  readonly #options: EtcdOptions;
  readonly #members: Member[] = [];
  #client: Etcd3 | undefined;

  private constructor(options: EtcdOptions) {
    this.#options = options;
  }

  static async start(options: EtcdOptions = {}): Promise<RealEtcd> {
    const etcd = new RealEtcd(options);
    const scheme = options.tls === undefined ? 'http' : 'https';
    for (let number = 0; number < (options.members ?? 1); number++)
      etcd.#members.push({
        name: `m${number}`,
        clientUrl: `${scheme}://127.0.0.1:${await freePort()}`,
        peerUrl: `http://127.0.0.1:${await freePort()}`,
        process: undefined,
      });
    try {
      for (const member of etcd.#members) etcd.#spawn(member);
      await etcd.untilReady();
    } catch (error) {
      await etcd[Symbol.asyncDispose]();
      throw error;
    }
    return etcd;
  }

  get hosts(): string[] {
    return this.#members.map(({ clientUrl }) => clientUrl);
  }

  /** A client besides those of the driver, to look and to disturb. */
  get client(): Etcd3 {
    const { tls } = this.#options;
    this.#client ??= new Etcd3({ hosts: this.hosts, ...(tls && { credentials: credentialsOf(tls) }) });
    return this.#client;
  }

  settings(change: Partial<EtcdSettings> = {}): EtcdSettings {
    return {
      hosts: this.hosts,
      prefix: '/tsswarm',
      caFile: this.#options.tls?.caFile ?? '',
      certFile: this.#options.tls?.certFile ?? '',
      keyFile: this.#options.tls?.keyFile ?? '',
      user: '',
      passwordFile: '',
      compaction: 'off',
      ...change,
    };
  }

  /** kill -9. */
  async kill(number = 0): Promise<void> {
    const { process } = this.#member(number);
    this.#member(number).process = undefined;
    if (process === undefined || process.exitCode !== null || process.signalCode !== null) return;
    const exit = once(process, 'exit');
    process.kill('SIGKILL');
    await exit;
  }

  startAgain(number = 0): void {
    this.#spawn(this.#member(number));
  }

  /** It holds still as if its machine did. */
  pause(number = 0): void {
    this.#member(number).process?.kill('SIGSTOP');
  }

  resume(number = 0): void {
    this.#member(number).process?.kill('SIGCONT');
  }

  async untilReady(): Promise<void> {
    await eventually(async () => {
      const dead = this.#members.find(({ process }) => process !== undefined && process.exitCode !== null);
      if (dead !== undefined) throw new Error(this.log(dead.name));
      await connectionTo(this.hosts);
      await this.client.put('ready').value('yes');
      return true;
    }, START_LIMIT_MS);
    await this.client.delete().key('ready');
  }

  log(name = 'm0'): string {
    return readFileSync(path.join(this.directory, `${name}.log`), 'utf8').slice(-2_000);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#client?.close();
    for (const number of this.#members.keys()) {
      this.resume(number);
      await this.kill(number);
    }
    rmSync(this.directory, { recursive: true, force: true });
  }

  #member(number: number): Member {
    const member = this.#members[number];
    if (member === undefined) throw new Error(`no member ${number}`);
    return member;
  }

  #spawn(member: Member): void {
    const { tls, flags = [] } = this.#options;
    const log = createWriteStream(path.join(this.directory, `${member.name}.log`), { flags: 'a' });
    member.process = spawn(
      'etcd',
      [
        ...['--name', member.name, '--data-dir', path.join(this.directory, member.name)],
        ...['--listen-client-urls', member.clientUrl, '--advertise-client-urls', member.clientUrl],
        ...['--listen-peer-urls', member.peerUrl, '--initial-advertise-peer-urls', member.peerUrl],
        ...['--initial-cluster', this.#members.map(({ name, peerUrl }) => `${name}=${peerUrl}`).join(',')],
        ...[
          '--initial-cluster-token',
          path.basename(this.directory),
          '--logger',
          'zap',
          '--log-level',
          'warn',
        ],
        ...(tls === undefined
          ? []
          : [
              '--client-cert-auth',
              '--trusted-ca-file',
              tls.caFile,
              '--cert-file',
              tls.certFile,
              '--key-file',
              tls.keyFile,
            ]),
        ...flags,
      ],
      { stdio: ['ignore', 'pipe', 'pipe'] },
    );
    member.process.stdout?.pipe(log, { end: false });
    member.process.stderr?.pipe(log, { end: false });
  }
}

/** Before the client tries: it gives a member that refuses it a long rest. */
async function connectionTo(hosts: readonly string[]): Promise<void> {
  for (const host of hosts) {
    const socket = connect(Number(new URL(host).port), '127.0.0.1');
    await once(socket, 'connect');
    socket.destroy();
  }
}

function credentialsOf(tls: NonNullable<EtcdOptions['tls']>): NonNullable<IOptions['credentials']> {
  return {
    rootCertificate: readFileSync(tls.caFile),
    certChain: readFileSync(tls.certFile),
    privateKey: readFileSync(tls.keyFile),
  };
}
