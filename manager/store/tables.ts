// All objects in memory, with the indexes that the loops ask for. Changed only by applying log entries
// (`apply-entry.ts`); readers get the objects themselves, which are never modified; of tasks, equals of them (`task-table.ts`).

import type {
  Cluster,
  Config,
  Meta,
  Network,
  Node,
  Payload,
  Revision,
  Secret,
  Service,
  Task,
} from '../../core/generated/objects.ts';
import type { PackedTasks } from './task-events.ts';
import { type StateCount, type TaskReport, TaskTable } from './task-table.ts';

/** The kinds of object and their types. */
export interface Kinds {
  cluster: Cluster;
  node: Node;
  service: Service;
  revision: Revision;
  task: Task;
  network: Network;
  secret: Secret;
  config: Config;
  payload: Payload;
}
export type Kind = keyof Kinds;
export type StoredObject = Kinds[Kind];
export const KINDS = [
  'cluster',
  'node',
  'service',
  'revision',
  'task',
  'network',
  'secret',
  'config',
  'payload',
] as const satisfies readonly Kind[];
/** The kinds that have names, each name once, whatever its case. */
export type NamedKind = 'service' | 'network' | 'secret' | 'config';

/** One kind's objects by id, read-only. */
export interface TableView<T> {
  readonly size: number;
  get(id: string): T | undefined;
  values(): IterableIterator<T>;
}

/** What readers of the store see. */
export interface TablesView {
  readonly cluster: TableView<Cluster>;
  readonly node: TableView<Node>;
  readonly service: TableView<Service>;
  readonly revision: TableView<Revision>;
  readonly task: TableView<Task>;
  readonly network: TableView<Network>;
  readonly secret: TableView<Secret>;
  readonly config: TableView<Config>;
  readonly payload: TableView<Payload>;
  byName<K extends NamedKind>(kind: K, name: string): Kinds[K] | undefined;
  /** Undefined when there is no such task, empty when it has no node. */
  nodeOfTask(taskId: string): string | undefined;
  /** Where a task is and how it is there: without the rest of it. */
  taskReport(taskId: string): TaskReport | undefined;
  /** Of a service, or of all: without a look at each task. */
  taskStates(serviceId?: string): Iterable<StateCount>;
  /** All of them as they are now, whatever changes while they are read. */
  taskSnapshot(): Iterable<Task>;
  tasksOfService(serviceId: string): readonly Task[];
  tasksOnNode(nodeId: string): readonly Task[];
  revisionsOfService(serviceId: string): readonly Revision[];
  revisionOf(task: Task): Revision | undefined;
  /** All versions that are kept of a secret or config. */
  payloadsOf(sourceId: string): readonly Payload[];
}

/** Values by key and id: `entries("node-1")` are all objects indexed under node-1. */
class MultiIndex<T> {
  readonly #groups = new Map<string, Map<string, T>>();

  put(key: string, id: string, value: T): void {
    let group = this.#groups.get(key);
    if (group === undefined) {
      group = new Map();
      this.#groups.set(key, group);
    }
    group.set(id, value);
  }

  delete(key: string, id: string): void {
    const group = this.#groups.get(key);
    group?.delete(id);
    if (group?.size === 0) this.#groups.delete(key);
  }

  values(key: string): T[] {
    const group = this.#groups.get(key);
    return group === undefined ? [] : [...group.values()];
  }
}

export function isNamed(kind: string): kind is NamedKind {
  return kind === 'service' || kind === 'network' || kind === 'secret' || kind === 'config';
}

/** As names are compared. */
export function nameKey(object: Kinds[NamedKind]): string {
  return object.spec.name.toLowerCase();
}

/** "<service id>.<spec version>" */
export function revisionId(serviceId: string, specVersion: number): string {
  return `${serviceId}.${specVersion}`;
}

/** "<id of the secret or config>.<version>" */
export function payloadId(sourceId: string, version: number): string {
  return `${sourceId}.${version}`;
}

