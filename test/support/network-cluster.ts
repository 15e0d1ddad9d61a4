// A cluster of hosts with services on networks: what tests of the network start with.

import {
  type ClusterSpec,
  emptyNetworkSpec,
  type Network,
  type NetworkSpec,
  type PortConfig,
  type Service,
  type ServiceSpec,
  type Task,
} from '../../core/generated/objects.ts';
import { buildDemoImage } from '../../deploy/demo-image.ts';
import { type Answer, ask, echoContainer, type Place, type Question } from './echo-service.ts';
import { eventually } from './eventually.ts';
import { RealCluster } from './real-cluster.ts';
import type { RealNode } from './real-node.ts';
import { createService, untilRunning } from './services.ts';

export const echoImage = 'localhost/bb:1';

export interface Started {
  readonly service: Service;
  readonly tasks: readonly Task[];
}

export interface EchoOptions {
  readonly replicas?: number;
  /** Names or ids. */
  readonly networks?: readonly string[];
  readonly ports?: readonly PortConfig[];
  readonly change?: (spec: ServiceSpec) => ServiceSpec;
}

export class NetworkCluster implements AsyncDisposable {
  readonly cluster: RealCluster;

  private constructor(cluster: RealCluster) {
    this.cluster = cluster;
  }

  /** One manager and workers. `name` as of a `NetnsLan`. */
  static async start(name: string, count: number, spec: Partial<ClusterSpec> = {}): Promise<NetworkCluster> {
    return NetworkCluster.begin(name, count, async (cluster) => {
      await cluster.init(spec);
      for (let position = 1; position < count; position++) await cluster.join(position, 'worker');
    });
  }

  /** `form` makes one cluster of the daemons. */
  static async begin(
    name: string,
    count: number,
    form: (cluster: RealCluster) => Promise<void>,
  ): Promise<NetworkCluster> {
    const started = new NetworkCluster(await RealCluster.start(name, count));
    try {
      await form(started.cluster);
      const { archive } = await buildDemoImage({ name: echoImage });
      for (const node of started.cluster.nodes) await node.importImage(archive);
    } catch (error) {
      await started[Symbol.asyncDispose]();
      throw error;
    }
    return started;
  }

  get manager(): RealNode {
    return this.cluster.node(0);
  }

  async createNetwork(name: string, change: Partial<NetworkSpec> = {}): Promise<Network> {
    const spec = { ...emptyNetworkSpec, name, ...change };
    return (await this.manager.control.createNetwork({ spec })).network;
  }

  /** Until all of its tasks run, which is when they answer. */
  async startEcho(name: string, options: EchoOptions): Promise<Started> {
    const { replicas = 1, networks = [], ports = [], change = (spec: ServiceSpec) => spec } = options;
    const service = await createService(this.manager, name, {
      image: echoImage,
      replicas,
      container: echoContainer(),
      ports,
      change: (spec) => change({ ...spec, task: { ...spec.task, networks: networks.map(attachmentTo) } }),
    });
    const tasks = await untilRunning(this.manager, service.id, replicas);
    return { service, tasks };
  }

  async update(service: string, change: (spec: ServiceSpec) => ServiceSpec): Promise<void> {
    const { control } = this.manager;
    const { id, specVersion, spec } = (await control.getService({ service })).service;
    await control.updateService({ serviceId: id, version: specVersion, spec: change(spec), rollback: false });
  }

  async remove(...services: string[]): Promise<void> {
    for (const service of services) await this.manager.control.removeService({ service });
  }

  /** The id of the node on a host. */
  async nodeId(position: number): Promise<string> {
    return (await this.cluster.find(position)).id;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.cluster[Symbol.asyncDispose]();
  }
}

export function attachmentTo(networkId: string): ServiceSpec['task']['networks'][number] {
  return { networkId, aliases: [], virtualAddresses: [], options: {} };
}

/** Asks until the answer is as wanted. */
export function untilAnswered(
  place: Place,
  question: Question,
  isRight: (answer: Answer) => boolean = ({ error }) => error === '',
): Promise<true> {
  return eventually(async () => {
    const [answer] = await ask(place, question);
    if (answer !== undefined && isRight(answer)) return true;
    throw new Error(JSON.stringify(answer));
  });
}

/** As an answer names them. */
export function serverNames(tasks: readonly Task[]): string[] {
  return tasks.map(({ id }) => id.slice(0, 12)).sort();
}

/** Who answered, each once. What went wrong is among them. */
export function serversIn(answers: readonly Answer[]): string[] {
  return [...new Set(answers.map(({ server, error }) => server || error))].sort();
}
