// A large cluster in racks, and services that ask much of its nodes: resources, two constraints and a preference.

import { newServiceSpec } from '../../core/defaults.ts';
import {
  emptyService,
  emptyTask,
  type Node,
  type ServiceSpec,
  type Task,
} from '../../core/generated/objects.ts';
import { Scheduler } from '../../manager/scheduler/scheduler-loop.ts';
import { createRevision } from '../../manager/store/service-revision.ts';
import type { Store } from '../../manager/store/store.ts';
import type { Transaction } from '../../manager/store/transaction.ts';
import { systemClock } from '../../node/system-clock.ts';
import { aNode } from './builders.ts';

const RACKS = 50;
const BATCH = 20_000;

/** Half of them have what services ask for. */
export function rackedNodes(count: number): Node[] {
  return rackLabels(count).map((labels, at) =>
    aNode(`node-${String(at).padStart(5, '0')}`, { cpus: 1_000, memoryBytes: 2 ** 50, labels }),
  );
}

export function rackLabels(count: number): Record<string, string>[] {
  return Array.from({ length: count }, (_, at) => ({
    disk: at % 2 === 0 ? 'ssd' : 'hdd',
    rack: `r${(at >> 1) % RACKS}`,
    zone: 'a',
  }));
}

/** With resources, two constraints and a preference. */
export function aDemandingSpec(name: string): ServiceSpec {
  const spec = newServiceSpec(name, { image: 'busybox' });
  const reservations = { cpuNanos: 1e8, memoryBytes: 2 ** 26 };
  const constraints = ['node.labels.disk==ssd', 'node.role==worker'];
  return {
    ...spec,
    task: {
      ...spec.task,
      resources: { ...spec.task.resources, reservations },
      placement: { ...spec.task.placement, constraints, preferences: ['spread=node.labels.rack'] },
    },
  };
}

export interface SchedulingLoad {
  readonly nodes: number;
  readonly services: number;
  readonly replicas: number;
}

/** Creates nodes, services and tasks that wait, then lets the scheduler place them. Returns milliseconds of that alone. */
export async function scheduleTasks(
  store: Store,
  { nodes, services, replicas }: SchedulingLoad,
): Promise<number> {
  await store.batch(rackedNodes(nodes).map((node) => (tx) => tx.create('node', node)));
  await createTasks(store, { services, replicas });
  const ended = new AbortController();
  const startedMs = performance.now();
  const { promise, resolve } = Promise.withResolvers<void>();
  let left = services * replicas;
  const unsubscribe = store.subscribe(({ events }) => {
    for (const { kind, object } of events)
      if (kind === 'task' && (object as Task).status.state === 'assigned') left--;
    if (left === 0) resolve();
  });
  const loop = new Scheduler({ store, clock: systemClock }).run(ended.signal);
  await promise;
  const tookMs = performance.now() - startedMs;
  unsubscribe();
  ended.abort();
  await loop;
  return tookMs;
}

/** Services with tasks that wait. */
export async function createTasks(
  store: Store,
  { services, replicas }: Omit<SchedulingLoad, 'nodes'>,
): Promise<void> {
  for (let first = 0; first < services; first += BATCH / replicas)
    await createServices(store, first, Math.min(services, first + BATCH / replicas), replicas);
}

async function createServices(store: Store, first: number, end: number, replicas: number): Promise<void> {
  const numbers = Array.from({ length: end - first }, (_, position) => first + position);
  await store.batch(
    numbers.flatMap((number) => {
      const id = `service${String(number).padStart(18, '0')}`;
      const service = { ...emptyService, id, spec: aDemandingSpec(id), specVersion: 1 };
      return [
        (tx: Transaction) => {
          tx.create('service', service);
          createRevision(tx, service, undefined);
        },
        ...Array.from(
          { length: replicas },
          (_, slot) => (tx: Transaction) => tx.create('task', aWaitingTask(id, slot + 1)),
        ),
      ];
    }),
  );
}

function aWaitingTask(serviceId: string, slot: number): Task {
  return {
    ...emptyTask,
    id: `${serviceId.slice(7)}${String(slot).padStart(7, '0')}`,
    serviceId,
    specVersion: 1,
    slot,
    desiredState: 'running',
    status: { ...emptyTask.status, state: 'pending', timestampMs: 1_700_000_000_000 },
  };
}
