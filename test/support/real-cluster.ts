// Several whole nodes, each on a host of its own: a network namespace on one bridge.

import type { Node, NodeRole } from '../../core/generated/objects.ts';
import { type ClusterSpec, emptyClusterSpec } from '../../core/generated/objects.ts';
import { emptyInitRequest, emptyJoinRequest } from '../../proto/generated/node.ts';
import { eventually } from './eventually.ts';
import { NetnsLan } from './netns-lan.ts';
import { RealNode } from './real-node.ts';

export interface ClusterOptions {
  /** Hosts without a daemon, behind those with one. */
  readonly otherHosts?: number;
  /** More flags for the daemons. */
  readonly flags?: readonly string[];
}

export class RealCluster {
  readonly lan: NetnsLan;
  readonly nodes: RealNode[] = [];

  private constructor(lan: NetnsLan) {
    this.lan = lan;
  }

  /** Daemons on so many hosts; no cluster yet. `name` as of a `NetnsLan`. */
  static async start(name: string, count: number, options: ClusterOptions = {}): Promise<RealCluster> {
    const { otherHosts = 0, flags = [] } = options;
    const cluster = new RealCluster(new NetnsLan(name, count + otherHosts));
    try {
      for (const netns of cluster.lan.hosts.slice(0, count))
        cluster.nodes.push(await RealNode.start({ netns, flags }));
    } catch (error) {
      await cluster[Symbol.asyncDispose]();
      throw error;
    }
    return cluster;
  }

  /** The daemon on a host, counted from 0. */
  node(position: number): RealNode {
    const node = this.nodes[position];
    if (node === undefined) throw new Error(`there is no host ${position}`);
    return node;
  }

  async init(spec: Partial<ClusterSpec> = {}): Promise<string> {
    const said = { heartbeatPeriodMs: 1_000, ...spec };
    const { unlockKey } = await this.node(0).node.init({
      ...emptyInitRequest,
      cluster: { ...emptyClusterSpec, ...said },
      clusterFields: Object.keys(said),
    });
    return unlockKey;
  }

  /** Joins a host by a token and the addresses of managers. */
  async join(position: number, role: NodeRole, via = 0): Promise<string> {
    const tokens = await this.node(via).control.getJoinTokens({});
    const { nodeId } = await this.node(position).node.join({
      ...emptyJoinRequest,
      token: tokens[role],
      managers: tokens.addresses,
    });
    return nodeId;
  }

  /** The node of a host as the cluster has it, asked from another host. */
  async find(position: number, asked = 0): Promise<Node> {
    const { nodes } = await this.node(asked).control.listNodes({});
    const hostname = this.lan.hosts[position];
    const node = nodes.find(({ description }) => description.hostname === hostname);
    if (node === undefined) throw new Error(`${hostname} is not among ${nodes.length} nodes`);
    return node;
  }

  /** Until the node of a host looks as wanted. */
  until(position: number, wanted: (node: Node) => boolean, asked = 0, limitMs = 30_000): Promise<Node> {
    return eventually(async () => {
      const node = await this.find(position, asked);
      if (!wanted(node)) throw new Error(`it is ${JSON.stringify({ ...node, description: undefined })}`);
      return node;
    }, limitMs);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const ended = await Promise.allSettled(this.nodes.map((node) => node[Symbol.asyncDispose]()));
    this.lan[Symbol.dispose]();
    const failed = ended.find((result) => result.status === 'rejected');
    if (failed !== undefined) throw failed.reason;
  }
}
