// What must hold after every entry of the log, whoever decided it and whatever became of the cluster meanwhile. A decision
// is judged by what its writer could know: the state that it saw when it proposed the entry.

import { inspect, isDeepStrictEqual } from 'node:util';
import { takesTasks } from '../../core/eligible-node.ts';
import { messageOf } from '../../core/errors.ts';
import type { Node, Service, Task } from '../../core/generated/objects.ts';
import { isIngressPort } from '../../core/ingress-port.ts';
import { compareTaskStates, isPlaced, isTerminal, isWanted } from '../../core/task-state.ts';
import { ClusterBook } from '../../manager/placement/cluster-book.ts';
import type { StoreEvent } from '../../manager/store/apply-entry.ts';
import type { ReplicatedLog, StateMachine } from '../../manager/store/replicated-log.ts';
import type { TablesView } from '../../manager/store/tables.ts';
import { LogEntryCodec } from '../../proto/generated/log.ts';
import { decode } from '../../proto/wire.ts';
import { Violation } from './core-checks.ts';
import { PlacementChecks } from './placement-checks.ts';
import { ServiceChecks } from './service-checks.ts';
import type { SimContainer } from './sim-tasks.ts';

// What is looked at as a whole is looked at after every so many entries.
const WHOLE_EVERY = 16;

export class OrchestrationChecks {
  /** How often something was checked, by rule. */
  readonly counts = new Map<string, number>();
  failure: Violation | undefined;
  index = 0;
  /** Payload → index of the state that its writer saw. */
  readonly #decided = new Map<string, number>();
  #decidedAt = 0;
  /** Of the entry that is being applied. */
  #payload: Uint8Array = new Uint8Array();
  /** "network address" → who has it. */
  readonly #addresses = new Map<string, string>();
  /** Node → since which entry it takes no tasks. */
  readonly #closed = new Map<string, number>();
  readonly #leaving = new Set<string>();
  readonly #services: ServiceChecks;
  readonly #placement: PlacementChecks;

  readonly #onCommit: (events: readonly StoreEvent[]) => void;

  /** `onCommit` hears of every entry once. */
  constructor(onCommit: (events: readonly StoreEvent[]) => void = () => {}) {
    this.#onCommit = onCommit;
    const check = this.check.bind(this);
    this.#services = new ServiceChecks(check);
    this.#placement = new PlacementChecks(check);
  }

  check(condition: boolean, rule: string, message: () => string): void {
    this.counts.set(rule, (this.counts.get(rule) ?? 0) + 1);
    if (!condition) this.failure ??= new Violation(rule, `entry ${this.index}: ${message()}`);
  }

  fail(rule: string, error: unknown): void {
    this.check(false, rule, () => (error instanceof Error ? `${error.stack}` : messageOf(error)));
  }

  /** The log, noting on what state each entry was decided. */
  watched(log: ReplicatedLog, keyOf: (payload: Uint8Array) => string): ReplicatedLog {
    const noted = (machine: StateMachine): StateMachine => ({
      apply: (index, payload) => {
        const key = keyOf(payload);
        this.#decidedAt = this.#decided.get(key) ?? index - 1;
        this.#payload = payload;
        return machine.apply(index, payload);
      },
      snapshot: () => machine.snapshot(),
      restore: (index, records) => machine.restore(index, records),
    });
    return {
      open: (machine) => log.open(noted(machine) as typeof machine),
      propose: (payload) => {
        this.#decided.set(keyOf(payload), log.appliedIndex);
        return log.propose(payload);
      },
      readBarrier: () => log.readBarrier(),
      get leadership() {
        return log.leadership;
      },
      onLeadership: (listener) => log.onLeadership(listener),
      transferLeadership: () => log.transferLeadership(),
      get appliedIndex() {
        return log.appliedIndex;
      },
      [Symbol.asyncDispose]: () => log[Symbol.asyncDispose](),
    };
  }

