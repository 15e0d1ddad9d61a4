// The book that heard of every change says the same as one that is made from what there is now, and places tasks as well.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { emptyPortConfig, type Node, type Service, type Task } from '../../core/generated/objects.ts';
import { aNode, aServiceObject, aTask, NOW_MS, tablesOf } from '../../test/support/builders.ts';
import { ClusterBook } from './cluster-book.ts';
import { planGroup } from './plan-placement.ts';

const NODES = ['a', 'b', 'c', 'd', 'e'] as const;
const STATES = ['pending', 'assigned', 'running', 'shutdown', 'failed'] as const;

const services: Service[] = [
  ['web', 100, { preferences: ['spread=node.labels.rack'] }],
  ['db', 300, { constraints: ['node.labels.rack==r1'] }],
  ['shy', 0, { affinities: ['service!=db'], maxReplicasPerNode: 2 }],
].map(([name, memoryBytes, placement]) =>
  aServiceObject(name as string, 1, (spec) => ({
    ...spec,
    task: {
      ...spec.task,
      resources: {
        ...spec.task.resources,
        generic: name === 'web' ? [{ kind: 'GPU', count: 1, names: [] }] : [],
        reservations: { cpuNanos: 0, memoryBytes: memoryBytes as number },
      },
      placement: { ...spec.task.placement, ...(placement as object) },
    },
    endpoint: {
      ...spec.endpoint,
      ports:
        name === 'db'
          ? [{ ...emptyPortConfig, targetPort: 80, publishedPort: 8080, publishMode: 'host' as const }]
          : [],
    },
  })),
);

type Change =
  | { readonly kind: 'add'; readonly service: number; readonly node: number; readonly state: number }
  | { readonly kind: 'turn'; readonly task: number; readonly state: number }
  | { readonly kind: 'stop' | 'remove'; readonly task: number }
  | { readonly kind: 'node'; readonly node: number; readonly rack: number; readonly isReady: boolean }
  | { readonly kind: 'plan'; readonly service: number; readonly isKept: boolean };

const anyChange: fc.Arbitrary<Change> = fc.oneof(
  fc.record({ kind: fc.constant('add' as const), service: fc.nat(2), node: fc.nat(4), state: fc.nat(4) }),
  fc.record({ kind: fc.constant('turn' as const), task: fc.nat(40), state: fc.nat(4) }),
  fc.record({ kind: fc.constantFrom('stop' as const, 'remove' as const), task: fc.nat(40) }),
  fc.record({
    kind: fc.constant('node' as const),
    node: fc.nat(4),
    rack: fc.nat(2),
    isReady: fc.boolean(),
  }),
  fc.record({ kind: fc.constant('plan' as const), service: fc.nat(2), isKept: fc.boolean() }),
);

function nodeOf(id: string, rack: number, isReady: boolean): Node {
  const node = aNode(id, {
    memoryBytes: 1_000,
    labels: { rack: `r${rack}` },
    state: isReady ? 'ready' : 'down',
  });
  const genericResources = [{ kind: 'GPU', count: 3, names: ['g0', 'g1', 'g2'] }];
  return { ...node, description: { ...node.description, genericResources } };
}

/** What there is, and a book that hears of each change. */
class World {
  readonly nodes = new Map<string, Node>(NODES.map((id, at) => [id, nodeOf(id, at % 2, true)]));
  readonly tasks = new Map<string, Task>();
  readonly book = ClusterBook.of(tablesOf(services, [], [...this.nodes.values()]));

  change(change: Change): void {
    if (change.kind === 'add') {
      const { id } = services[change.service]!;
      this.set(aTask(id, { nodeId: NODES[change.node]!, state: STATES[change.state]!, endedAtMs: NOW_MS }));
    } else if (change.kind === 'node') {
      const id = NODES[change.node]!;
      this.nodes.set(id, nodeOf(id, change.rack, change.isReady));
      this.book.noteNode(id, this.nodes.get(id));
    } else if (change.kind === 'plan') this.plan(change.service, change.isKept);
    else {
      const task = [...this.tasks.values()][change.task % this.tasks.size];
      if (task === undefined) return;
      if (change.kind === 'remove') this.remove(task);
      else if (change.kind === 'stop') this.set({ ...task, desiredState: 'shutdown' });
      else if (change.kind === 'turn')
        this.set({ ...task, status: { ...task.status, state: STATES[change.state]! } });
    }
  }

