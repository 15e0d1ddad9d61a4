// What the scheduler knows of the cluster, kept up to date commit by commit: what every node has left, and where each
// service has its tasks.

import { isSamePlace } from '../../core/eligible-node.ts';
import { isRecentFailure } from '../../core/failing-node.ts';
import type {
  GenericResource,
  Node,
  Placement,
  Platform,
  Service,
  ServiceSpec,
  Task,
} from '../../core/generated/objects.ts';
import { parsePlacementPreference } from '../../core/placement-preference.ts';
import { holdsResources, isPlaced, isTerminal, isWanted } from '../../core/task-state.ts';
import { NONE } from '../../proto/wire.ts';
import type { TablesView } from '../store/tables.ts';
import { type FilterContext, type NeighbourCounts, NODE_FILTERS } from './filters.ts';
import { Neighbourhood, type Neighbours } from './neighbours.ts';
import {
  type Demand,
  demandOf,
  giveGeneric,
  type NodeInfo,
  newNodeInfo,
  noDemand,
  noteFailure,
  release,
  revisionKey,
  take,
  takeGenericBack,
} from './node-info.ts';
import { growTree, lighten, type NodeTree } from './node-tree.ts';
import { TaskCounts } from './task-counts.ts';

/** A version of a service, for as long as tasks of it hold something, or are about to. */
export interface Version {
  readonly number: number;
  readonly demand: Demand;
  readonly service: ServiceEntry;
  /** Bookings. */
  users: number;
}

interface ServiceEntry {
  readonly id: string;
  readonly counts: TaskCounts;
  /** Those that have users; few. */
  versions: readonly Version[];
}

/** What a task takes, of which node. */
export interface Booking {
  readonly info: NodeInfo;
  readonly version: Version;
  /** Of its node's, by name where they have names. */
  readonly generic: readonly GenericResource[];
  /** It counts among the tasks that are to be there; one that is told to stop only holds its resources. */
  readonly isWanted: boolean;
}

interface KnownTree {
  readonly placement: Placement;
  readonly tree: NodeTree;
}

// Of different wishes for nodes; when there are more, the oldest are worked out anew.
const TREES_MAX = 64;

export class ClusterBook {
  readonly #nodes = new Map<string, NodeInfo>();
  /** The same as a list, until they are others. */
  #list: readonly NodeInfo[] | undefined;
  /** Removed nodes, until their tasks are told to be gone. */
  readonly #gone = new Map<string, NodeInfo>();
  #indexEnd = 0;
  /** Of tasks that are about to be placed, until it is known whether they are. */
  readonly #planned = new Map<string, Booking>();
  readonly #services = new Map<string, ServiceEntry>();
  /** The oldest first. */
  #trees: KnownTree[] = [];
  readonly #neighbourhood = new Neighbourhood();

  /** Counts what every node has and carries; without the tasks that `isLeaving` names. */
  static of(view: TablesView, isLeaving?: (taskId: string) => boolean): ClusterBook {
    const book = new ClusterBook();
    for (const _ of book.#count(view, isLeaving));
    return book;
  }

  /** The same, node by node: others may have their turn in between. */
  static *counting(view: TablesView): Generator<void, ClusterBook> {
    const book = new ClusterBook();
    yield* book.#count(view);
    return book;
  }

  *#count(view: TablesView, isLeaving: (taskId: string) => boolean = () => false): Generator<void> {
    const nodes = [...view.node.values()];
    for (const node of nodes) this.noteNode(node.id, node);
    for (const service of view.service.values()) this.noteService(service.id, service);
    for (const { id } of nodes) {
      for (const task of view.tasksOnNode(id))
        if (!isLeaving(task.id)) this.noteTask(undefined, task, view.revisionOf(task)?.spec);
      yield;
    }
  }

  get nodes(): readonly NodeInfo[] {
    this.#list ??= [...this.#nodes.values()];
    return this.#list;
  }