export class Tables implements TablesView {
  readonly cluster = new Map<string, Cluster>();
  readonly node = new Map<string, Node>();
  readonly service = new Map<string, Service>();
  readonly revision = new Map<string, Revision>();
  readonly task = new TaskTable();
  readonly network = new Map<string, Network>();
  readonly secret = new Map<string, Secret>();
  readonly config = new Map<string, Config>();
  readonly payload = new Map<string, Payload>();
  readonly #idByName = {
    service: new Map<string, string>(),
    network: new Map<string, string>(),
    secret: new Map<string, string>(),
    config: new Map<string, string>(),
  };
  readonly #revisionsByService = new MultiIndex<Revision>();
  readonly #payloadsBySource = new MultiIndex<Payload>();

  byName<K extends NamedKind>(kind: K, name: string): Kinds[K] | undefined {
    const id = this.#idByName[kind].get(name.toLowerCase());
    return id === undefined ? undefined : (this[kind] as Map<string, Kinds[K]>).get(id);
  }

  nodeOfTask(taskId: string): string | undefined {
    return this.task.nodeOf(taskId);
  }

  taskReport(taskId: string): TaskReport | undefined {
    return this.task.report(taskId);
  }

  taskStates(serviceId?: string): Iterable<StateCount> {
    return this.task.stateCounts(serviceId);
  }

  taskSnapshot(): Iterable<Task> {
    return this.task.snapshot();
  }

  tasksOfService(serviceId: string): readonly Task[] {
    return this.task.ofService(serviceId);
  }

  tasksOnNode(nodeId: string): readonly Task[] {
    return this.task.onNode(nodeId);
  }

  revisionsOfService(serviceId: string): readonly Revision[] {
    return this.#revisionsByService.values(serviceId);
  }

  revisionOf(task: Task): Revision | undefined {
    return this.revision.get(revisionId(task.serviceId, task.specVersion));
  }

  payloadsOf(sourceId: string): readonly Payload[] {
    return this.#payloadsBySource.values(sourceId);
  }

  get(kind: Kind, id: string): StoredObject | undefined {
    return this[kind].get(id);
  }

  versionOf(kind: Kind, id: string): number {
    return kind === 'task' ? this.task.versionOf(id) : (this[kind].get(id)?.meta.version ?? 0);
  }

  packTask(tasks: PackedTasks, id: string): number {
    return this.task.packInto(tasks, id);
  }

  putTaskStatus(id: string, status: Task['status'], meta: Omit<Meta, 'createdAtMs'>): void {
    this.task.putStatus(id, status, meta);
  }

  put<K extends Kind>(kind: K, object: Kinds[K]): void {
    if (kind === 'task') {
      this.task.put(object as Task);
      return;
    }
    this.#unindex(kind, object.id);
    (this[kind] as unknown as Map<string, Kinds[K]>).set(object.id, object);
    if (isNamed(kind)) this.#idByName[kind].set(nameKey(object as Kinds[NamedKind]), object.id);
    if (kind === 'revision')
      this.#revisionsByService.put((object as Revision).serviceId, object.id, object as Revision);
    if (kind === 'payload')
      this.#payloadsBySource.put((object as Payload).sourceId, object.id, object as Payload);
  }

  delete(kind: Kind, id: string): void {
    this.#unindex(kind, id);
    this[kind].delete(id);
  }

  #unindex(kind: Kind, id: string): void {
    if (isNamed(kind)) {
      const object = this[kind].get(id);
      const names = this.#idByName[kind];
      // Another may hold the name by now.
      if (object !== undefined && names.get(nameKey(object)) === id) names.delete(nameKey(object));
    } else if (kind === 'revision') {
      const revision = this.revision.get(id);
      if (revision !== undefined) this.#revisionsByService.delete(revision.serviceId, id);
    } else if (kind === 'payload') {
      const payload = this.payload.get(id);
      if (payload !== undefined) this.#payloadsBySource.delete(payload.sourceId, id);
    }
  }
}
