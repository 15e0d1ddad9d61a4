// What must hold when a task is placed, and of nodes that are given up or drained, whoever leads. Judged by what the writer
// of the entry could know: the state that it saw when it proposed it.

import { parseAffinity } from '../../core/affinity.ts';
import { defaultClusterSpec } from '../../core/defaults.ts';
import type { Node, NodeDescription, Service, Task } from '../../core/generated/objects.ts';
import { giveUpsMax } from '../../core/node-silence.ts';
import { holdsResources, isTerminal, isWanted } from '../../core/task-state.ts';
import { DRAIN_REASON } from '../../manager/orchestrator/plan-drain.ts';
import { BRAKE_WINDOW_MS } from '../../manager/orchestrator/plan-lost-nodes.ts';
import type { StoreEvent } from '../../manager/store/apply-entry.ts';
import type { TablesView } from '../../manager/store/tables.ts';

type Check = (condition: boolean, rule: string, message: () => string) => void;

// Managers' clocks differ by up to a second.
const SKEW_MS = 1_000;

export class PlacementChecks {
  readonly #check: Check;
  /** What nodes have said that they have, by the entry that brought it, newest last. */
  readonly #sizes = new Map<string, { readonly index: number; readonly description: NodeDescription }[]>();
  /** The log index at which a node was removed. */
  readonly #removedAt = new Map<string, number>();
  /** Task → the entry by which it took on another spec. */
  readonly #respecifiedAt = new Map<string, number>();
  /** Service → the last entry that said anything of its tasks. */
  readonly #touchedAt = new Map<string, number>();
  /** Nodes that were given up, while they are there. */
  #givenUp: { readonly nodeId: string; readonly atMs: number }[] = [];
  /** The most that might ever be given up at once. */
  #giveUpsMax = 0;

  constructor(check: Check) {
    this.#check = check;
  }

  committed(view: TablesView, index: number, decidedAt: number, events: readonly StoreEvent[]): void {
    for (const { kind, action, object, previous } of events) {
      if (kind === 'node') this.#node(view, index, { action, object, previous } as StoreEvent);
      if (kind !== 'task') continue;
      const [task, before] = [object as Task, previous as Task | undefined];
      if (before !== undefined && before.specVersion !== task.specVersion)
        this.#respecifiedAt.set(task.id, index);
      if (action === 'removed') this.#respecifiedAt.delete(task.id);
      if (action === 'updated' && task.eviction === DRAIN_REASON && before?.eviction === undefined)
        this.#checkDrain(view, task, decidedAt);
    }
    for (const { kind, action, object, previous } of events) {
      if (kind !== 'task' || action === 'removed') continue;
      const [task, before] = [object as Task, previous as Task | undefined];
      const isAssigned = task.status.state === 'assigned' && before?.status.state !== 'assigned';
      if (isAssigned) this.#checkPlace(view, task, decidedAt);
    }
    for (const { kind, object } of events)
      if (kind === 'task') this.#touchedAt.set((object as Task).serviceId, index);
  }

  /** The most that the node ever said it has. */
  cpusMost(nodeId: string): number {
    const sizes = this.#sizes.get(nodeId) ?? [];
    return Math.max(0, ...sizes.map(({ description }) => description.resources.cpuNanos / 1e9));
  }

