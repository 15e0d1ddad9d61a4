// Services come and go on a real node while something of it is killed with -9 at a moment by chance: the daemon, containerd, a
// shim, a runtime that is at work. Each time the service has to come up, and to leave nothing behind when it is removed.

import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { buildDemoImage } from '../../deploy/demo-image.ts';
import { eventually } from '../support/eventually.ts';
import { type Chance, seededChance } from '../support/faults.ts';
import { NetnsLan } from '../support/netns-lan.ts';
import { RealNode } from '../support/real-node.ts';
import { untilRunning } from '../support/services.ts';

export type Victim = 'daemon' | 'containerd' | 'shim' | 'runtime';

const VICTIMS: readonly Victim[] = ['daemon', 'containerd', 'shim', 'runtime'];
const IMAGE = 'localhost/bb:1';
const REPLICAS = 3;
const SERVICE = 'hunted';
/** Ends on TERM at once. */
const SCRIPT = 'trap "exit 0" TERM; while :; do cat /run/secrets/key >/dev/null; sleep 1000 & wait $!; done';
/** From a service's creation to when it runs, and from its removal to when it is gone. */
const MOMENTS_MS = 900;
/** Without it the daemon is back before anybody could notice. */
const ABSENCE_MS = 300;
const CONVERGED_LIMIT_MS = 90_000;
const RUNTIME_WAIT_MS = 3_000;

/** Of a node's directory: what has an entry for a container or task. */
const FOLDERS: readonly string[] = [
  ...['containers', 'spool', 'agent/tasks', 'volumes', 'scratch'].map((name) => `data/${name}`),
  ...['endpoints', 'etc', 'exec', 'mounts', 'netns', 'secrets'].map((name) => `run/${name}`),
  ...['task-dns', 'task-netns', 'volumes'].map((name) => `run/${name}`),
];

/** What a service may leave behind: its kind → how much of it there is. */
type Inventory = Readonly<Record<string, number>>;

export interface HuntReport {
  readonly seed: number;
  readonly rounds: number;
  readonly kills: Readonly<Record<string, number>>;
}

export interface HuntOptions {
  readonly seed: number;
  /** Asked before each round. */
  readonly goesOn: (round: number) => boolean;
  readonly say: (line: string) => void;
}

export class FaultHunt {
  readonly #node: RealNode;
  readonly #host: string;
  readonly #chance: Chance;
  readonly #kills: Record<string, number> = {};

  private constructor(node: RealNode, host: string, chance: Chance) {
    this.#node = node;
    this.#host = host;
    this.#chance = chance;
  }

