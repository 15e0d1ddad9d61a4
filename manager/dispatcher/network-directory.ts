// Who is part of each network, kept up with the store, and what changed since agents were last told. Only the facts are
// sent: what a node makes of them for its kernel is the agent's business.

import { isDeepStrictEqual } from 'node:util';
import { effectiveNetwork } from '../../core/effective-network.ts';
import type { Network, Node, Service, Task } from '../../core/generated/objects.ts';
import { isIngressPort } from '../../core/ingress-port.ts';
import { isPlaced, isTerminal } from '../../core/task-state.ts';
import {
  emptyNetworkUpdate,
  type NetworkEndpoint,
  type NetworkService,
  type NetworkUpdate,
  type NodeLocation,
} from '../../proto/generated/dispatcher.ts';
import type { StoreEvent } from '../store/apply-entry.ts';
import type { TablesView } from '../store/tables.ts';

/** What changed in all networks; each agent gets the part that it takes part in. */
export interface DirectoryChanges {
  readonly networks: readonly NetworkUpdate[];
  /** Those that took connections before, and are still there. */
  readonly stopped: readonly NetworkEndpoint[];
  readonly nodes: readonly NodeLocation[];
  readonly removedNodeIds: readonly string[];
}

interface Entry {
  readonly endpoints: Map<string, NetworkEndpoint>;
  readonly services: Map<string, NetworkService>;
  readonly dirtyTasks: Set<string>;
  readonly dirtyServices: Set<string>;
  isNetworkDirty: boolean;
}

const WEIGHT_MAX = 100;

export class NetworkDirectory {
  readonly #view: TablesView;
  readonly #entries = new Map<string, Entry>();
  readonly #nodes = new Map<string, NodeLocation>();
  readonly #dirtyNodes = new Set<string>();
  #isDirty = false;

  /** Reads everything once; from then on `note` has to hear of every event. */
  constructor(view: TablesView) {
    this.#view = view;
    for (const service of view.service.values()) this.#noteService(service);
    for (const task of view.task.values()) this.#noteTask(task);
    for (const node of view.node.values()) this.#dirtyNodes.add(node.id);
    this.takeChanges();
  }

  /** Something may have changed since the last `takeChanges`. */
  get isDirty(): boolean {
    return this.#isDirty;
  }

