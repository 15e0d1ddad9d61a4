// An executor without containers: what the worker sees of an engine and a network, in memory. A test decides how
// containers end.

import type {
  ContainerConfig,
  ContainerExit,
  ContainerSummary,
  Containers,
  Engine,
  Images,
} from '../../agent/engine/engine.ts';
import type { Endpoint, EndpointRequest, TaskNetworks } from '../../agent/network/network.ts';
import { SwarmError } from '../../core/errors.ts';
import type { NetworkAnswer, NetworkQuestion } from '../../proto/generated/dispatcher.ts';

interface FakeContainer {
  readonly config: ContainerConfig;
  status: ContainerSummary['status'];
  readonly ended: PromiseWithResolvers<ContainerExit>;
}

export class FakeEngine implements Engine {
  readonly running = new Map<string, FakeContainer>();
  /** Images that pulls find; anything else does not exist. */
  readonly registry = new Set(['busybox:latest']);
  /** Called when a container starts; may throw, or end it by `exit`. */
  onStart: (config: ContainerConfig) => void = () => {};
  readonly #pulled = new Set<string>();
  #pid = 1000;

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
  };

  readonly containers: Containers = {
    create: async (config) => {
      if (!this.running.has(config.id))
        this.running.set(config.id, { config, status: { state: 'created' }, ended: Promise.withResolvers() });
    },
    start: async (id) => {
      const container = this.#get(id);
      this.onStart(container.config);
      const pid = ++this.#pid;
      if (container.status.state === 'created') container.status = { state: 'running', pid };
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
    remove: async (id) => {
      if (this.running.get(id)?.status.state === 'running') this.exit(id, 137);
      this.running.delete(id);
    },
    inspect: async (id) => {
      const container = this.running.get(id);
      return container && { id, labels: container.config.labels, status: container.status };
    },
    list: async () =>
      [...this.running].map(([id, { config, status }]) => ({ id, labels: config.labels, status })),
    async *logs() {
      yield { stream: 'stdout', time: '2026-01-01T00:00:00.000000000Z', line: 'hello\n' };
    },
  };

  /** Ends a container's process. */
  exit(id: string, exitCode: number): void {
    const container = this.#get(id);
    if (container.status.state === 'exited') return;
    const exit = { exitCode, exitedAtMs: Date.now(), outOfMemory: false };
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

export class FakeNetwork implements TaskNetworks {
  readonly endpoints = new Map<string, Endpoint>();
  #address = 1;

  async attach({ id, ports }: EndpointRequest): Promise<Endpoint> {
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

  async drain(): Promise<void> {}

  async detach(id: string): Promise<void> {
    this.endpoints.delete(id);
  }

  async list(): Promise<string[]> {
    return [...this.endpoints.keys()];
  }

  hear(): void {}

  async examine({ id }: NetworkQuestion): Promise<NetworkAnswer> {
    return { id, findings: [] };
  }
}