  get nodeCount(): number {
    return this.#nodes.size;
  }

  node(id: string): NodeInfo | undefined {
    return this.#nodes.get(id);
  }

  /** What is known of a version of a service. */
  versionOf(serviceId: string, specVersion: number, spec: ServiceSpec | undefined): Version {
    const service = this.#services.get(serviceId) ?? {
      id: serviceId,
      counts: new TaskCounts(),
      versions: NONE,
    };
    if (service.versions.length > 0)
      for (const known of service.versions) if (known.number === specVersion) return known;
    return { number: specVersion, demand: spec === undefined ? noDemand : demandOf(spec), service, users: 0 };
  }

  /** Nodes as a spec wants to see them. */
  treeFor(spec: ServiceSpec): NodeTree {
    const { placement } = spec.task;
    for (const known of this.#trees) if (isSameWish(known.placement, placement)) return known.tree;
    const checks = NODE_FILTERS.flatMap(({ prepare }) => prepare(spec, { counts: new TaskCounts() }) ?? []);
    const tree = growTree(
      this.nodes,
      this.#indexEnd,
      placement.preferences.map(parsePlacementPreference),
      (info) => checks.every((check) => check(info)),
    );
    this.#trees.push({ placement, tree });
    if (this.#trees.length > TREES_MAX) this.#trees.shift();
    return tree;
  }

  /** What the filters have to know of others on a node; `version` is the one that is placed. */
  contextFor({ service }: Version, spec: ServiceSpec): FilterContext {
    const { counts } = service;
    const { required, preferred } = this.#neighbourhood.of(service.id, spec.task.placement.affinities);
    return {
      counts,
      neighbours: required && this.#countsOf(required, service),
      preferred: preferred && this.#countsOf(preferred, service),
    };
  }

  /** `service` is the one that is placed. */
  #countsOf({ together, apart }: Neighbours, service: ServiceEntry): NeighbourCounts {
    const countsOf = (id: string | undefined) =>
      id === service.id ? service.counts : (this.#services.get(id ?? '')?.counts ?? new TaskCounts());
    return { together: together.map(countsOf), apart: apart.map(countsOf) };
  }

  /** undefined: it is no more. True when it may make a difference to other services. */
  noteService(id: string, service: Service | undefined): boolean {
    return this.#neighbourhood.note(id, service);
  }

  /** undefined: it is no more. */
  noteNode(id: string, node: Node | undefined): void {
    const info = this.#nodes.get(id);
    if (node === undefined || info === undefined) this.#list = undefined;
    if (node === undefined) {
      this.#nodes.delete(id);
      if (info !== undefined && info.bookings > 0) this.#gone.set(id, info);
    } else if (info === undefined) this.#nodes.set(id, newNodeInfo(node, this.#indexEnd++));
    else {
      const [before, after] = [info.node.description.resources, node.description.resources];
      info.cpuNanosFree += after.cpuNanos - before.cpuNanos;
      info.memoryBytesFree += after.memoryBytes - before.memoryBytes;
      const isSame = isSamePlace(info.node, node);
      info.node = node;
      if (isSame) return;
    }
    this.#trees = [];
  }

  /** As a task was, and as it is now: undefined is not at all. `spec` is that of its revision. */
  noteTask(previous: Task | undefined, task: Task | undefined, spec: ServiceSpec | undefined): void {
    const id = (task ?? previous)?.id ?? '';
    const planned = this.#planned.get(id);
    // What was decided for it comes yet, also where it has to be written a second time because of this change.
    if (planned !== undefined && task !== undefined && isStillToBePlaced(task, planned)) return;
    if (planned !== undefined) this.#planned.delete(id);
    const before = planned ?? this.#bookingOf(previous, undefined);
    const after = this.#bookingOf(task, spec);
    if (!isSameBooking(before, after)) {
      if (after !== undefined) this.#add(after);
      if (before !== undefined) this.#remove(before);
    }
    const hasEnded = task !== undefined && isTerminal(task.status.state);
    if (hasEnded && (previous === undefined || !isTerminal(previous.status.state))) this.#noteEnd(task);
  }

  /** Books what a task will take that is about to be placed. */
  plan(booking: Booking): void {
    this.#add(booking);
  }

  /** Takes back what was booked by `plan` and of which no task was expected. */
  cancel(booking: Booking): void {
    this.#remove(booking);
  }

  /** Tells which task it is that something was booked for: what comes of it is not booked again. */
  expect(taskId: string, booking: Booking): void {
    this.#planned.set(taskId, booking);
  }

  /** What was expected of a task and has not happened by now will not. True when that was anything. */
  settle(taskId: string): boolean {
    const planned = this.#planned.get(taskId);
    if (planned === undefined) return false;
    this.#planned.delete(taskId);
    this.#remove(planned);
    return true;
  }

  #bookingOf(task: Task | undefined, spec: ServiceSpec | undefined): Booking | undefined {
    if (task === undefined || !holdsResources(task)) return undefined;
    const info = this.#nodes.get(task.nodeId) ?? this.#gone.get(task.nodeId);
    if (info === undefined) return undefined;
    const version = this.versionOf(task.serviceId, task.specVersion, spec);
    return { info, version, generic: task.genericResources, isWanted: isWanted(task) };
  }

  #add({ info, version, generic, isWanted: isCounted }: Booking): void {
    const { demand, service } = version;
    take(info, demand);
    giveGeneric(info, generic);
    info.bookings++;
    if (version.users++ === 0) {
      if (service.versions.length === 0) this.#services.set(service.id, service);
      service.versions = service.versions.length === 0 ? [version] : [...service.versions, version];
    }
    if (!isCounted) return;
    info.taskCount++;
    service.counts.add(info);
  }

  #remove({ info, version, generic, isWanted: wasCounted }: Booking): void {
    const { demand, service } = version;
    release(info, demand);
    takeGenericBack(info, generic);
    if (--info.bookings === 0) this.#gone.delete(info.node.id);
    if (--version.users === 0) {
      service.versions = service.versions.filter((other) => other !== version);
      if (service.versions.length === 0) this.#services.delete(service.id);
    }
    if (!wasCounted) return;
    info.taskCount--;
    service.counts.remove(info);
    for (const { tree } of this.#trees) lighten(tree, info);
  }

  #noteEnd(task: Task): void {
    const { nodeId, serviceId, specVersion, status } = task;
    const info = this.#nodes.get(nodeId);
    if (info !== undefined && isRecentFailure(task, status.timestampMs))
      noteFailure(info, revisionKey(serviceId, specVersion), status.timestampMs);
  }
}

/** As it was decided: who has another spec by now is not placed by the one before. */
function isStillToBePlaced(task: Task, { version }: Booking): boolean {
  return !isPlaced(task.status.state) && isWanted(task) && task.specVersion === version.number;
}

function isSameBooking(one: Booking | undefined, other: Booking | undefined): boolean {
  return one?.info === other?.info && one?.version === other?.version && one?.isWanted === other?.isWanted;
}

/** Services that ask the same of nodes share a tree. */
function isSameWish(one: Placement, other: Placement): boolean {
  return (
    isSameList(one.constraints, other.constraints, Object.is) &&
    isSameList(one.preferences, other.preferences, Object.is) &&
    isSameList(one.platforms, other.platforms, isSamePlatform)
  );
}

function isSamePlatform(one: Platform, other: Platform): boolean {
  return one.os === other.os && one.architecture === other.architecture;
}

function isSameList<T>(one: readonly T[], other: readonly T[], isSame: (a: T, b: T) => boolean): boolean {
  return one.length === other.length && one.every((each, at) => isSame(each, other[at] as T));
}
