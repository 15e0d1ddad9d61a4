// Managers' logs as real processes: started, killed and asked from a test or a benchmark. Each has a directory and a
// certificate of its own, and may live in a network namespace.

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { defined } from '../../core/assert.ts';
import type { RaftStatus } from '../../manager/raft-host/host-options.ts';
import { MANAGER_V8_FLAGS } from '../../node/manager-process.ts';
import type { Member } from '../../proto/generated/raft.ts';
import { eventually } from './eventually.ts';
import type { RaftProcessConfig, RaftRequest } from './raft-process.ts';
import { newIdentities, TEST_CLUSTER } from './test-authority.ts';

const PROGRAM = path.join(import.meta.dirname, 'raft-process.ts');

/** The process did not do what it was asked; `name` says whether it certainly has not. */
export class RequestError extends Error {
  readonly isCertain: boolean;

  constructor(message: string, isCertain: boolean) {
    super(message);
    this.isCertain = isCertain;
  }
}

export class RaftProcess {
  readonly member: Member;
  readonly config: RaftProcessConfig;
  readonly #namespace: string | undefined;
  #child: ChildProcess | undefined;
  #pending = new Map<number, { resolve: (value: never) => void; reject: (error: Error) => void }>();
  #requests = 0;
  isLeader = false;
  term = 0;
  onLeader: (() => void) | undefined;

  constructor(config: RaftProcessConfig, namespace: string | undefined) {
    this.member = config.self;
    this.config = config;
    this.#namespace = namespace;
  }

  get isUp(): boolean {
    return this.#child !== undefined;
  }

  get pid(): number {
    return defined(this.#child?.pid, 'the process is not running');
  }

  async start(overrides: Partial<RaftProcessConfig> = {}): Promise<void> {
    const program = [process.execPath, ...MANAGER_V8_FLAGS, PROGRAM];
    const [command = '', ...args] =
      this.#namespace === undefined ? program : ['ip', 'netns', 'exec', this.#namespace, ...program];
    const child = spawn(command, args, { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
    this.#child = child;
    const ready = Promise.withResolvers<void>();
    child.on('message', (message: Record<string, never>) => {
      if (message['event'] === 'ready') ready.resolve();
      else if (message['event'] === 'leadership') this.#onLeadership(message);
      else this.#onAnswer(message);
    });
    child.once('exit', (code, signal) => {
      ready.reject(new Error(`the process ended with ${code ?? signal}`));
      if (this.#child === child) this.#child = undefined;
      this.isLeader = false;
      for (const { reject } of this.#pending.values()) reject(new RequestError('the process ended', false));
      this.#pending.clear();
    });
    child.send({ ...this.config, ...overrides });
    await ready.promise;
  }

  request<T>(request: RaftRequest): Promise<T> {
    const id = ++this.#requests;
    return new Promise((resolve, reject) => {
      if (this.#child === undefined) {
        reject(new RequestError('the process is down', true));
        return;
      }
      this.#pending.set(id, { resolve, reject });
      this.#child.send({ id, request }, (error) => {
        if (error !== null) {
          this.#pending.delete(id);
          reject(new RequestError(error.message, false));
        }
      });
    });
  }

  status(): Promise<RaftStatus & { registers: [number, number][] }> {
    return this.request({ op: 'status' });
  }

  /** Ends it without warning; resolves when it is gone. */
  async kill(signal: NodeJS.Signals = 'SIGKILL'): Promise<void> {
    const child = this.#child;
    if (child === undefined) return;
    const exit = once(child, 'exit');
    child.kill(signal);
    await exit;
  }

  #onLeadership({ isLeader, term }: { isLeader?: boolean; term?: number }): void {
    this.isLeader = isLeader === true;
    this.term = term ?? 0;
    if (this.isLeader) this.onLeader?.();
  }

  #onAnswer({ id, value, error, name }: { id?: number; value?: never; error?: string; name?: string }): void {
    const pending = this.#pending.get(id ?? 0);
    this.#pending.delete(id ?? 0);
    if (error === undefined) pending?.resolve(value as never);
    else pending?.reject(new RequestError(error, name === 'NotLeaderError'));
  }
}

export interface RaftClusterOptions {
  /** host:port of each founder. */
  readonly addresses: readonly string[];
  /** Addresses of members that join later. */
  readonly spares?: readonly string[];
  readonly namespaces?: readonly string[];
  readonly snapshotInterval?: number;
  readonly logLevel?: RaftProcessConfig['logLevel'];
  readonly state?: Pick<RaftProcessConfig, 'snapshotPadding' | 'hasStore'>;
  /** Parent of the logs; default: the directory for temporary files. */
  readonly directory?: string;
}

export class RaftCluster implements AsyncDisposable {
  readonly processes: RaftProcess[];
  readonly #directory: string;

  private constructor(directory: string, processes: RaftProcess[]) {
    this.#directory = directory;
    this.processes = processes;
  }

  static async start(options: RaftClusterOptions): Promise<RaftCluster> {
    const {
      addresses,
      spares = [],
      namespaces = [],
      snapshotInterval = 10_000,
      logLevel = 'silent',
    } = options;
    const directory = await mkdtemp(path.join(options.directory ?? os.tmpdir(), 'tsw-raft-'));
    const members = [...addresses, ...spares].map((address, position) => ({
      id: position + 1,
      nodeId: `node-${position + 1}`,
      address,
    }));
    const founders = members.slice(0, addresses.length);
    const identities = await newIdentities(members.map(({ nodeId }) => nodeId));
    const processes = members.map((self, position) => {
      const identity = defined(identities.get(self.nodeId), 'an identity');
      const base = {
        self,
        directory: path.join(directory, self.nodeId),
        snapshotInterval,
        clusterId: TEST_CLUSTER,
        identity,
        logLevel,
        ...options.state,
      };
      const config = position < founders.length ? { ...base, founders } : base;
      return new RaftProcess(config, namespaces[position]);
    });
    const cluster = new RaftCluster(directory, processes);
    try {
      await Promise.all(processes.slice(0, founders.length).map((process) => process.start()));
      await cluster.leader();
    } catch (error) {
      await cluster[Symbol.asyncDispose]();
      throw error;
    }
    return cluster;
  }

  /** Whoever leads the youngest term, once somebody does. */
  leader(): Promise<RaftProcess> {
    return eventually(async () => {
      const [leader] = this.processes.filter(({ isLeader }) => isLeader).sort((a, b) => b.term - a.term);
      return defined(leader, 'nobody leads');
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.processes.map((process) => process.kill()));
    await rm(this.#directory, { recursive: true, force: true });
  }
}