  plan(service: number, isKept: boolean): void {
    const task = aTask(services[service]!.id, { nodeId: '', state: 'pending' });
    const { assign } = planOn(this.book, service, [task]);
    for (const { booking } of assign) {
      const { info, generic } = booking;
      this.book.expect(task.id, booking);
      const status = { ...task.status, state: 'assigned' as const };
      if (isKept) this.set({ ...task, nodeId: info.node.id, genericResources: generic, status }, task);
      this.book.settle(task.id);
    }
  }

  set(task: Task, before = this.tasks.get(task.id)): void {
    this.tasks.set(task.id, task);
    this.book.noteTask(before, task, specOf(task));
  }

  remove(task: Task): void {
    this.tasks.delete(task.id);
    this.book.noteTask(task, undefined, undefined);
  }
}

function specOf({ serviceId }: Task): Service['spec'] | undefined {
  return services.find(({ id }) => id === serviceId)?.spec;
}

function planOn(book: ClusterBook, service: number, tasks: readonly Task[]) {
  const { id, spec } = services[service]!;
  return planGroup({ serviceId: id, specVersion: 1, spec, tasks, nodeId: '' }, book, NOW_MS);
}

function describe(book: ClusterBook): unknown {
  return book.nodes
    .map((info) => ({
      id: info.node.id,
      free: info.memoryBytesFree,
      tasks: info.taskCount,
      bookings: info.bookings,
      ports: [...info.hostPorts],
      generic: [...info.genericUse].map(([kind, { count, names }]) => [kind, count, [...names].sort()]),
      counts: services.map(({ id, spec }) => book.versionOf(id, 1, spec).service.counts.on(info)),
    }))
    .sort((one, other) => (one.id < other.id ? -1 : 1));
}

/** How many tasks of the service the racks have, the fewest first. */
function perRack(book: ClusterBook, service: number): number[] {
  const { id, spec } = services[service]!;
  const { counts } = book.versionOf(id, 1, spec).service;
  const racks = Map.groupBy(book.nodes, ({ node }) => node.spec.labels['rack']);
  return [...racks.values()].map((infos) => infos.reduce((sum, info) => sum + counts.on(info), 0)).sort();
}

test('a book that heard of every change says the same as a new one', () => {
  fc.assert(
    fc.property(fc.array(anyChange, { maxLength: 60, size: 'max' }), (changes) => {
      const world = new World();
      for (const change of changes) world.change(change);
      const tables = tablesOf(services, [...world.tasks.values()], [...world.nodes.values()]);
      assert.deepEqual(describe(world.book), describe(ClusterBook.of(tables)));
    }),
    { numRuns: 300 },
  );
});

test('tasks are placed as well from a book with a history as from a new one', () => {
  fc.assert(
    fc.property(
      fc.array(anyChange, { maxLength: 60, size: 'max' }),
      fc.nat(2),
      fc.nat(12),
      (changes, service, count) => {
        const world = new World();
        for (const change of changes) world.change(change);
        const tables = tablesOf(services, [...world.tasks.values()], [...world.nodes.values()]);
        const tasks = Array.from({ length: count }, () =>
          aTask(services[service]!.id, { nodeId: '', state: 'pending' }),
        );
        const fresh = ClusterBook.of(tables);
        const [one, other] = [planOn(world.book, service, tasks), planOn(fresh, service, tasks)];
        assert.equal(one.assign.length, other.assign.length);
        assert.equal(one.reason, other.reason);
        const loads = (book: ClusterBook) => book.nodes.map(({ taskCount }) => taskCount).sort();
        assert.deepEqual(loads(world.book), loads(fresh));
        // Where racks do not matter, ties are decided otherwise.
        if (service === 0) assert.deepEqual(perRack(world.book, service), perRack(fresh, service));
      },
    ),
    { numRuns: 300 },
  );
});