  #node(view: TablesView, index: number, { action, object, previous }: StoreEvent): void {
    const [node, before] = [object as Node, previous as Node | undefined];
    if (action === 'removed') {
      this.#sizes.delete(node.id);
      this.#removedAt.set(node.id, index);
      this.#givenUp = this.#givenUp.filter(({ nodeId }) => nodeId !== node.id);
      return;
    }
    const sizes = this.#sizes.get(node.id) ?? [];
    if (sizes.at(-1)?.description !== node.description)
      this.#sizes.set(node.id, [...sizes, { index, description: node.description }]);
    if (node.status.state === 'down') this.#checkBrake(view, node, before);
  }

  /** Nodes that go down are held first, and a share of all at most is given up in a minute. */
  #checkBrake(view: TablesView, { id, status }: Node, before: Node | undefined): void {
    this.#check(
      before?.status.state === 'down' || status.held === true,
      'brake',
      () => `node ${id} is down and nothing has held it`,
    );
    const { givenUpAtMs = 0 } = status;
    if (givenUpAtMs === (before?.status.givenUpAtMs ?? 0)) return;
    this.#givenUp.push({ nodeId: id, atMs: givenUpAtMs });
    const recent = this.#givenUp.filter(
      ({ atMs }) => Math.abs(givenUpAtMs - atMs) < BRAKE_WINDOW_MS - SKEW_MS,
    );
    const [cluster] = view.cluster.values();
    // One may have been removed since this was decided, and the share may have been another within the minute.
    const most = giveUpsMax(cluster?.spec ?? defaultClusterSpec, view.node.size + 1);
    this.#giveUpsMax = Math.max(this.#giveUpsMax, most);
    this.#check(
      new Set(recent.map(({ nodeId }) => nodeId)).size <= this.#giveUpsMax,
      'brake',
      () => `${recent.map(({ nodeId }) => nodeId)} are given up within a minute, ${this.#giveUpsMax} may`,
    );
  }

  /** Until its deadline a drained node loses no more tasks at a time than were asked for. */
  #checkDrain(view: TablesView, task: Task, decidedAt: number): void {
    const node = view.node.get(task.nodeId);
    if (node === undefined || node.meta.version > decidedAt || node.status.state === 'down') return;
    const { drainRate = 0, drainDeadlineMs = 0, availability } = node.spec;
    const endMs = (node.drainStartedAtMs ?? 0) + drainDeadlineMs - SKEW_MS;
    if (availability !== 'drain' || drainRate === 0 || task.meta.updatedAtMs >= endMs) return;
    const leaving = view
      .tasksOnNode(node.id)
      .filter(({ eviction, status }) => eviction === DRAIN_REASON && !isTerminal(status.state));
    this.#check(
      leaving.length <= drainRate,
      'drains',
      () => `${leaving.length} tasks leave ${node.id} at once, ${drainRate} are to`,
    );
  }

  #checkPlace(view: TablesView, task: Task, decidedAt: number): void {
    // Decided while the node was there: who looks after its other tasks looks after this one.
    if ((this.#removedAt.get(task.nodeId) ?? 0) > decidedAt) return;
    const all = this.#sizes.get(task.nodeId) ?? [];
    const sizes = all.filter((_, at) => (all[at + 1]?.index ?? Number.POSITIVE_INFINITY) > decidedAt);
    const descriptions = sizes.map(({ description }) => description);
    const others = view
      .tasksOnNode(task.nodeId)
      .filter((other) => other.id !== task.id && holdsResources(other));
    this.#checkReservations(view, task, { others, descriptions, decidedAt });
    this.#checkGeneric(task, others, descriptions);
    this.#checkAffinities(view, task, others.filter(isWanted), decidedAt);
  }

  #checkReservations(
    view: TablesView,
    task: Task,
    {
      others,
      descriptions,
      decidedAt,
    }: {
      readonly others: readonly Task[];
      readonly descriptions: readonly NodeDescription[];
      readonly decidedAt: number;
    },
  ): void {
    const reserved = (one: Task) => view.revisionOf(one)?.spec.task.resources.reservations.cpuNanos ?? 0;
    if (reserved(task) === 0) return;
    // What has grown in place meanwhile is looked after by evictions.
    const known = others.filter(({ id }) => (this.#respecifiedAt.get(id) ?? 0) <= decidedAt);
    const used = [task, ...known].reduce((total, one) => total + reserved(one), 0);
    const most = Math.max(0, ...descriptions.map(({ resources }) => resources.cpuNanos));
    this.#check(
      used <= most,
      'overbooked',
      () => `${task.id} is placed on ${task.nodeId}, which has ${most} for ${used}`,
    );
  }

  /** Nobody is given what somebody has, or what the node has not. */
  #checkGeneric(task: Task, others: readonly Task[], descriptions: readonly NodeDescription[]): void {
    for (const { kind, count, names } of task.genericResources) {
      const held = others.flatMap((other) => other.genericResources.filter((each) => each.kind === kind));
      const twice = names.find((name) => held.some((each) => each.names.includes(name)));
      this.#check(
        twice === undefined,
        'names',
        () => `${task.id} is given ${kind} ${twice} of ${task.nodeId}, which another task has`,
      );
      const had = descriptions.flatMap((each) => each.genericResources.filter((one) => one.kind === kind));
      const used = held.reduce((total, each) => total + each.count, count);
      this.#check(
        used <= Math.max(0, ...had.map((each) => each.count)) &&
          names.every((name) => had.some((each) => each.names.includes(name))),
        'names',
        () => `${task.id} is given ${count} ${kind} (${names}) of ${task.nodeId}, which does not have them`,
      );
    }
  }

  #checkAffinities(view: TablesView, task: Task, others: readonly Task[], decidedAt: number): void {
    const placement = view.revisionOf(task)?.spec.task.placement;
    const name = view.service.get(task.serviceId)?.spec.name;
    const isNew = ({ meta }: Service) => meta.version > decidedAt;
    const affinities = (placement?.affinities.map(parseAffinity) ?? []).filter(
      ({ isPreferred }) => !isPreferred,
    );
    for (const { service: wanted, isTogether } of affinities) {
      const service = view.byName('service', wanted);
      // Who comes with the same entry asks for the wishes of services as they are, not for those of an older version's tasks.
      const isOfNow = view.service.get(task.serviceId)?.specVersion === task.specVersion;
      const isThere = others.some(
        ({ serviceId, meta }) =>
          serviceId === service?.id && (isTogether || isOfNow || meta.version < task.meta.version),
      );
      // What was there may have gone since.
      if (isTogether && (service === undefined || (this.#touchedAt.get(service.id) ?? 0) > decidedAt))
        continue;
      this.#check(
        isThere === isTogether,
        'affinities',
        () =>
          `${task.id} of ${name} is placed on ${task.nodeId} although service${isTogether ? '==' : '!='}${wanted}`,
      );
    }
    for (const { serviceId } of others) {
      const other = view.service.get(serviceId);
      if (other === undefined || isNew(other)) continue;
      this.#check(
        !other.spec.task.placement.affinities.some((text) => text === `service!=${name}`),
        'affinities',
        () => `${task.id} of ${name} is placed on ${task.nodeId} beside ${other.spec.name}, which shuns it`,
      );
    }
  }
}