  /** Some manager has applied an entry; the first to do so has it checked. */
  committed(view: TablesView, index: number, events: readonly StoreEvent[]): void {
    if (index <= this.index || this.failure !== undefined) return;
    this.index = index;
    this.#onCommit(events);
    this.#checkStored(view, events);
    for (const event of events) {
      if (event.kind === 'task') this.#task(view, event);
      else if (event.kind === 'service') this.#service(event);
      else if (event.kind === 'node') this.#node(event.object as Node, event.action === 'removed');
    }
    this.#services.committed(view, index, this.#decidedAt, events);
    this.#placement.committed(view, index, this.#decidedAt, events);
    if (index % WHOLE_EVERY === 0) this.whole(view);
  }

  /** Two containers that run on one machine never want the same port, and fit into it together (B16). */
  started(nodeId: string, { task, spec }: SimContainer, all: Iterable<SimContainer>): void {
    let cpuNanos = 0;
    const ports = new Map<number, string>();
    for (const other of all) {
      // Who was told to leave a node which has less than it should, or was given up while it was away, is on its way.
      if (other.exit !== undefined || this.#leaving.has(other.taskId)) continue;
      cpuNanos += other.spec.task.resources.reservations.cpuNanos;
      for (const port of other.spec.endpoint.ports) {
        if (isIngressPort(port) || port.publishedPort === 0) continue;
        const holder = ports.get(port.publishedPort);
        this.check(
          holder === undefined,
          'host ports',
          () => `${holder} and ${other.taskId} have port ${port.publishedPort} of ${nodeId} at once`,
        );
        ports.set(port.publishedPort, other.taskId);
      }
    }
    // What was placed before the machine shrank may start there and has to go again.
    const cpus = this.#placement.cpusMost(nodeId);
    this.check(
      cpuNanos <= cpus * 1e9,
      'room',
      () => `${task.id} of ${spec.name} starts on ${nodeId}, which has ${cpus} CPUs for ${cpuNanos / 1e9}`,
    );
  }

  /** Who wrote an entry does not read it again: what it has is what the others read. */
  #checkStored(view: TablesView, events: readonly StoreEvent[]): void {
    const { changes } = decode(LogEntryCodec, this.#payload);
    for (const [position, { kind, object, previous }] of events.entries()) {
      const change = changes[position];
      const status = change?.taskStatus;
      const written = status === undefined ? change?.[kind] : { ...(previous as Task), status };
      const stored = view[kind].get(object.id);
      const isAsWritten = (one: object | undefined) =>
        isDeepStrictEqual({ ...written, meta: object.meta }, one);
      this.check(
        written === undefined || (isAsWritten(object) && isAsWritten(stored)),
        'stored as written',
        () => `${kind} ${object.id} is ${inspect(stored)} and was written as ${inspect(written)}`,
      );
    }
  }

  #task(view: TablesView, { action, object, previous }: StoreEvent): void {
    const task = object as Task;
    const before = previous as Task | undefined;
    if (task.eviction !== undefined || task.status.state === 'orphaned') this.#leaving.add(task.id);
    const isThere = action !== 'removed';
    this.#moveAddresses(before ?? (isThere ? undefined : task), isThere ? task : undefined);
    if (action === 'removed') {
      this.check(
        isTerminal(task.status.state) ||
          !isPlaced(task.status.state) ||
          task.nodeId === '' ||
          view.node.get(task.nodeId) === undefined,
        'reaping',
        () => `task ${task.id}, ${task.status.state} on ${task.nodeId}, is forgotten`,
      );
      return;
    }
    if (before !== undefined) this.#checkGrowth(before, task);
    const isAssigned = task.status.state === 'assigned' && before?.status.state !== 'assigned';
    if (isAssigned) this.#checkAssignment(view, task);
  }

