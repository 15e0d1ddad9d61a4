// A whole node for tests and benchmarks: the built daemon as a process of its own, with containerd, runtime and
// network, in folders of its own, so that it disturbs nothing on the machine and can be killed. With TSSWARM_TEST_LOGS=DIR
// the daemons' logs are kept there.

import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createWriteStream, existsSync } from 'node:fs';
import { chmod, cp, mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import { emptyClusterSpec } from '../../core/generated/objects.ts';
import { ControlService, ManagerHealthService } from '../../proto/generated/control.ts';
import { emptyInitRequest, NodeControlService } from '../../proto/generated/node.ts';
import { type Client, createClient, openChannel } from '../../rpc/client.ts';
import { eventually } from './eventually.ts';
import { freePort } from './real-registry.ts';

const run = promisify(execFile);
const root = path.join(import.meta.dirname, '..', '..');
const DAEMON = path.join(root, 'dist', 'bin', 'tsswarmd');
const CLI = path.join(root, 'dist', 'bin', 'tsswarm');
const CONTAINER_GONE_MS = 20_000;

export interface RealNodeOptions {
  /** More flags for the daemon. */
  readonly flags?: readonly string[];
  /** A network namespace to be a host of its own in, which also becomes its host name. */
  readonly netns?: string;
  /** Of its own, when it is not to be removed with the node. */
  readonly dataRoot?: string;
  /** More environment variables for the daemon. */
  readonly environment?: Readonly<Record<string, string>>;
}

export interface CliResult {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Why a real node cannot run here, or undefined when it can. */
export function whyNoRealNode(): string | undefined {
  if (process.getuid?.() !== 0) return 'needs root';
  const programs = ['/usr/bin/containerd', '/usr/sbin/runc', '/bin/busybox'];
  const missing = programs.filter((program) => !existsSync(program));
  if (missing.length > 0) return `needs ${missing.join(', ')}`;
  return existsSync(DAEMON) ? undefined : 'needs "npm run build"';
}

export class RealNode {
  readonly directory: string;
  readonly #flags: readonly string[];
  readonly #netns: string | undefined;
  readonly dataRoot: string;
  readonly #environment: Readonly<Record<string, string>>;
  #daemon: ChildProcess | undefined;

  private constructor(directory: string, options: RealNodeOptions) {
    const { flags = [], netns, environment = {}, dataRoot = path.join(directory, 'data') } = options;
    this.directory = directory;
    this.dataRoot = dataRoot;
    this.#flags = flags;
    this.#netns = netns;
    this.#environment = environment;
  }

  /** Starts the daemon; the node is in no cluster yet. */
  static async start(options: RealNodeOptions = {}): Promise<RealNode> {
    const directory = await mkdtemp(path.join(os.tmpdir(), 'tsw-node-'));
    // As /run and /var/lib are: containers with users of their own find their root below it.
    await chmod(directory, 0o711);
    const node = new RealNode(directory, options);
    try {
      await node.startDaemon();
    } catch (error) {
      await node[Symbol.asyncDispose]();
      throw error;
    }
    return node;
  }

  get runDir(): string {
    return path.join(this.directory, 'run');
  }

  get daemonPid(): number {
    return this.#daemon?.pid ?? 0;
  }

  async startDaemon(): Promise<void> {
    const log = createWriteStream(path.join(this.directory, 'daemon.log'), { flags: 'a' });
    await once(log, 'open');
    const [program = '', ...args] = this.#command();
    this.#daemon = spawn(program, args, {
      stdio: ['ignore', log, log],
      // Where core files go.
      cwd: this.directory,
      env: { ...process.env, ...this.#environment },
    });
    log.close();
    const died = once(this.#daemon, 'exit').then(async ([code]) => {
      throw new Error(`the daemon ended with ${code}: ${await this.daemonLog()}`);
    });
    died.catch(() => {});
    await Promise.race([died, eventually(() => this.node.info({}, { timeoutMs: 2_000 }), 30_000)]);
  }

  /** Ends the daemon as an operator does. Containers go on. */
  async stopDaemon(): Promise<void> {
    await this.#endDaemon('SIGTERM');
  }

  /** kill -9. The manager process notices and ends by itself. */
  async killDaemon(signal: NodeJS.Signals = 'SIGKILL'): Promise<void> {
    await this.#endDaemon(signal);
  }

  /** Pid of this node's containerd. */
  async containerdPid(): Promise<number> {
    const content = await readFile(path.join(this.runDir, 'containerd.process'), 'utf8');
    return Number.parseInt(content, 10);
  }

  /** Namespaces of the cluster's networks on this node, and of tasks in them. */
  async overlayPins(): Promise<string[]> {
    const folders = ['overlay', 'encrypted/overlay', 'task-netns'].map((name) =>
      path.join(this.runDir, name),
    );
    const inFolder = async (folder: string) =>
      (await readdir(folder).catch(() => [])).map((pin) => path.join(folder, pin));
    return (await Promise.all(folders.map(inFolder))).flat();
  }

  /** Runs a program in the namespace of the one network of the cluster that this node has. */
  async inOverlay(...command: readonly string[]): Promise<string> {
    const folder = path.join(this.runDir, 'overlay');
    const [pin = ''] = await readdir(folder);
    const { stdout } = await run('nsenter', [`--net=${path.join(folder, pin)}`, '--', ...command]);
    return stdout;
  }

  async daemonLog(): Promise<string> {
    return readFile(path.join(this.directory, 'daemon.log'), 'utf8');
  }

  readonly #channels = new Map<string, ReturnType<typeof openChannel>>();

  get node(): Client<typeof NodeControlService> {
    return createClient(NodeControlService, this.#channel('node'));
  }

  get control(): Client<typeof ControlService> {
    return createClient(ControlService, this.#channel('control'));
  }

  /** Of this node's manager. */
  get managerHealth(): Client<typeof ManagerHealthService> {
    return createClient(ManagerHealthService, this.#channel('manager'));
  }

  /** Runs the built command line against this node. */
  cli(...args: readonly string[]): Promise<CliResult> {
    return new Promise((resolve) => {
      const env = { ...process.env, TSSWARM_HOST: `unix://${path.join(this.runDir, 'control.sock')}` };
      execFile(CLI, args, { env, maxBuffer: 64 * 2 ** 20 }, (error, stdout, stderr) => {
        const code = error === null ? 0 : typeof error.code === 'number' ? error.code : 1;
        resolve({ code, stdout, stderr });
      });
    });
  }

  /** The same for a command that has to succeed: throws with what it said when it does not. */
  async succeed(...args: readonly string[]): Promise<CliResult> {
    const result = await this.cli(...args);
    if (result.code !== 0)
      throw new Error(`${args.join(' ')}: exit code ${result.code}: ${result.stdout}${result.stderr}`);
    return result;
  }

  /** Makes a cluster of this node, on a port of its own: other tests run beside. */
  async init(): Promise<void> {
    await this.node.init({
      ...emptyInitRequest,
      advertiseAddress: '127.0.0.1',
      listenAddress: `127.0.0.1:${await freePort()}`,
      cluster: { ...emptyClusterSpec, heartbeatPeriodMs: 1_000 },
      clusterFields: ['heartbeatPeriodMs'],
    });
  }

  /** Imports an OCI or Docker archive. */
  async importImage(archive: Uint8Array): Promise<readonly string[]> {
    const call = this.node.importImages();
    const chunkBytes = 1 << 20;
    for (let start = 0; start < archive.length; start += chunkBytes)
      await call.send({ reference: '', platform: '', data: archive.subarray(start, start + chunkBytes) });
    call.end();
    return (await call.response).names;
  }

  /** Until neither container nor task is left of a removed service. */
  async untilEmpty(limitMs = CONTAINER_GONE_MS, pollMs?: number): Promise<void> {
    await eventually(
      async () => {
        const { containersRunning, containersStopped } = await this.node.info({});
        return containersRunning + containersStopped === 0;
      },
      limitMs,
      pollMs,
    );
  }

  /** Takes everything off the machine, whatever state the node is in. */
  async [Symbol.asyncDispose](): Promise<void> {
    for (const channel of this.#channels.values()) channel.close();
    await this.#endDaemon('SIGTERM');
    const [program = '', ...args] = this.#command('teardown');
    const teardown = spawn(program, args, { stdio: ['ignore', 'ignore', 'pipe'] });
    let trouble = '';
    teardown.stderr.on('data', (chunk) => {
      trouble += chunk;
    });
    const [code] = await once(teardown, 'exit');
    if (code !== 0) throw new Error(`teardown failed: ${trouble}`);
    const logs = process.env['TSSWARM_TEST_LOGS'];
    if (logs !== undefined)
      await cp(
        path.join(this.directory, 'daemon.log'),
        path.join(logs, `${path.basename(this.directory)}.log`),
      );
    await rm(this.directory, { recursive: true, force: true });
  }

  /** Enters only the namespaces of network and host name: mounts have to outlive the daemon. */
  #command(...words: string[]): string[] {
    const command = [DAEMON, ...words, ...this.#daemonFlags()];
    if (this.#netns === undefined) return command;
    const setName = 'hostname "$1" && shift && exec "$@"';
    return [
      'nsenter',
      `--net=/run/netns/${this.#netns}`,
      'unshare',
      '--uts',
      ...['sh', '-c', setName, 'sh', this.#netns],
      ...command,
    ];
  }

  #daemonFlags(): string[] {
    const own = { 'data-root': this.dataRoot, 'run-dir': this.runDir, 'metrics-addr': '127.0.0.1:0' };
    return [...Object.entries(own).flatMap(([name, value]) => [`--${name}`, value]), ...this.#flags];
  }

  #channel(name: string): ReturnType<typeof openChannel> {
    const known = this.#channels.get(name);
    if (known !== undefined) return known;
    const channel = openChannel(`unix://${path.join(this.runDir, `${name}.sock`)}`);
    this.#channels.set(name, channel);
    return channel;
  }

  async #endDaemon(signal: NodeJS.Signals): Promise<void> {
    const daemon = this.#daemon;
    this.#daemon = undefined;
    if (daemon === undefined || daemon.exitCode !== null || daemon.signalCode !== null) return;
    const exit = once(daemon, 'exit');
    daemon.kill(signal);
    await exit;
  }
}
