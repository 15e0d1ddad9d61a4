// An executor without containers: what the worker sees of an engine and a network, in memory. A test decides how
// containers end.

import { effectiveHealthCheck } from '../../agent/engine/containers/health-check.ts';
import type {
  ContainerConfig,
  ContainerExit,
  ContainerSummary,
  Containers,
  Engine,
  ExecRequest,
  ExecResult,
  Images,
  UserMapping,
  Volumes,
} from '../../agent/engine/engine.ts';
import type { Endpoint, EndpointRequest, TaskNetworks } from '../../agent/network/network.ts';
import type { Clock } from '../../core/clock.ts';
import { SwarmError } from '../../core/errors.ts';
import type { ResourceLimits } from '../../core/generated/objects.ts';
import { systemClock } from '../../node/system-clock.ts';
import type { NetworkAnswer, NetworkQuestion } from '../../proto/generated/dispatcher.ts';

interface FakeContainer {
  readonly config: ContainerConfig;
  status: ContainerSummary['status'];
  readonly ended: PromiseWithResolvers<ContainerExit>;
}

const SUCCESS: ExecResult = { exitCode: 0, output: '', hasTimedOut: false };

export class FakeEngine implements Engine {
  readonly #clock: Clock;
  readonly running = new Map<string, FakeContainer>();
  /** Images that pulls find; anything else does not exist. */
  readonly registry = new Set(['busybox:latest']);
  /** Called when a container starts; may throw, or end it by `exit`. */
  onStart: (config: ContainerConfig) => void = () => {};
  /** What a command in a container comes to; by default it succeeds. */
  onExec: (id: string, request: ExecRequest) => Promise<ExecResult> = async () => SUCCESS;
  /** What is wrong with a port of a container; by default nothing. */
  onProbe: Containers['probe'] = async () => undefined;
  /** Refuses limits by throwing. */
  onUpdate: (id: string, limits: ResourceLimits) => void = () => {};
  readonly #users = new Map<string, UserMapping>();
  readonly #pulled = new Set<string>();
  #pid = 1000;

  constructor(clock: Clock = systemClock) {
    this.#clock = clock;
  }

  readonly images: Images = {
    list: async () => [],
    find: async (reference) =>
      this.#pulled.has(reference)
        ? {
            digest: 'sha256:0',
            id: 'sha256:0',
            tags: [reference],
            digests: [],
            createdAtMs: 0,
            sizeBytes: 0,
            labels: {},
          }
        : undefined,
    pull: async (reference) => {
      if (!this.registry.has(reference))
        throw new SwarmError('not-found', `${reference} is not in the registry`);
      this.#pulled.add(reference);
      return 'sha256:0';
    },
    resolve: async () => ({ digest: 'sha256:0', platforms: [] }),
    import: async () => [],
    async *export() {},
    remove: async () => ({ untagged: [], deleted: [] }),
    tags: async () => [],
    check: async () => {},
    push: async () => ({ digest: 'sha256:0', sizeBytes: 0 }),
    tag: async () => {},
    inspect: async () => {
      throw new SwarmError('not-found', 'the fake engine knows nothing about images');
    },
    create: async () => 'sha256:0',
    prune: async () => ({ untagged: [], deleted: [], reclaimedBytes: 0 }),
  };

  readonly volumes: Volumes = {
    create: async () => {
      throw new SwarmError('unimplemented', 'the fake engine has no volumes');
    },
    list: async () => [],
    remove: async (name) => {
      throw new SwarmError('not-found', `get ${name}: no such volume`);
    },
  };

