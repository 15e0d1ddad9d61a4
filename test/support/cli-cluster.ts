// A cluster in this process for the real command line in processes of its own: control socket of a manager, node
// socket over the fake engine.

import { spawn } from 'node:child_process';
import path from 'node:path';
import { text } from 'node:stream/consumers';
import type { Images } from '../../agent/engine/engine.ts';
import { SwarmError } from '../../core/errors.ts';
import type { Daemon } from '../../node/daemon.ts';
import { nodeHandlers } from '../../node/node-api.ts';
import { emptyInfoResponse, type InfoResponse, NodeControlService } from '../../proto/generated/node.ts';
import { RpcServer } from '../../rpc/server.ts';
import { TestCluster } from './cluster-in-process.ts';

const PROGRAM = path.join(import.meta.dirname, '..', '..', 'bin', 'tsswarm.ts');
export const DIGEST = `sha256:${'ab'.repeat(32)}`;

export interface CliResult {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface CliOptions {
  readonly environment?: Readonly<Record<string, string>>;
  readonly stdin?: string;
  readonly workdir?: string;
}

export class CliCluster {
  readonly cluster: TestCluster;
  /** What `image import` has sent. */
  readonly imported: Buffer[] = [];
  /** What the node says of itself in place of "an active manager". */
  info: Partial<InfoResponse> = {};
  readonly #server = new RpcServer();

  private constructor(cluster: TestCluster) {
    this.cluster = cluster;
  }

  static async start(): Promise<CliCluster> {
    const cli = new CliCluster(await TestCluster.start());
    cli.#server.add(NodeControlService, nodeHandlers(cli.#fakeDaemon()));
    await cli.#server.listen(path.join(cli.cluster.directory, 'node.sock'), 0o600);
    return cli;
  }

  get host(): string {
    return `unix://${path.join(this.cluster.directory, 'control.sock')}`;
  }

  run(args: readonly string[], options: CliOptions = {}): Promise<CliResult> {
    return runProgram(args, { ...options, environment: { TSSWARM_HOST: this.host, ...options.environment } });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.stop();
    await this.cluster[Symbol.asyncDispose]();
  }

  #fakeDaemon(): Daemon {
    const { engine } = this.cluster;
    const images = {
      ...engine.images,
      list: async () => [
        {
          digest: DIGEST,
          id: DIGEST,
          tags: ['docker.io/library/busybox:latest'],
          digests: [],
          createdAtMs: Date.now() - 3 * 3_600_000,
          sizeBytes: 4_261_000,
          labels: {},
        },
      ],
      resolve: async (reference: string) => {
        if (!reference.startsWith('pinned')) throw new SwarmError('not-found', `no such image ${reference}`);
        engine.registry.add(`${reference}@${DIGEST}`);
        return { digest: DIGEST, platforms: [{ os: 'linux', architecture: 'amd64' }] };
      },
      import: (async (archive, { name = 'docker.io/library/imported:latest' } = {}) => {
        for await (const data of archive) this.imported.push(Buffer.from(data));
        return [name];
      }) satisfies Images['import'],
      async *export() {
        yield Buffer.from('archive ');
        yield Buffer.from('of images');
      },
      remove: async (reference: string) => ({ untagged: [reference], deleted: [DIGEST] }),
    };
    const fake = {
      engine: { ...engine, images },
      init: () => {
        throw new SwarmError('failed-precondition', 'this node is already part of a cluster', {
          hint: 'Use "tsswarm leave --force" to leave it first.',
        });
      },
      leave: async () => {},
      info: async () => ({
        ...emptyInfoResponse,
        version: '0.1.0',
        state: 'active',
        nodeId: 'node0000000000000000000001',
        clusterId: 'cluster',
        manager: true,
        runtimeName: 'fake',
        warnings: ['no swap limit support'],
        ...this.info,
      }),
    };
    return fake as unknown as Daemon;
  }
}

/** The command line as an operator's shell starts it. */
export async function runProgram(
  args: readonly string[],
  { stdin = '', ...options }: CliOptions = {},
): Promise<CliResult> {
  const child = spawnProgram(args, options);
  child.stdin.on('error', () => {});
  child.stdin.end(stdin);
  const [stdout, stderr, code] = await Promise.all([
    text(child.stdout),
    text(child.stderr),
    new Promise<number | null>((resolve) => child.on('close', resolve)),
  ]);
  return { code, stdout, stderr };
}

/** One that goes on until it is disposed of. */
export function startProgram(args: readonly string[], options: Omit<CliOptions, 'stdin'> = {}) {
  const child = spawnProgram(args, options);
  const ended = new Promise((resolve) => child.on('close', resolve));
  let stdout = '';
  child.stdout.setEncoding('utf8').on('data', (piece: string) => {
    stdout += piece;
  });
  child.stderr.resume();
  return {
    /** What it has said by now. */
    stdout: () => stdout,
    [Symbol.asyncDispose]: async () => {
      child.kill('SIGKILL');
      await ended;
    },
  };
}

function spawnProgram(args: readonly string[], { environment = {}, workdir }: Omit<CliOptions, 'stdin'>) {
  // Without "--" Node takes an --env-file behind the program's name for its own.
  return spawn(process.execPath, ['--', PROGRAM, ...args], {
    env: { PATH: process.env['PATH'], LANG: 'C.UTF-8', ...environment },
    ...(workdir && { cwd: workdir }),
  });
}
