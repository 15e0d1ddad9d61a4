// What a network does for containers on this node. Endpoints are named by the container that they belong to.
// Every method is safe to repeat after a crash: an operation that finds its work done succeeds.

import type { PortConfig } from '../../core/generated/objects.ts';

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
  /** Of a further link: whether it leads out. When it does not, it answers what comes in by it. */
  readonly isDefaultRoute?: boolean;
}

export interface Endpoint {
  readonly id: string;
  /** For the container runtime to join. */
  readonly namespacePath: string;
  readonly address: string;
  /** With the published ports as they came to be. */
  readonly ports: readonly PortConfig[];
  /** Contents of the container's /etc/resolv.conf, unless another network has given them. */
  readonly resolvConf: string;
}

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