  readonly containers: Containers = {
    claimUsers: async (id) => {
      this.#users.set(id, {
        firstId: 1_000_000,
        userNamespace: `/users/${id}`,
        networkNamespace: `/net/${id}`,
      });
      return this.#users.get(id) as UserMapping;
    },
    create: async (config) => {
      if (!this.running.has(config.id))
        this.running.set(config.id, { config, status: { state: 'created' }, ended: Promise.withResolvers() });
    },
    start: async (id) => {
      const container = this.#get(id);
      this.onStart(container.config);
      const pid = ++this.#pid;
      if (container.status.state === 'created')
        container.status = { state: 'running', pid, startedAtMs: this.#clock.nowMs() };
      return pid;
    },
    wait: async (id, signal) => {
      signal?.throwIfAborted();
      const aborted = new Promise<never>((_, reject) =>
        signal?.addEventListener('abort', () => reject(signal.reason), { once: true }),
      );
      return Promise.race([this.#get(id).ended.promise, aborted]);
    },
    stop: async (id) => this.exit(id, 143),
    kill: async (id) => this.exit(id, 137),
    update: async (id, limits) => this.onUpdate(id, limits),
    remove: async (id) => {
      if (this.running.get(id)?.status.state === 'running') this.exit(id, 137);
      this.running.delete(id);
      this.#users.delete(id);
    },
    inspect: async (id) => {
      const container = this.running.get(id);
      const users = this.#users.get(id);
      return container && { ...summarize(container), ...(users && { users }) };
    },
    list: async () => [...this.running.values()].map(summarize),
    async *logs() {
      yield [{ stream: 'stdout', time: '2026-01-01T00:00:00.000000000Z', line: 'hello\n' }];
    },
    exec: async (id, request) => {
      request.signal?.throwIfAborted();
      if (this.#get(id).status.state !== 'running')
        throw new SwarmError('failed-precondition', `container ${id} is not running`);
      return this.onExec(id, request);
    },
    openExec: async () => {
      throw new SwarmError('unimplemented', 'the fake engine has no commands to talk to');
    },
    attach: async () => {
      throw new SwarmError('unimplemented', 'the fake engine has no containers to talk to');
    },
    stats: async () => {
      throw new SwarmError('unimplemented', 'the fake engine has no figures');
    },
    processes: async () => [],
    probe: (id, probe, limits) => this.onProbe(id, probe, limits),
  };

  /** Ends a container's process. */
  exit(id: string, exitCode: number): void {
    const container = this.#get(id);
    if (container.status.state === 'exited') return;
    const exit = { exitCode, exitedAtMs: this.#clock.nowMs(), outOfMemory: false };
    container.status = { state: 'exited', exit };
    container.ended.resolve(exit);
  }

  async describe() {
    return { containerdVersion: 'fake', runtime: 'fake', cgroupVersion: '2' as const, warnings: [] };
  }

  async [Symbol.asyncDispose](): Promise<void> {}

  #get(id: string): FakeContainer {
    const container = this.running.get(id);
    if (container === undefined) throw new SwarmError('not-found', `no container ${id}`);
    return container;
  }
}

function summarize({ config, status }: FakeContainer): ContainerSummary {
  const healthCheck = effectiveHealthCheck(config.healthCheck, { shell: ['sh', '-c'] });
  return { id: config.id, labels: config.labels, status, ...(healthCheck && { healthCheck }) };
}

export class FakeNetwork implements TaskNetworks {
  readonly endpoints = new Map<string, Endpoint>();
  /** What the caller has made for it. */
  readonly madeNamespaces = new Map<string, string | undefined>();
  #address = 1;

  async attach({ id, ports, madeNamespace }: EndpointRequest): Promise<Endpoint> {
    this.madeNamespaces.set(id, madeNamespace);
    const known = this.endpoints.get(id);
    if (known !== undefined) return known;
    const endpoint = {
      id,
      namespacePath: `/fake/${id}`,
      address: `10.0.0.${++this.#address}`,
      ports: ports.map((port) => ({ ...port, publishedPort: port.publishedPort || 40_000 + this.#address })),
      resolvConf: '',
    };
    this.endpoints.set(id, endpoint);
    return endpoint;
  }

  async drain(_id: string): Promise<void> {}

  async detach(id: string): Promise<void> {
    this.endpoints.delete(id);
  }

  async list(): Promise<string[]> {
    return [...this.endpoints.keys()];
  }

  async hear(): Promise<void> {}

  drained(): void {}

  async examine({ id }: NetworkQuestion): Promise<NetworkAnswer> {
    return { id, findings: [] };
  }
}