  /** Throws when a service does not come up or something is left. `name` as of a `NetnsLan`. */
  static async run(name: string, { seed, goesOn, say }: HuntOptions): Promise<HuntReport> {
    using lan = new NetnsLan(name, 1);
    const [host = ''] = lan.hosts;
    await using node = await RealNode.start({ netns: host });
    const hunt = new FaultHunt(node, host, seededChance(seed));
    await hunt.#prepare(lan.addressOf(0));
    const clean = await hunt.#inventory();
    let round = 0;
    for (; goesOn(round); round++) {
      const victims = [0, 1].map(() => VICTIMS[Math.floor(hunt.#chance() * VICTIMS.length)]!);
      const moments = [0, 1].map(() => Math.round(hunt.#chance() * MOMENTS_MS));
      say(
        `round ${round}: ${victims[0]} ${moments[0]} ms in, ${victims[1]} ${moments[1]} ms after the removal`,
      );
      await hunt.#round(victims as [Victim, Victim], moments as [number, number], clean);
    }
    return { seed, rounds: round, kills: hunt.#kills };
  }

  async #prepare(address: string): Promise<void> {
    await this.#cli('init', '--advertise-addr', address);
    await this.#node.importImage((await buildDemoImage({ name: IMAGE })).archive);
    const file = path.join(this.#node.directory, 'key');
    await writeFile(file, 'a secret');
    await this.#cli('secret', 'create', 'key', file);
    await this.#cli('network', 'create', 'front');
    // What is made once and stays: the ingress, shims that are kept, the volume.
    await this.#create();
    await this.#untilUp();
    await this.#remove();
    await this.#untilGone();
  }

  async #round(victims: [Victim, Victim], moments: [number, number], clean: Inventory): Promise<void> {
    await Promise.all([this.#create(), this.#killAfter(victims[0], moments[0])]);
    await this.#untilUp();
    await Promise.all([this.#remove(), this.#killAfter(victims[1], moments[1])]);
    await this.#untilGone();
    await eventually(async () => {
      const left = await this.#inventory();
      const more = Object.entries(left).filter(([kind, count]) => count > (clean[kind] ?? 0));
      if (more.length === 0) return true;
      throw new Error(`left behind: ${JSON.stringify(more)}, where there was ${JSON.stringify(clean)}`);
    }, CONVERGED_LIMIT_MS);
  }

  async #create(): Promise<void> {
    const flags = ['--detach', '--no-resolve-image', '--name', SERVICE, '--replicas', String(REPLICAS)];
    const parts = ['--secret', 'key', '--network', 'front', '--publish', '8080:80', '--tmpfs', '/scratch'];
    const volumes = ['--mount', 'type=volume,source=data,target=/data', '--mount', 'type=volume,target=/own'];
    const restart = ['--restart-delay', '100ms', '--health-cmd', 'true', '--health-start-interval', '50ms'];
    const health = ['--health-start-period', '30s'];
    const all = [...flags, ...parts, ...volumes, ...restart, ...health, IMAGE, 'sh', '-c', SCRIPT];
    await this.#cli('service', 'create', ...all);
  }

  #remove(): Promise<void> {
    return this.#cli('service', 'rm', SERVICE);
  }

  /** Again when the manager was killed with the daemon before it had answered. */
  async #cli(...words: string[]): Promise<void> {
    await eventually(async () => {
      const { code, stderr } = await this.#node.cli(...words);
      if (code === 0 || /already exists|in use by service|not found/i.test(stderr)) return true;
      throw new Error(`${words.join(' ')}: ${stderr}`);
    }, CONVERGED_LIMIT_MS);
  }

  async #untilUp(): Promise<void> {
    await eventually(async () => {
      const { service } = await this.#node.control.getService({ service: SERVICE });
      await untilRunning(this.#node, service.id, REPLICAS);
      return true;
    }, CONVERGED_LIMIT_MS);
  }

  #untilGone(): Promise<void> {
    return this.#node.untilEmpty(CONVERGED_LIMIT_MS);
  }

  async #killAfter(victim: Victim, ms: number): Promise<void> {
    await delay(ms);
    if (victim === 'daemon') {
      await this.#node.killDaemon();
      await delay(this.#chance() * ABSENCE_MS);
      await this.#node.startDaemon();
    } else {
      const pid = await this.#find(victim);
      // There may be none at this moment.
      if (pid === undefined || !killed(pid)) return;
    }
    this.#kills[victim] = (this.#kills[victim] ?? 0) + 1;
  }

  async #find(victim: 'containerd' | 'shim' | 'runtime'): Promise<number | undefined> {
    if (victim === 'containerd') return this.#containerdPid();
    if (victim === 'shim')
      return this.#processes().find(({ command }) => command.includes('containerd-shim'))?.pid;
    const untilMs = Date.now() + RUNTIME_WAIT_MS;
    while (Date.now() < untilMs) {
      const found = this.#processes().find(({ program }) => /^(crun|runc)$/.test(program));
      if (found !== undefined) return found.pid;
      await delay(1);
    }
    return undefined;
  }

  /** Undefined while it is started again. */
  #containerdPid(): number | undefined {
    return this.#processes().find(({ program }) => program === 'containerd')?.pid;
  }

  /** Of this node: those that name its directory in their command line. */
  #processes(): { pid: number; program: string; command: string }[] {
    return readdirSync('/proc').flatMap((name) => {
      if (!/^\d+$/.test(name)) return [];
      try {
        const command = readFileSync(`/proc/${name}/cmdline`, 'utf8').replaceAll('\0', ' ');
        if (!command.includes(this.#node.directory)) return [];
        return [{ pid: Number(name), program: path.basename(readlinkSync(`/proc/${name}/exe`)), command }];
      } catch {
        // It has ended.
        return [];
      }
    });
  }

  async #inventory(): Promise<Inventory> {
    const { runDir, dataRoot } = this.#node;
    const engine = readFileSync(path.join(dataRoot, 'engine-id'), 'utf8').trim();
    const containerd = this.#containerdPid();
    if (containerd === undefined) throw new Error('containerd is not there');
    const socket = path.join(runDir, 'containerd.sock');
    const ctr = (...words: string[]) =>
      linesOf(execFileSync('ctr', ['--address', socket, '--namespace', `tsswarm-${engine}`, ...words]));
    const mounts = linesOf(readFileSync(`/proc/${containerd}/mountinfo`));
    return {
      mounts: mounts.filter((line) => line.includes(this.#node.directory)).length,
      'mounts of the host': linesOf(readFileSync('/proc/self/mountinfo')).filter((line) =>
        line.includes(this.#node.directory),
      ).length,
      links: linesOf(execFileSync('ip', ['-n', this.#host, '-o', 'link'])).length,
      cgroups: cgroupsOf(engine),
      containers: ctr('containers', 'ls', '-q').length,
      tasks: ctr('tasks', 'ls', '-q').length,
      snapshots: ctr('snapshots', 'ls').length,
      leases: ctr('leases', 'ls', '-q').length,
      ...Object.fromEntries(FOLDERS.map((name) => [name, entriesOf(path.join(this.#node.directory, name))])),
      processes: this.#processes().filter(({ program }) => !/^(node|containerd.*)$/.test(program)).length,
    };
  }
}

function killed(pid: number): boolean {
  try {
    process.kill(pid, 'SIGKILL');
    return true;
  } catch {
    // It has ended by itself.
    return false;
  }
}

function linesOf(bytes: Buffer): string[] {
  return bytes.toString().split('\n').filter(Boolean);
}

function entriesOf(directory: string): number {
  return existsSync(directory) ? readdirSync(directory).length : 0;
}

function cgroupsOf(engine: string): number {
  const roots = ['/sys/fs/cgroup', ...readdirSync('/sys/fs/cgroup').map((name) => `/sys/fs/cgroup/${name}`)];
  const own = roots.map((root) => path.join(root, 'tsswarm', engine)).filter(existsSync);
  return own.reduce(
    (sum, directory) =>
      sum + readdirSync(directory, { withFileTypes: true }).filter((entry) => entry.isDirectory()).length,
    0,
  );
}
