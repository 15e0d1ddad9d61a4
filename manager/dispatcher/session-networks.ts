// Which networks one agent was told of. It hears of a network with the first task that is part of it, and of its end after
// the last; of the ingress network as long as a service publishes ports.

import type { Task } from '../../core/generated/objects.ts';
import type { Assignments, NetworkUpdate } from '../../proto/generated/dispatcher.ts';
import type { TablesView } from '../store/tables.ts';
import { type DirectoryChanges, type NetworkDirectory, takesPart } from './network-directory.ts';

export type NetworkNews = Pick<Assignments, 'networks' | 'removedNetworkIds' | 'nodes' | 'removedNodeIds'>;

export const noNetworkNews: NetworkNews = Object.freeze({
  networks: [],
  removedNetworkIds: [],
  nodes: [],
  removedNodeIds: [],
});

export class SessionNetworks {
  readonly #nodeId: string;
  readonly #known = new Set<string>();
  #knowsNodes = false;
  /** What the node's tasks take part in may be something else than last time. */
  #isStale = true;
  #mesh: string | undefined;

  constructor(nodeId: string) {
    this.#nodeId = nodeId;
  }

  /** A task of the node is another, or gone. */
  note({ attachments }: Task): void {
    this.#isStale ||= attachments.length > 0;
  }

  /** What the node's tasks need and the agent does not know yet, and what it no longer needs. */
  catchUp(view: TablesView, directory: NetworkDirectory): NetworkNews {
    if (!this.#isStale && directory.meshNetworkId === this.#mesh) return noNetworkNews;
    this.#mesh = directory.meshNetworkId;
    const wanted = networksOfNode(view, directory, this.#nodeId);
    const networks: NetworkUpdate[] = [];
    for (const id of wanted) {
      const update = this.#known.has(id) ? undefined : directory.complete(id);
      if (update === undefined) continue;
      this.#known.add(id);
      networks.push(update);
    }
    // One that is not there yet is looked for again.
    this.#isStale = [...wanted].some((id) => !this.#known.has(id));
    const removedNetworkIds = [...this.#known].filter((id) => !wanted.has(id));
    for (const id of removedNetworkIds) this.#known.delete(id);
    const tellsNodes = networks.length > 0 && !this.#knowsNodes;
    this.#knowsNodes ||= tellsNodes;
    return { ...noNetworkNews, networks, removedNetworkIds, nodes: tellsNodes ? directory.nodes() : [] };
  }

  /** The part of the changes that concerns what the agent knows. */
  select(changes: DirectoryChanges): NetworkNews {
    if (!this.#knowsNodes) return noNetworkNews;
    const networks = changes.networks.filter(({ networkId }) => this.#known.has(networkId));
    const { nodes, removedNodeIds } = changes;
    return { networks, removedNetworkIds: [], nodes, removedNodeIds };
  }
}

export function isNoNews({ networks, removedNetworkIds, nodes, removedNodeIds }: NetworkNews): boolean {
  return networks.length + removedNetworkIds.length + nodes.length + removedNodeIds.length === 0;
}

function networksOfNode(view: TablesView, directory: NetworkDirectory, nodeId: string): Set<string> {
  const mesh = directory.meshNetworkId;
  const ids = new Set(mesh === undefined ? [] : [mesh]);
  for (const task of view.tasksOnNode(nodeId))
    if (takesPart(task)) for (const { networkId } of task.attachments) ids.add(networkId);
  return ids;
}
