// What the node's networks do for containers. Endpoints are named by the container that they belong to.
// Every method is safe to repeat after a crash: an operation that finds its work done succeeds.

import type { PortConfig, TaskAttachment } from '../../core/generated/objects.ts';
import type { Assignments, NetworkAnswer, NetworkQuestion } from '../../proto/generated/dispatcher.ts';

export interface EndpointRequest {
  /** The container's id. */
  readonly id: string;
  /** Host-mode ports; published port 0 asks for a free one. */
  readonly ports: readonly PortConfig[];
  /**
   * A namespace that the caller has pinned, and unpins after `detach`: the container gets a further link, whose name
   * follows those it has. Without it the network makes the namespace.
   */
  readonly namespacePath?: string;
  /** One that the caller has made and pinned, instead of a new one. */
  readonly madeNamespace?: string | undefined;
  /** Of a further link: whether it leads out. When it does not, it answers what comes in by it. */
  readonly isDefaultRoute?: boolean;
}

export interface Endpoint {
  readonly id: string;
  /** For the container runtime to join. */
  readonly namespacePath: string;
  readonly address: string;
  readonly ipv6Address?: string;
  /** With the published ports as they came to be. */
  readonly ports: readonly PortConfig[];
  /** Contents of the container's /etc/resolv.conf, unless another network has given them. */
  readonly resolvConf: string;
}

/** The network of this node alone. */
export interface Network extends AsyncDisposable {
  /** Namespace, addresses, routes. A published port that is taken is `failed-precondition`, naming the port. */
  attach(request: EndpointRequest): Promise<Endpoint>;
  /** Lets no new traffic reach the endpoint: before its container is stopped. */
  drain(id: string): Promise<void>;
  /** Takes everything down; unknown ids are fine. */
  detach(id: string): Promise<void>;
  /** The endpoints that exist, also those made before a restart of this process. */
  list(): Promise<Endpoint[]>;
}

export interface TaskNetworkRequest extends Pick<EndpointRequest, 'id' | 'ports' | 'madeNamespace'> {
  /** In networks of the cluster, in the order of the interfaces; none: the network of the node alone. */
  readonly attachments: readonly TaskAttachment[];
  /** Whom its network's name server asks for names of the world outside; absent: whom the node asks. */
  readonly nameServers?: readonly string[];
  /** Instead of all others: the node's own interfaces, or nothing but loopback. */
  readonly instead?: 'host' | 'none';
}

/** All networks that a task can be part of on this node. */
export interface TaskNetworks {
  /** What the managers say of the cluster's networks. Resolves when it is in the kernel, or cannot be for now. */
  hear(assignments: Assignments): Promise<void>;
  /** All nodes have taken these tasks out of their services. */
  drained(taskIds: readonly string[]): void;
  attach(request: TaskNetworkRequest): Promise<Endpoint>;
  /**
   * Returns when nobody begins a connection to it any more and connections have had `drainMs` to end, or when the
   * signal does not want to wait for that.
   */
  drain(id: string, drainMs: number, signal: AbortSignal): Promise<void>;
  detach(id: string): Promise<void>;
  /** Ids of the containers that have something here. */
  list(): Promise<string[]>;
  /** What a manager wants to know about the networks of this node. */
  examine(question: NetworkQuestion): Promise<NetworkAnswer>;
}
