// A manager and an agent over a fake engine, in this process, talking over real sockets with a real log on disk.

import { mkdtemp, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { type Agent, startAgent } from '../../agent/agent.ts';
import { defaultRestartPolicy, defaultUpdateConfig, newServiceSpec } from '../../core/defaults.ts';
import {
  type ContainerSpec,
  emptyNodeDescription,
  type ServiceSpec,
  type Task,
} from '../../core/generated/objects.ts';
import { isWanted } from '../../core/task-state.ts';
import { x509Tool } from '../../manager/ca/x509.ts';
import { IdentityHolder } from '../../manager/identity-holder.ts';
import { runManager } from '../../manager/manager.ts';
import { systemClock } from '../../node/system-clock.ts';
import { ControlService } from '../../proto/generated/control.ts';
import { type Channel, type Client, createClient, openChannel } from '../../rpc/client.ts';
import { setLogLevel } from '../../rpc/logger.ts';
import { eventually } from './eventually.ts';
import { FakeEngine, FakeNetwork } from './fake-engine.ts';
import { FakeFiles } from './fake-files.ts';

setLogLevel('silent');

const NODE_ID = 'node0000000000000000000001';

export class TestCluster {
  readonly directory: string;
  readonly engine = new FakeEngine();
  readonly network = new FakeNetwork();
  #stopManager = new AbortController();
  #manager: Promise<void> = Promise.resolve();
  #agent: Agent | undefined;
  #channel: Channel | undefined;

  private constructor(directory: string) {
    this.directory = directory;
  }

  static async start(): Promise<TestCluster> {
    const cluster = new TestCluster(await mkdtemp(path.join(os.tmpdir(), 'tsw-cluster-')));
    await cluster.startManager();
    await cluster.startAgent();
    return cluster;
  }

  async startManager(): Promise<void> {
    this.#stopManager = new AbortController();
    this.#manager = runManager(
      {
        stateDirectory: this.directory,
        controlSocket: path.join(this.directory, 'control.sock'),
        managerSocket: path.join(this.directory, 'manager.sock'),
        nodeId: NODE_ID,
        clusterId: 'cluster',
        advertiseAddress: '127.0.0.1:0',
        listenAddress: '127.0.0.1:2377',
        founding: {
          spec: { heartbeatPeriodMs: 200, snapshotInterval: 50 },
          network: {},
          availability: 'active',
          dataPathAddress: '',
        },
        managers: [],
        unlockKeys: [],
        clock: systemClock,
        random: Math.random,
        tool: x509Tool,
        // Nobody else joins: without a certificate the port for nodes stays closed.
        identity: new IdentityHolder(),
      },
      this.#stopManager.signal,
    );
    this.#channel = openChannel(`unix://${path.join(this.directory, 'control.sock')}`);
    await eventually(() =>
      Promise.race([this.control.listNodes({}).then(() => true), this.#manager.then(() => false)]),
    );
  }

  async stopManager(): Promise<void> {
    this.#channel?.close();
    this.#stopManager.abort();
    await this.#manager;
  }

  async startAgent(): Promise<void> {
    this.#agent = await startAgent({
      nodeId: NODE_ID,
      connect: () => openChannel(`unix://${path.join(this.directory, 'manager.sock')}`),
      address: () => '127.0.0.1',
      onNews: () => {},
      engine: this.engine,
      network: this.network,
      files: new FakeFiles(),
      stateDirectory: path.join(this.directory, 'tasks'),
      describe: () => ({
        ...emptyNodeDescription,
        hostname: 'testnode',
        platform: { os: 'linux', architecture: 'amd64' },
        resources: { cpuNanos: 4e9, memoryBytes: 8 * 2 ** 30 },
      }),
      clock: systemClock,
      random: Math.random,
      onHealthCheck: () => {},
    });
  }

  async stopAgent(): Promise<void> {
    await this.#agent?.stop();
  }

  get control(): Client<typeof ControlService> {
    return createClient(ControlService, this.#channel as Channel);
  }

  /** All tasks of a service, as the manager has them. */
  async tasks(service: string): Promise<Task[]> {
    const { id } = (await this.control.getService({ service })).service;
    const tasks: Task[] = [];
    for await (const page of this.control.listTasks({ serviceIds: [id], nodeIds: [] }))
      tasks.push(...page.tasks);
    return tasks;
  }

  async running(service: string): Promise<Task[]> {
    return (await this.tasks(service)).filter((task) => isWanted(task) && task.status.state === 'running');
  }

  /** Until exactly this many wanted tasks run. */
  untilRunning(service: string, count: number): Promise<Task[]> {
    return eventually(async () => {
      const running = await this.running(service);
      if (running.length !== count) throw new Error(`${running.length} of ${count} run`);
      return running;
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stopAgent();
    await this.stopManager();
    await rm(this.directory, { recursive: true, force: true });
  }
}

export interface ServiceOptions {
  readonly replicas?: number;
  readonly container?: Partial<ContainerSpec>;
  readonly change?: (spec: ServiceSpec) => ServiceSpec;
}

/** A small service with quick restarts and updates. */
export function aService(
  name: string,
  { replicas = 1, container = {}, change = (spec) => spec }: ServiceOptions = {},
): ServiceSpec {
  const spec = newServiceSpec(name, { image: 'busybox:latest', ...container });
  return change({
    ...spec,
    task: { ...spec.task, restart: { ...defaultRestartPolicy, delayMs: 50 } },
    mode: { replicated: { replicas } },
    update: { ...defaultUpdateConfig, monitorMs: 100 },
    rollback: { ...defaultUpdateConfig, monitorMs: 100 },
  });
}
