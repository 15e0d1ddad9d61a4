// Gives networks, services and tasks what the whole cluster has to agree on before a task is placed: subnets, addresses,
// ports. A task that needs nothing of that kind goes on at once; one that waits says for what.

import type { Clock } from '../../core/clock.ts';
import type { Node, Service, Task, TaskAttachment, TaskStatus } from '../../core/generated/objects.ts';
import { isWanted } from '../../core/task-state.ts';
import { loopLog } from '../log.ts';
import { runLoop } from '../loop.ts';
import type { FreshCommit, Store } from '../store/store.ts';
import type { Transaction } from '../store/transaction.ts';
import { Allocation } from './allocation.ts';
import { NotYet } from './not-yet.ts';
import { planTunnelAddress } from './plan-network.ts';

export interface AllocatorOptions {
  readonly store: Store;
  readonly clock: Clock;
  readonly onFailure?: (error: unknown) => void;
}

/** Runs until the signal aborts. */
export function runAllocatorLoop(options: AllocatorOptions, signal: AbortSignal): Promise<void> {
  const allocator = new Allocator(options);
  const isRelevant = (commit: FreshCommit) => allocator.note(commit);
  return runLoop({ name: 'allocator', isRelevant, pass: () => allocator.pass(), ...options }, signal);
}

interface Grant {
  readonly taskId: string;
  readonly attachments: readonly TaskAttachment[];
  /** Why there are none; empty: nothing is wrong. */
  readonly error: string;
}

class Allocator {
  readonly #store: Store;
  readonly #clock: Clock;
  #allocation: Allocation;
  readonly #networks = new Set<string>();
  readonly #nodes = new Set<string>();
  readonly #services = new Set<string>();
  readonly #tasks = new Set<string>();
  /** Services and tasks that wait, with the reason. */
  readonly #stuckServices = new Map<string, string>();
  readonly #stuckTasks = new Set<string>();
  #warned: ReadonlySet<string> = new Set();
  #mayRetry = false;
  #retryAtMs = Number.POSITIVE_INFINITY;

  constructor({ store, clock }: AllocatorOptions) {
    this.#store = store;
    this.#clock = clock;
    this.#allocation = this.#start();
  }

