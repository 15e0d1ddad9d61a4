// A rolling update of many services at once in the simulated cluster, with nothing else going on: how many tasks of each
// service run in every moment, and that it ends.

import { newServiceSpec } from '../../core/defaults.ts';
import type { Service, ServiceSpec, Task } from '../../core/generated/objects.ts';
import { isWanted } from '../../core/task-state.ts';
import type { StoreEvent } from '../../manager/store/apply-entry.ts';
import { Violation } from './core-checks.ts';
import { OrchestrationWorld } from './orchestration-world.ts';

const CALL = { timeoutMs: 60_000 };
const LIMIT_MS = 20 * 60_000;

export interface RollingUpdateOptions {
  readonly services: number;
  readonly replicas: number;
  readonly agents: number;
}

export interface RollingUpdateReport {
  /** The fewest tasks that any service had running while it was updated. */
  readonly lowest: number;
  readonly virtualMs: number;
  readonly entries: number;
}

export class RollingUpdate {
  readonly world: OrchestrationWorld;
  readonly #options: RollingUpdateOptions;
  readonly #running = new Map<string, number>();
  #lowest = Number.POSITIVE_INFINITY;
  #isUpdating = false;

  constructor(seed: number, options: RollingUpdateOptions) {
    this.#options = options;
    this.world = new OrchestrationWorld(seed, {
      agents: options.agents,
      isCalm: true,
      snapshotInterval: 5_000,
      onCommit: (events) => this.#note(events),
    });
  }

  /** Throws a Violation when the update does not come to its end, or any rule is broken on the way. */
  async run(): Promise<RollingUpdateReport> {
    const { world } = this;
    const { services, replicas } = this.#options;
    const specs = Array.from({ length: services }, (_, index) => specOf(`s${index}`, replicas));
    await world.begin();
    const orders = specs.map((spec) => world.operate((control) => control.createService({ spec }, CALL)));
    await this.#untilAll('creation', (service) => this.#running.get(service.id) === replicas);
    await Promise.all(orders);
    this.#isUpdating = true;
    const startMs = world.time.nowMs;
    for (const service of world.leader?.store.view.service.values() ?? []) {
      const { id: serviceId, specVersion: version } = service;
      const spec = changed(service.spec);
      void world.operate((control) =>
        control.updateService({ serviceId, version, spec, rollback: false }, CALL),
      );
    }
    await this.#untilAll('the update', ({ updateStatus }) => updateStatus?.state === 'completed');
    if (this.#lowest < replicas - 1) throw new Violation('floor', `${this.#lowest} of ${replicas} ran`);
    return { lowest: this.#lowest, virtualMs: world.time.nowMs - startMs, entries: world.checks.index };
  }

  #untilAll(what: string, isThere: (service: Service) => boolean): Promise<void> {
    return this.world.until(what, LIMIT_MS, () => {
      const services = [...(this.world.leader?.store.view.service.values() ?? [])];
      if (services.length < this.#options.services) return `${services.length} services are there`;
      const missing = services.filter((service) => !isThere(service)).length;
      return missing === 0 ? undefined : `${missing} services are on their way`;
    });
  }

  #note(events: readonly StoreEvent[]): void {
    for (const { kind, action, object, previous } of events) {
      if (kind !== 'task') continue;
      const { serviceId } = object as Task;
      const now = action === 'removed' ? 0 : serves(object as Task);
      const change =
        now - serves((previous ?? (action === 'removed' ? object : undefined)) as Task | undefined);
      if (change === 0) continue;
      const count = (this.#running.get(serviceId) ?? 0) + change;
      this.#running.set(serviceId, count);
      if (this.#isUpdating) this.#lowest = Math.min(this.#lowest, count);
    }
  }
}

function serves(task: Task | undefined): number {
  return Number(task !== undefined && isWanted(task) && task.status.state === 'running');
}

function specOf(name: string, replicas: number): ServiceSpec {
  const spec = newServiceSpec(name, { image: 'busybox', env: ['LIFE=steady'] });
  return { ...spec, mode: { replicated: { replicas } }, update: { ...spec.update, monitorMs: 1_000 } };
}

function changed(spec: ServiceSpec): ServiceSpec {
  return { ...spec, task: { ...spec.task, forceUpdate: spec.task.forceUpdate + 1 } };
}