  /** The ingress network while some service publishes ports in it: then every node takes part. */
  get meshNetworkId(): string | undefined {
    for (const [id, { services }] of this.#entries)
      if (services.size > 0 && this.#view.network.get(id)?.spec.ingress === true) return id;
    return undefined;
  }

  note({ kind, object, previous }: StoreEvent): void {
    if (kind === 'network') this.#touch(object.id).isNetworkDirty = true;
    else if (kind === 'service') {
      this.#noteService(object as Service);
      if (previous !== undefined) this.#noteService(previous as Service);
      if (hasOtherWeights(object as Service, previous as Service | undefined))
        for (const task of this.#view.tasksOfService(object.id)) this.#noteTask(task);
    } else if (kind === 'task') {
      this.#noteTask(object as Task);
      if (previous !== undefined) this.#noteTask(previous as Task);
    } else if (kind === 'node') this.#noteNode(object as Node, previous as Node | undefined);
  }

  /** All that an agent has to know of a network; undefined when there is none, or it is not ready. */
  complete(networkId: string): NetworkUpdate | undefined {
    const network = this.#view.network.get(networkId);
    if (network === undefined || !isAllocated(network)) return undefined;
    const entry = this.#entries.get(networkId);
    return {
      ...emptyNetworkUpdate,
      networkId,
      complete: true,
      network: this.#effective(network),
      dataPathPort: this.#dataPathPort(),
      endpoints: [...(entry?.endpoints.values() ?? [])],
      services: [...(entry?.services.values() ?? [])],
    };
  }

  nodes(): NodeLocation[] {
    return [...this.#nodes.values()];
  }

  /** What happened since the last call. */
  takeChanges(): DirectoryChanges {
    this.#isDirty = false;
    const networks: NetworkUpdate[] = [];
    const stopped: NetworkEndpoint[] = [];
    for (const [networkId, entry] of this.#entries) {
      if (!hasDirt(entry)) continue;
      const served = new Set([...entry.dirtyTasks].filter((id) => entry.endpoints.get(id)?.serving));
      const update = this.#takeUpdate(networkId, entry);
      if (update !== undefined) networks.push(update);
      stopped.push(
        ...(update?.endpoints ?? []).filter(({ taskId, serving }) => !serving && served.has(taskId)),
      );
      const isEmpty = entry.endpoints.size + entry.services.size === 0;
      if (isEmpty && this.#view.network.get(networkId) === undefined) this.#entries.delete(networkId);
    }
    return { networks, stopped, ...this.#takeNodes() };
  }

  #takeUpdate(networkId: string, entry: Entry): NetworkUpdate | undefined {
    const network = this.#view.network.get(networkId);
    const endpoints = refresh(entry.endpoints, entry.dirtyTasks, (id) => this.#endpointOf(id, networkId));
    const services = refresh(entry.services, entry.dirtyServices, (id) => this.#serviceOf(id, networkId));
    const tellsNetwork = entry.isNetworkDirty && network !== undefined && isAllocated(network);
    entry.isNetworkDirty = false;
    const count = [endpoints, services].flatMap(({ changed, removed }) => [...changed, ...removed]).length;
    if (count === 0 && !tellsNetwork) return undefined;
    return {
      ...emptyNetworkUpdate,
      networkId,
      ...(tellsNetwork && { network: this.#effective(network), dataPathPort: this.#dataPathPort() }),
      endpoints: endpoints.changed,
      removedTaskIds: endpoints.removed,
      services: services.changed,
      removedServiceIds: services.removed,
    };
  }

  #takeNodes(): Pick<DirectoryChanges, 'nodes' | 'removedNodeIds'> {
    const { changed, removed } = refresh(this.#nodes, this.#dirtyNodes, (id) => {
      const node = this.#view.node.get(id);
      const dataPathAddress = node && (node.dataPathAddress || node.status.address);
      if (node === undefined || !dataPathAddress) return undefined;
      const { tunnelAddress, description } = node;
      return { nodeId: id, dataPathAddress, tunnelAddress, tunnelKey: description.tunnelKey };
    });
    return { nodes: changed, removedNodeIds: removed };
  }

  #noteService(service: Service): void {
    for (const networkId of networksOfService(this.#view, service))
      this.#touch(networkId).dirtyServices.add(service.id);
  }

  #noteTask(task: Task): void {
    for (const { networkId } of task.attachments) this.#touch(networkId).dirtyTasks.add(task.id);
  }

  #noteNode(node: Node, previous: Node | undefined): void {
    this.#dirtyNodes.add(node.id);
    this.#isDirty = true;
    const isOther =
      previous === undefined ||
      isLost(node) !== isLost(previous) ||
      this.#view.node.get(node.id) === undefined ||
      !isDeepStrictEqual(node.spec.labels, previous.spec.labels);
    if (isOther) for (const task of this.#view.tasksOnNode(node.id)) this.#noteTask(task);
  }

  /** The entry of a network of which something may have changed. */
  #touch(networkId: string): Entry {
    this.#isDirty = true;
    let entry = this.#entries.get(networkId);
    if (entry === undefined) {
      entry = {
        endpoints: new Map(),
        services: new Map(),
        dirtyTasks: new Set(),
        dirtyServices: new Set(),
        isNetworkDirty: false,
      };
      this.#entries.set(networkId, entry);
    }
    return entry;
  }

  /** Nodes do not know config-only networks. */
  #effective(network: Network): Network {
    const source = this.#view.byName('network', network.spec.configFrom);
    return { ...network, spec: effectiveNetwork(network.spec, source?.spec) };
  }

  #dataPathPort(): number {
    const [cluster] = this.#view.cluster.values();
    return cluster?.network.dataPathPort ?? 0;
  }

  #endpointOf(taskId: string, networkId: string): NetworkEndpoint | undefined {
    const task = this.#view.task.get(taskId);
    if (task === undefined || !takesPart(task)) return undefined;
    const attachment = task.attachments.find((other) => other.networkId === networkId);
    const node = this.#view.node.get(task.nodeId);
    // Connections to what is on a lost node are to end, not to hang.
    if (attachment === undefined || node === undefined || isLost(node)) return undefined;
    return {
      taskId,
      serviceId: task.serviceId,
      nodeId: task.nodeId,
      slot: task.slot,
      addresses: attachment.addresses,
      // One with an error is being stopped because it is unhealthy.
      serving:
        task.status.state === 'running' &&
        task.status.error === '' &&
        (task.desiredState === 'running' || task.desiredState === 'complete'),
      weight: this.#weightOf(task, node),
      drainMs: this.#view.revisionOf(task)?.spec.endpoint.drainMs ?? 0,
    };
  }

  #weightOf(task: Task, node: Node): number {
    const label = this.#view.service.get(task.serviceId)?.spec.endpoint.weightLabel;
    const weight = label ? Number(node.spec.labels[label] ?? 1) : 1;
    return Number.isInteger(weight) && weight >= 1 && weight <= WEIGHT_MAX ? weight : 1;
  }

  #serviceOf(serviceId: string, networkId: string): NetworkService | undefined {
    const service = this.#view.service.get(serviceId);
    if (service === undefined || !networksOfService(this.#view, service).includes(networkId))
      return undefined;
    const isMesh = this.#view.network.get(networkId)?.spec.ingress === true;
    return {
      serviceId,
      name: service.spec.name,
      aliases: service.spec.task.networks.find((other) => other.networkId === networkId)?.aliases ?? [],
      virtualAddresses: service.virtualAddresses
        .filter((virtual) => virtual.networkId === networkId)
        .map(({ address }) => address),
      affinity: service.spec.endpoint.affinity,
      ports: isMesh ? service.ports.filter(isIngressPort) : [],
    };
  }
}

/** A task that an agent has or is about to have. */
export function takesPart(task: Task): boolean {
  return task.nodeId !== '' && !isTerminal(task.status.state) && isPlaced(task.status.state);
}

function networksOfService(view: TablesView, { spec, ports }: Service): string[] {
  const ids = spec.task.networks.map(({ networkId }) => networkId);
  if (!ports.some(isIngressPort)) return ids;
  for (const { id, spec: network } of view.network.values()) if (network.ingress) ids.push(id);
  return ids;
}

function isAllocated({ vni, spec }: Network): boolean {
  return vni !== 0 || spec.driver === 'macvlan' || spec.driver === 'ipvlan';
}

function isLost(node: Node): boolean {
  return node.status.state === 'down';
}

function hasOtherWeights(service: Service, previous: Service | undefined): boolean {
  return service.spec.endpoint.weightLabel !== (previous ?? service).spec.endpoint.weightLabel;
}

function hasDirt({ dirtyTasks, dirtyServices, isNetworkDirty }: Entry): boolean {
  return isNetworkDirty || dirtyTasks.size + dirtyServices.size > 0;
}

/** Looks again at what may have changed, and empties that set. */
function refresh<T>(
  known: Map<string, T>,
  dirty: Set<string>,
  read: (id: string) => T | undefined,
): { changed: T[]; removed: string[] } {
  const changed: T[] = [];
  const removed: string[] = [];
  for (const id of dirty) {
    const now = read(id);
    if (now === undefined) {
      if (known.delete(id)) removed.push(id);
    } else if (!isSame(known.get(id), now)) {
      known.set(id, now);
      changed.push(now);
    }
  }
  dirty.clear();
  return { changed, removed };
}

function isSame(a: unknown, b: unknown): boolean {
  return a !== undefined && isDeepStrictEqual(a, b);
}
