// The peer: Debian's docker.io with data root and socket of its own, as a one-node Swarm in a network namespace of its
// own, or as an engine in one that is given: its firewall rules leave the machine alone. Started and ended by the bench.

import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createWriteStream, existsSync, readdirSync, readFileSync } from 'node:fs';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { request } from 'node:http';
import os from 'node:os';
import path from 'node:path';
import { json } from 'node:stream/consumers';
import { promisify } from 'node:util';
import { defined } from '../core/assert.ts';
import type { DemoImage } from '../deploy/demo-image.ts';
import { eventually } from '../test/support/eventually.ts';

const run = promisify(execFile);
const STOP_LIMIT_MS = 20_000;
/** Debian's, not a newer client that happens to be first in PATH. */
const DOCKER = existsSync('/usr/bin/docker') ? '/usr/bin/docker' : 'docker';

export class Docker {
  readonly directory: string;
  #daemon: ChildProcess | undefined;
  readonly #containers: string[] = [];

  private constructor(directory: string) {
    this.directory = directory;
  }

  static async startSwarm(): Promise<Docker> {
    const swarm = await Docker.#started(['unshare', '--net']);
    try {
      await swarm.docker('swarm', 'init', '--advertise-addr', '127.0.0.1');
    } catch (error) {
      await swarm[Symbol.asyncDispose]();
      throw error;
    }
    return swarm;
  }

  /** The engine alone, as a program of the network namespace that is pinned there. */
  static startEngine(namespacePath: string): Promise<Docker> {
    return Docker.#started(['nsenter', `--net=${namespacePath}`]);
  }

  static async #started(entry: readonly string[]): Promise<Docker> {
    const docker = new Docker(await mkdtemp(path.join(os.tmpdir(), 'tsw-docker-')));
    try {
      await docker.#startDaemon(entry);
    } catch (error) {
      await docker[Symbol.asyncDispose]();
      throw error;
    }
    return docker;
  }

  async version(): Promise<string> {
    return ((await this.get('/version')) as { Version: string }).Version;
  }

  async docker(...args: readonly string[]): Promise<string> {
    const env = { ...process.env, DOCKER_HOST: `unix://${this.#socket}` };
    return (await run(DOCKER, args, { env })).stdout;
  }

  /** A GET of the engine's API. */
  async get(url: string): Promise<unknown> {
    const call = request({ socketPath: this.#socket, path: url });
    call.end();
    const [response] = await once(call, 'response');
    return json(response);
  }

  /** The same files as a Docker image: Debian's docker.io does not read OCI archives. */
  async import({ manifest, blobs }: DemoImage, name: string): Promise<void> {
    const { layers } = JSON.parse(manifest.toString()) as { layers: { digest: string }[] };
    const layer = defined(blobs.get(layers[0]?.digest ?? ''), 'the image has a layer');
    const file = path.join(this.directory, 'layer.tar.gz');
    await writeFile(file, layer);
    await this.docker('import', '--change', 'ENV PATH=/bin', file, name);
  }

  /** Process id of a container that sleeps, with ports published ("PUBLISHED:TARGET"). */
  async runSleeping(image: string, published: readonly string[]): Promise<number> {
    const flags = published.flatMap((ports) => ['--publish', ports]);
    const id = (await this.docker('run', '--detach', ...flags, image, 'sleep', 'inf')).trim();
    this.#containers.push(id);
    return Number(await this.docker('inspect', '--format', '{{.State.Pid}}', id));
  }

  async runningTasks(): Promise<number> {
    const filters = encodeURIComponent(JSON.stringify({ 'desired-state': ['running'] }));
    const tasks = (await this.get(`/tasks?filters=${filters}`)) as { Status: { State: string } }[];
    return tasks.filter(({ Status }) => Status.State === 'running').length;
  }

  async isEmpty(): Promise<boolean> {
    const containers = (await this.get('/containers/json?all=1')) as unknown[];
    const tasks = (await this.get('/tasks')) as unknown[] | { message: string };
    // An engine that is in no Swarm has a message.
    return containers.length === 0 && (!Array.isArray(tasks) || tasks.length === 0);
  }

  /** dockerd and its containerd, without shims. */
  pids(): number[] {
    const daemon = this.#dockerdPid();
    const children = readdirSync('/proc').filter(
      (name) => /^\d+$/.test(name) && parentOf(Number(name)) === daemon,
    );
    return [daemon, ...children.map(Number)];
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const daemon = this.#daemon;
    if (daemon !== undefined && daemon.exitCode === null) {
      const services = await this.docker('service', 'ls', '-q').catch(() => '');
      for (const id of services.split('\n').filter(Boolean))
        await this.docker('service', 'rm', id).catch(() => {});
      // Those of no service; the others are on their way.
      for (const id of this.#containers) await this.docker('rm', '--force', id).catch(() => {});
      await eventually(() => this.isEmpty(), STOP_LIMIT_MS).catch(() => {});
      const exit = once(daemon, 'exit');
      process.kill(this.#dockerdPid(), 'SIGTERM');
      await exit;
    }
    await unmountBelow(this.directory);
    await rm(this.directory, { recursive: true, force: true });
  }

  get #socket(): string {
    return path.join(this.directory, 'docker.sock');
  }

  #dockerdPid(): number {
    return Number(readFileSync(path.join(this.directory, 'docker.pid'), 'utf8'));
  }

  async #startDaemon([program = '', ...words]: readonly string[]): Promise<void> {
    const log = createWriteStream(path.join(this.directory, 'dockerd.log'));
    await once(log, 'open');
    // In memory, where /run/docker is as a rule: as our own run directory always is.
    const execRoot = path.join(this.directory, 'exec');
    await mkdir(execRoot);
    await run('mount', ['-t', 'tmpfs', 'tmpfs', execRoot]);
    const flags = [
      `--data-root=${this.directory}/data`,
      `--exec-root=${execRoot}`,
      `--pidfile=${this.directory}/docker.pid`,
      `--host=unix://${this.#socket}`,
      '--storage-driver=overlay2',
    ];
    const script = 'ip link set lo up && exec dockerd "$@"';
    this.#daemon = spawn(program, [...words, 'sh', '-c', script, 'dockerd', ...flags], {
      stdio: ['ignore', log, log],
      // A local image has no registry to be looked up in; failed look-ups would double Docker's time.
      env: { ...process.env, DOCKER_SERVICE_PREFER_OFFLINE_IMAGE: '1' },
    });
    const died = once(this.#daemon, 'exit').then(() => {
      throw new Error(
        `dockerd ended: ${readFileSync(path.join(this.directory, 'dockerd.log'), 'utf8').slice(-1000)}`,
      );
    });
    died.catch(() => {});
    await Promise.race([died, eventually(() => this.version(), 30_000)]);
  }
}

function parentOf(pid: number): number {
  try {
    return Number(/^PPid:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]);
  } catch {
    // It ended while we looked.
    return 0;
  }
}

async function unmountBelow(directory: string): Promise<void> {
  const mounts = readFileSync('/proc/mounts', 'utf8')
    .split('\n')
    .map((line) => line.split(' ')[1] ?? '');
  for (const mount of mounts.filter((target) => target.startsWith(directory)).reverse())
    await run('umount', ['-l', mount]);
}