  /** True when there is something to do. */
  note({ decisive }: FreshCommit): boolean {
    let isRelevant = false;
    for (const event of decisive) {
      const { kind, action, object, previous } = event;
      if (this.#allocation.note(event, this.#clock.nowMs())) this.#mayRetry = true;
      if (kind === 'network' && action !== 'removed') this.#networks.add(object.id);
      else if (kind === 'node' && lacksTunnelAddress(object as Node)) this.#nodes.add(object.id);
      else if (
        kind === 'service' &&
        action !== 'removed' &&
        isRespecified(object as Service, previous as Service)
      )
        this.#services.add(object.id);
      else if (kind === 'service' && action === 'removed') this.#stuckServices.delete(object.id);
      else if (kind === 'task' && action === 'created') this.#tasks.add(object.id);
      else continue;
      isRelevant = true;
    }
    const isWaited = this.#stuckServices.size + this.#stuckTasks.size > 0;
    return isRelevant || (this.#mayRetry && isWaited);
  }

  async pass(): Promise<number | undefined> {
    const beginMs = this.#clock.nowMs();
    // Who has waited comes before who is new: tasks that fail and come again would keep all others waiting.
    const isRetry = this.#mayRetry || beginMs >= this.#retryAtMs;
    const services = new Set([...(isRetry ? this.#stuckServices.keys() : []), ...take(this.#services)]);
    const tasks = new Set([...(isRetry ? this.#stuckTasks : []), ...take(this.#tasks)]);
    if (isRetry) this.#mayRetry = false;
    try {
      for (const id of take(this.#nodes)) await this.#allocateTunnelAddress(id);
      for (const id of take(this.#networks)) await this.#allocateNetwork(id);
      await this.#allocateServices([...services]);
      await this.#allocateTasks([...tasks]);
    } catch (error) {
      // What was decided and not written is unknown: everything is read again.
      this.#allocation = this.#start();
      throw error;
    }
    this.#warn();
    const isWaited = this.#stuckServices.size + this.#stuckTasks.size > 0;
    // What has become free since this pass began may have come too late for it.
    const nextFreeAtMs = isWaited ? this.#allocation.nextFreeAtMs(beginMs) : undefined;
    this.#retryAtMs = nextFreeAtMs ?? Number.POSITIVE_INFINITY;
    return nextFreeAtMs;
  }

  /** Once for each network that fills up, and again when it does so again. */
  #warn(): void {
    const nearlyFull = this.#allocation.nearlyFull();
    for (const { network, used, capacity } of nearlyFull)
      if (!this.#warned.has(network.id))
        loopLog.warn(
          { network: network.spec.name, used, capacity },
          'network has hardly an address left: widen it with "tsswarm network update --subnet-add"',
        );
    this.#warned = new Set(nearlyFull.map(({ network }) => network.id));
  }

  #start(): Allocation {
    const { view } = this.#store;
    for (const node of view.node.values()) if (lacksTunnelAddress(node)) this.#nodes.add(node.id);
    for (const { id } of view.network.values()) this.#networks.add(id);
    for (const { id } of view.service.values()) this.#services.add(id);
    for (const task of view.task.values()) if (task.status.state === 'new') this.#tasks.add(task.id);
    return new Allocation(view);
  }

  /** One at a time: each has to see the subnets of the one before. */
  async #allocateNetwork(id: string): Promise<void> {
    await this.#store.update((tx) => {
      const network = tx.view.network.get(id);
      const next = network && this.#allocation.network(network);
      if (next !== undefined) tx.update('network', next);
    });
  }

  async #allocateTunnelAddress(id: string): Promise<void> {
    await this.#store.update((tx) => {
      const node = tx.view.node.get(id);
      if (node === undefined || !lacksTunnelAddress(node)) return;
      tx.update('node', { ...node, tunnelAddress: planTunnelAddress(tx.view) });
    });
  }

  async #allocateServices(ids: readonly string[]): Promise<void> {
    const { view } = this.#store;
    const decided = ids.flatMap((id) => {
      const service = view.service.get(id);
      return (service && this.#decideService(service)) ?? [];
    });
    if (decided.length === 0) return;
    await this.#store.batch(
      decided.map((next) => (tx: Transaction) => {
        // Another version is looked at again, for the event of its change.
        if (tx.view.service.get(next.id)?.meta.version === next.meta.version) tx.update('service', next);
      }),
    );
    for (const next of decided)
      this.#allocation.takeBack(next, view.service.get(next.id), this.#clock.nowMs());
  }

  #decideService(service: Service): Service | undefined {
    try {
      const next = this.#allocation.service(service, this.#clock.nowMs());
      this.#stuckServices.delete(service.id);
      return next;
    } catch (error) {
      if (!(error instanceof NotYet)) throw error;
      this.#stuckServices.set(service.id, error.message);
      return undefined;
    }
  }

  async #allocateTasks(ids: readonly string[]): Promise<void> {
    const grants = ids.flatMap((id) => this.#decideTask(id) ?? []);
    if (grants.length === 0) return;
    await this.#store.batch(grants.map((grant) => (tx: Transaction) => this.#writeTask(tx, grant)));
    for (const { taskId, attachments } of grants) {
      const stored = this.#store.view.task.get(taskId);
      if (stored?.attachments.length === attachments.length) continue;
      this.#allocation.release(attachments, taskId, this.#clock.nowMs());
    }
  }

  /** undefined: there is nothing to write. */
  #decideTask(taskId: string): Grant | undefined {
    const { view } = this.#store;
    const task = view.task.get(taskId);
    const revision = task && view.revisionOf(task);
    this.#stuckTasks.delete(taskId);
    if (task === undefined || task.status.state !== 'new' || !isWanted(task)) return undefined;
    try {
      const problem = this.#stuckServices.get(task.serviceId);
      if (problem !== undefined) throw new NotYet(problem);
      const nowMs = this.#clock.nowMs();
      const attachments = revision === undefined ? [] : this.#allocation.task(task, revision.spec, nowMs);
      return { taskId, attachments, error: '' };
    } catch (error) {
      if (!(error instanceof NotYet)) throw error;
      this.#stuckTasks.add(taskId);
      return error.message === task.status.error
        ? undefined
        : { taskId, attachments: [], error: error.message };
    }
  }

  #writeTask(tx: Transaction, { taskId, attachments, error }: Grant): void {
    const task = tx.view.task.get(taskId);
    if (task === undefined || task.status.state !== 'new' || !isWanted(task)) return;
    const timestampMs = this.#clock.nowMs();
    const status: TaskStatus =
      error === ''
        ? { ...task.status, state: 'pending', timestampMs, error, message: 'pending task scheduling' }
        : { ...task.status, timestampMs, error, message: 'waiting for addresses' };
    tx.update('task', { ...task, status, attachments } satisfies Task);
  }
}

/** It has a key, so it has an encrypted network. */
function lacksTunnelAddress({ description, tunnelAddress }: Node): boolean {
  return description.tunnelKey !== '' && tunnelAddress === '';
}

function isRespecified(service: Service, previous: Service | undefined): boolean {
  return previous === undefined || service.specVersion !== previous.specVersion;
}

function take(ids: Set<string>): string[] {
  const taken = [...ids];
  ids.clear();
  return taken;
}
