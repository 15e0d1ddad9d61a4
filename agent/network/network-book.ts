// What the managers have told this node of the cluster's networks and nodes. Pure.

import type { Network } from '../../core/generated/objects.ts';
import {
  type Assignments,
  emptyAssignments,
  type NetworkEndpoint,
  type NetworkUpdate,
  type NodeLocation,
} from '../../proto/generated/dispatcher.ts';
import { NetworkFacts, type Surroundings } from './network-facts.ts';
import type { OverlayNetwork, OverlayState } from './overlay/overlay.ts';

export class NetworkBook {
  readonly #surroundings: Surroundings;
  readonly #networks = new Map<string, NetworkFacts>();
  readonly #nodes = new Map<string, NodeLocation>();
  /** Tasks of this node that take no more connections, before the managers say so. */
  readonly #leaving = new Set<string>();
  /** Tasks of this node that were ever told to serve. */
  readonly #served = new Set<string>();

  constructor(nodeId: string) {
    this.#surroundings = {
      nodeId,
      locationOf: (id) => this.#nodes.get(id),
      isLeaving: (taskId) => this.#leaving.has(taskId),
    };
  }

  /** Takes in a message; returns the networks that look different now. */
  hear({ complete, networks, removedNetworkIds, nodes, removedNodeIds }: Assignments): Set<string> {
    const changed = new Set<string>();
    const said = new Set(networks.map(({ networkId }) => networkId));
    const gone = complete ? [...this.#networks.keys()].filter((id) => !said.has(id)) : removedNetworkIds;
    for (const id of gone) if (this.#networks.delete(id)) changed.add(id);
    for (const update of networks) if (this.#update(update)) changed.add(update.networkId);
    if (nodes.length + removedNodeIds.length === 0) return changed;
    if (complete) this.#nodes.clear();
    for (const node of nodes) this.#nodes.set(node.nodeId, node);
    for (const id of removedNodeIds) this.#nodes.delete(id);
    for (const [id, facts] of this.#networks) {
      facts.forgetAll();
      changed.add(id);
    }
    return changed;
  }

  get ids(): string[] {
    return [...this.#networks.keys()];
  }

  /** A service in a network and its tasks there. */
  serviceIn(networkId: string, serviceId: string): ReturnType<NetworkFacts['serviceFacts']> {
    return this.#networks.get(networkId)?.serviceFacts(serviceId) ?? { service: undefined, endpoints: [] };
  }

  /** By network: tasks that have stopped serving since the last call, and are there still. */
  takeStopped(): (readonly [networkId: string, endpoints: readonly NetworkEndpoint[]])[] {
    return [...this.#networks].flatMap(([id, facts]) => {
      const endpoints = facts.takeStopped();
      return endpoints.length === 0 ? [] : [[id, endpoints] as const];
    });
  }

  /** The task takes no new connections any more. Returns its networks. */
  leave(taskId: string): string[] {
    const found = [...this.#networks].filter(([, facts]) => facts.endpoint(taskId) !== undefined);
    if (found.length > 0) this.#leaving.add(taskId);
    for (const [, facts] of found) facts.reconsider(taskId);
    return found.map(([id]) => id);
  }

  /** undefined: the managers have not told of it. */
  get(networkId: string): Network | undefined {
    return this.#networks.get(networkId)?.network;
  }

  /** What the managers know of this node; undefined before they have said anything. */
  get own(): NodeLocation | undefined {
    return this.#nodes.get(this.#surroundings.nodeId);
  }

  get otherNodes(): NodeLocation[] {
    return [...this.#nodes.values()].filter(({ nodeId }) => nodeId !== this.#surroundings.nodeId);
  }

  /** 0: no network is known. */
  get dataPathPort(): number {
    for (const { dataPathPort } of this.#networks.values()) return dataPathPort;
    return 0;
  }

  /** Some service sends this task of this node connections, or did. */
  hasServed(taskId: string): boolean {
    return this.#served.has(taskId);
  }

  /** The task is gone from this node. */
  forget(taskId: string): void {
    this.#served.delete(taskId);
  }

  /** undefined: it is not there, or the kernel needs nothing of ours for it. */
  overlayNetwork(networkId: string): OverlayNetwork | undefined {
    return this.#networks.get(networkId)?.overlayNetwork();
  }

  /** What the kernel is to know of a network; nothing for one that is not there. */
  overlayState(networkId: string): OverlayState {
    const facts = this.#networks.get(networkId);
    return facts?.overlayState(this.otherNodes) ?? { remotes: [], services: [], names: [] };
  }

  /** A message that says all of this again, for the next process. */
  memory(): Assignments {
    const networks = [...this.#networks.values()].map((facts) => facts.memory());
    return { ...emptyAssignments, complete: true, networks, nodes: [...this.#nodes.values()] };
  }

  #update(update: NetworkUpdate): boolean {
    const { networkId, complete, network, dataPathPort } = update;
    const before = this.#networks.get(networkId);
    // Differences to a network that this node was never told of are nobody's.
    if (complete && network !== undefined)
      this.#networks.set(networkId, new NetworkFacts(this.#surroundings, network, dataPathPort));
    const facts = this.#networks.get(networkId);
    facts?.hear(update);
    if (before !== undefined && before !== facts) facts?.noteStopped(before);
    for (const { taskId, nodeId, serving } of update.endpoints)
      if (serving && nodeId === this.#surroundings.nodeId) this.#served.add(taskId);
    // From now on managers know that they are gone.
    for (const id of update.removedTaskIds) this.#leaving.delete(id);
    return facts !== undefined;
  }
}