  #checkGrowth(before: Task, task: Task): void {
    this.check(
      compareTaskStates(before.status.state, task.status.state) <= 0,
      'states grow',
      () => `task ${task.id} goes from ${before.status.state} to ${task.status.state}`,
    );
    this.check(
      compareTaskStates(before.desiredState, task.desiredState) <= 0,
      'states grow',
      () => `task ${task.id} was to be ${before.desiredState} and is to be ${task.desiredState}`,
    );
    this.check(
      before.nodeId === '' || before.nodeId === task.nodeId,
      'one node',
      () => `task ${task.id} moves from ${before.nodeId} to ${task.nodeId}`,
    );
  }

  /** A node that its writer knew to be drained or down gets nothing (B14). */
  #checkAssignment(view: TablesView, task: Task): void {
    const closedAt = this.#closed.get(task.nodeId);
    this.check(
      closedAt === undefined || closedAt > this.#decidedAt,
      'closed nodes',
      () =>
        `task ${task.id} is assigned to ${task.nodeId}, closed by entry ${closedAt} and known at ${this.#decidedAt}`,
    );
    const spec = view.revisionOf(task)?.spec;
    const here = view.tasksOnNode(task.nodeId).filter((other) => other.id !== task.id && isBooked(other));
    for (const port of spec?.endpoint.ports ?? []) {
      if (isIngressPort(port) || port.publishedPort === 0) continue;
      const other = here.find((candidate) =>
        view
          .revisionOf(candidate)
          ?.spec.endpoint.ports.some(
            (its) => !isIngressPort(its) && its.publishedPort === port.publishedPort,
          ),
      );
      this.check(
        other === undefined,
        'host ports',
        () => `${task.id} and ${other?.id} want port ${port.publishedPort} of ${task.nodeId}`,
      );
    }
  }

  #node(node: Node, isRemoved: boolean): void {
    if (!isRemoved && takesTasks(node)) this.#closed.delete(node.id);
    else if (!this.#closed.has(node.id)) this.#closed.set(node.id, this.index);
  }

  #service({ action, object, previous }: StoreEvent): void {
    const before = (previous ?? (action === 'removed' ? object : undefined)) as Service | undefined;
    const after = action === 'removed' ? undefined : (object as Service);
    const attachments = (service: Service | undefined) =>
      service?.virtualAddresses.map(({ networkId, address }) => ({ networkId, addresses: [address] })) ?? [];
    this.#move(object.id, attachments(before), attachments(after));
  }

  #moveAddresses(before: Task | undefined, after: Task | undefined): void {
    const held = (task: Task | undefined) =>
      task !== undefined && (isBooked(task) || (isWanted(task) && !isTerminal(task.status.state)))
        ? task.attachments
        : [];
    this.#move(before?.id ?? after?.id ?? '', held(before), held(after));
  }

  /** Nobody gets an address that somebody has (B3). */
  #move(owner: string, before: Task['attachments'], after: Task['attachments']): void {
    for (const { networkId, addresses } of before)
      for (const address of addresses)
        if (this.#addresses.get(`${networkId} ${address}`) === owner)
          this.#addresses.delete(`${networkId} ${address}`);
    for (const { networkId, addresses } of after)
      for (const address of addresses) {
        const holder = this.#addresses.get(`${networkId} ${address}`);
        this.check(holder === undefined, 'addresses', () => `${owner} and ${holder} have ${address}`);
        this.#addresses.set(`${networkId} ${address}`, owner);
      }
  }

  /** What the scheduler counts is what tasks that have not ended reserve, and nodes have that much (B16). */
  whole(view: TablesView): void {
    for (const { node, cpuNanosFree, taskCount } of ClusterBook.of(view).nodes) {
      const holders = view.tasksOnNode(node.id).filter(isBooked);
      const reserved = holders.reduce(
        (total, task) => total + (view.revisionOf(task)?.spec.task.resources.reservations.cpuNanos ?? 0),
        0,
      );
      const { cpuNanos } = node.description.resources;
      this.check(
        cpuNanosFree === cpuNanos - reserved,
        'accounts',
        () => `${node.id}: the scheduler has ${cpuNanosFree} free, ${cpuNanos - reserved} are`,
      );
      const wanted = holders.filter(isWanted).length;
      this.check(taskCount === wanted, 'accounts', () => `${node.id}: ${taskCount} tasks, not ${wanted}`);
    }
  }
}

/** It takes something of its node. */
function isBooked({ status: { state } }: Task): boolean {
  return !isTerminal(state) && isPlaced(state);
}
