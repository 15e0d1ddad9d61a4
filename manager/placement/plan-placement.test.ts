import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  emptyEndpointSpec,
  emptyPortConfig,
  type Node,
  type Service,
  type ServiceSpec,
  type Task,
} from '../../core/generated/objects.ts';
import { aNode, aServiceObject, aTask, NOW_MS, tablesOf } from '../../test/support/builders.ts';
import { ClusterBook } from './cluster-book.ts';
import { type PlacementPlan, planGroup } from './plan-placement.ts';

interface Scene {
  readonly nodes: readonly Node[];
  readonly count: number;
  readonly change?: (spec: ServiceSpec) => ServiceSpec;
  readonly existing?: readonly ReturnType<typeof aTask>[];
}

function bookOf(services: readonly Service[], tasks: readonly Task[], nodes: readonly Node[]): ClusterBook {
  return ClusterBook.of(tablesOf(services, tasks, nodes));
}

function place({ nodes, count, change, existing = [] }: Scene): PlacementPlan {
  const service = aServiceObject('s', count, change);
  const book = bookOf([service, aServiceObject('other', 1)], existing, nodes);
  const tasks = Array.from({ length: count }, (_, index) =>
    aTask('s', { slot: index + 1, nodeId: '', state: 'pending' }),
  );
  return planGroup({ serviceId: 's', specVersion: 1, spec: service.spec, tasks, nodeId: '' }, book, NOW_MS);
}

const perNode = (plan: PlacementPlan) => {
  const counts: Record<string, number> = {};
  for (const { booking } of plan.assign) {
    const { id } = booking.info.node;
    counts[id] = (counts[id] ?? 0) + 1;
  }
  return counts;
};
const reserve = (memoryBytes: number) => (spec: ServiceSpec) => ({
  ...spec,
  task: { ...spec.task, resources: { ...spec.task.resources, reservations: { cpuNanos: 0, memoryBytes } } },
});
const place3 = (placement: Partial<ServiceSpec['task']['placement']>) => (spec: ServiceSpec) => ({
  ...spec,
  task: { ...spec.task, placement: { ...spec.task.placement, ...placement } },
});

test('tasks are spread evenly over the nodes that may have them', () => {
  const plan = place({
    nodes: [aNode('a'), aNode('b'), aNode('c'), aNode('d', { availability: 'pause' })],
    count: 9,
  });
  assert.deepEqual(perNode(plan), { a: 3, b: 3, c: 3 });
});

test('tasks of the service count before the load by others', () => {
  const existing = [
    aTask('s', { nodeId: 'a' }),
    aTask('other', { nodeId: 'b' }),
    aTask('other', { nodeId: 'b' }),
  ];
  assert.deepEqual(perNode(place({ nodes: [aNode('a'), aNode('b')], count: 1, existing })), { b: 1 });
});

test('a node where the service kept failing is the last choice, but a choice', () => {
  const existing = Array.from({ length: 5 }, () =>
    aTask('s', { nodeId: 'a', state: 'failed', desired: 'shutdown', endedAtMs: NOW_MS }),
  );
  assert.deepEqual(perNode(place({ nodes: [aNode('a'), aNode('b')], count: 2, existing })), { b: 2 });
  assert.deepEqual(perNode(place({ nodes: [aNode('a')], count: 1, existing })), { a: 1 });
});

test('reservations fill a node and the rest is refused with the reason', () => {
  const plan = place({ nodes: [aNode('a', { memoryBytes: 1000 })], count: 3, change: reserve(400) });
  assert.equal(plan.assign.length, 2);
  assert.equal(plan.refuse.length, 1);
  assert.equal(plan.reason, 'no suitable node (insufficient resources on 1 node)');
});

test('a task that is told to stop holds its reservation until it has', () => {
  const scene = { nodes: [aNode('a', { memoryBytes: 500 })], count: 1, change: reserve(400) };
  assert.equal(
    place({ ...scene, existing: [aTask('s', { nodeId: 'a', desired: 'shutdown' })] }).assign.length,
    0,
  );
  assert.equal(
    place({ ...scene, existing: [aTask('s', { nodeId: 'a', state: 'complete', desired: 'shutdown' })] })
      .assign.length,
    1,
  );
});

test('constraints, platforms and the cap per node are kept', () => {
  const nodes = [
    aNode('a', { labels: { disk: 'ssd' } }),
    aNode('b', { labels: { disk: 'ssd' }, architecture: 'arm64' }),
    aNode('c'),
  ];
  const change = place3({
    constraints: ['node.labels.disk==ssd'],
    platforms: [{ os: 'linux', architecture: 'x86_64' }],
    maxReplicasPerNode: 2,
  });
  const plan = place({ nodes, count: 3, change });
  assert.deepEqual(perNode(plan), { a: 2 });
  assert.equal(
    plan.reason,
    'no suitable node (scheduling constraints not satisfied on 1 node; unsupported platform on 1 node; max replicas per node limit exceeded on 1 node)',
  );
});

test('a host port is given once per node, an ingress port as often as it is wanted', () => {
  const publishing =
    (publishMode: 'host' | 'ingress') =>
    (spec: ServiceSpec): ServiceSpec => ({
      ...spec,
      endpoint: {
        ...emptyEndpointSpec,
        ports: [{ ...emptyPortConfig, targetPort: 80, publishedPort: 8080, publishMode }],
      },
    });
  const nodes = [aNode('a'), aNode('b')];
  const spread = place({ nodes, count: 4, change: publishing('ingress') });
  assert.deepEqual(perNode(spread), { a: 2, b: 2 });
  const plan = place({ nodes, count: 3, change: publishing('host') });
  assert.deepEqual(perNode(plan), { a: 1, b: 1 });
  assert.equal(plan.reason, 'no suitable node (host-mode port already in use on 2 nodes)');
});

test('nodes that are down, paused or drained get nothing, and that is said', () => {
  const nodes = [
    aNode('a', { state: 'down' }),
    aNode('b', { availability: 'drain' }),
    aNode('c', { availability: 'pause' }),
  ];
  assert.equal(place({ nodes, count: 1 }).reason, 'no suitable node (3 nodes not available for new tasks)');
});

test('every task is placed or refused with a reason, no node is overbooked, and the spread differs by at most one', () => {
  const memory = fc.array(fc.integer({ min: 0, max: 2_000 }), { minLength: 1, maxLength: 12 });
  fc.assert(
    fc.property(
      memory,
      fc.integer({ min: 1, max: 60 }),
      fc.integer({ min: 0, max: 300 }),
      (sizes, count, size) => {
        const nodes = sizes.map((memoryBytes, index) =>
          aNode(`n${String(index).padStart(2, '0')}`, { memoryBytes }),
        );
        const plan = place({ nodes, count, change: reserve(size) });
        assert.equal(plan.assign.length + plan.refuse.length, count);
        assert.equal(plan.reason.includes('('), plan.refuse.length > 0);
        const counts = perNode(plan);
        for (const { id, description } of nodes)
          assert.ok((counts[id] ?? 0) * size <= description.resources.memoryBytes);
        const hasRoom = nodes.filter(
          ({ id, description }) => ((counts[id] ?? 0) + 1) * size <= description.resources.memoryBytes,
        );
        if (plan.refuse.length > 0) assert.deepEqual(hasRoom, []);
        const most = Math.max(0, ...nodes.map(({ id }) => counts[id] ?? 0));
        for (const { id } of hasRoom)
          assert.ok(most - (counts[id] ?? 0) <= 1, 'a node with room has at most one less than the fullest');
      },
    ),
  );
});

const inRack = (id: string, rack: string | undefined, zone = '') => {
  const node = aNode(id);
  return { ...node, spec: { ...node.spec, labels: { ...(rack && { rack }), ...(zone && { zone }) } } };
};
const byRack = { preferences: ['spread=node.labels.rack'] };

test('a preference spreads over the values of a label before it spreads over nodes', () => {
  const nodes = [
    inRack('a', 'r1'),
    inRack('b', 'r1'),
    inRack('c', 'r1'),
    inRack('d', 'r2'),
    inRack('e', undefined),
  ];
  const plan = place({ nodes, count: 9, change: place3(byRack) });
  assert.deepEqual(perNode(plan), { a: 1, b: 1, c: 1, d: 3, e: 3 });
});

test('what a branch has already counts, also on nodes that take no more', () => {
  const nodes = [inRack('a', 'r1'), aPaused('b', 'r1'), inRack('c', 'r2')];
  const existing = [aTask('s', { nodeId: 'b' }), aTask('s', { nodeId: 'b' })];
  const plan = place({ nodes, count: 3, change: place3(byRack), existing });
  assert.deepEqual(perNode(plan), { a: 1, c: 2 });
});

test('a branch without room leaves the rest to the others', () => {
  const nodes = [inRack('a', 'r1'), inRack('b', 'r2')];
  const existing = [aTask('s', { nodeId: 'a' })];
  const plan = place({ nodes, count: 3, change: place3({ ...byRack, maxReplicasPerNode: 2 }), existing });
  assert.deepEqual(perNode(plan), { a: 1, b: 2 });
});

test('branches that fill up, or that no node of is open, never keep a decision from its end (B13: swarmkit#3200)', () => {
  const anyNode = fc.record({
    zone: fc.nat(2),
    rack: fc.nat(2),
    room: fc.nat(3),
    availability: fc.constantFrom('active', 'active', 'pause', 'drain'),
  });
  const change = (spec: ServiceSpec) =>
    place3({ preferences: ['spread=node.labels.zone', 'spread=node.labels.rack'] })(reserve(100)(spec));
  fc.assert(
    fc.property(fc.array(anyNode, { maxLength: 12 }), fc.nat(30), (shapes, count) => {
      const nodes = shapes.map(({ zone, rack, room, availability }, index) => {
        const labels = { ...(zone > 0 && { zone: `z${zone}` }), ...(rack > 0 && { rack: `r${rack}` }) };
        return aNode(`n${index}`, { memoryBytes: 100 * room, availability, labels });
      });
      const open = shapes.filter(({ availability }) => availability === 'active');
      const room = open.reduce((sum, shape) => sum + shape.room, 0);
      const { assign, refuse, reason } = place({ nodes, count, change });
      assert.equal(assign.length, Math.min(room, count));
      assert.equal(assign.length + refuse.length, count);
      assert.equal(reason !== '', refuse.length > 0);
    }),
    { numRuns: 300 },
  );
});

test('preferences come one below the other', () => {
  const preferences = ['spread=node.labels.zone', 'spread=node.labels.rack'];
  const nodes = [
    inRack('a', 'r1', 'z1'),
    inRack('b', 'r2', 'z1'),
    inRack('c', 'r2', 'z1'),
    inRack('d', 'r1', 'z2'),
  ];
  const plan = place({ nodes, count: 8, change: place3({ preferences }) });
  assert.deepEqual(perNode(plan), { a: 2, b: 1, c: 1, d: 4 });
});

test('binpack fills a node before it takes the next one', () => {
  const nodes = [aNode('a'), aNode('b'), aNode('c')];
  const { memoryBytes } = aNode('a').description.resources;
  const change = (spec: ServiceSpec) => place3({ strategy: 'binpack' })(reserve(memoryBytes / 4)(spec));
  assert.deepEqual(perNode(place({ nodes, count: 6, change })), { a: 4, b: 2 });
});

test('binpack goes on where most is reserved', () => {
  const nodes = [aNode('a'), aNode('b')];
  const existing = [aTask('other', { nodeId: 'b' })];
  assert.deepEqual(perNode(place({ nodes, count: 3, change: place3({ strategy: 'binpack' }), existing })), {
    b: 3,
  });
});

test('with room everywhere no two branches differ by more than one task', () => {
  fc.assert(
    fc.property(
      fc.array(fc.nat({ max: 3 }), { minLength: 1, maxLength: 12 }),
      fc.nat({ max: 40 }),
      (racks, count) => {
        const nodes = racks.map((rack, index) => inRack(`n${index}`, rack === 0 ? undefined : `r${rack}`));
        const plan = place({ nodes, count, change: place3(byRack) });
        const perRack = new Map(racks.map((rack) => [rack, 0]));
        for (const { booking } of plan.assign) {
          const rack = racks[Number(booking.info.node.id.slice(1))]!;
          perRack.set(rack, perRack.get(rack)! + 1);
        }
        assert.equal(plan.assign.length, count);
        assert.ok(Math.max(...perRack.values()) - Math.min(...perRack.values()) <= 1);
      },
    ),
  );
});

function aPaused(id: string, rack: string): Node {
  const node = aNode(id, { availability: 'pause' });
  return { ...node, spec: { ...node.spec, labels: { rack } } };
}

test('completed tasks of a job hold no reservations and no ports (B16: swarmkit#3237)', () => {
  const done = aTask('s', { nodeId: 'a', state: 'complete', desired: 'complete' });
  const scene = { nodes: [aNode('a', { memoryBytes: 500 })], count: 1, change: reserve(400) };
  assert.equal(place({ ...scene, existing: [done] }).assign.length, 1);
  const running = aTask('s', { nodeId: 'a', desired: 'complete' });
  assert.equal(place({ ...scene, existing: [running] }).assign.length, 0);
});

test('a task that is bound to a node is checked against that node alone, and told what is wrong with it', () => {
  const nodes = [aNode('a', { memoryBytes: 1_000 }), aNode('b', { memoryBytes: 100 })];
  const service = aServiceObject('s', 1, reserve(400));
  const tasks = ['a', 'b', 'gone'].map((nodeId) => aTask('s', { slot: 0, nodeId, state: 'pending' }));
  const book = bookOf([service], tasks, nodes);
  const plans = tasks.map((task) =>
    planGroup(
      { serviceId: 's', specVersion: 1, spec: service.spec, tasks: [task], nodeId: task.nodeId },
      book,
      NOW_MS,
    ),
  );
  assert.deepEqual(
    plans.map(({ assign }) => assign.length),
    [1, 0, 0],
  );
  assert.deepEqual(
    plans.map(({ reason }) => reason),
    ['', 'no suitable node (insufficient resources on 1 node)', 'no suitable node'],
  );
});

const nextTo = (...affinities: string[]) => place3({ affinities });

test('a service shares nodes with those that it wants and with no others', () => {
  const nodes = [aNode('a'), aNode('b'), aNode('c')];
  const existing = [aTask('other', { nodeId: 'a' }), aTask('other', { nodeId: 'b' })];
  assert.deepEqual(perNode(place({ nodes, count: 4, existing, change: nextTo('service==other') })), {
    a: 2,
    b: 2,
  });
  assert.deepEqual(perNode(place({ nodes, count: 2, existing, change: nextTo('service!=other') })), { c: 2 });
  assert.deepEqual(perNode(place({ nodes, count: 2, change: nextTo('service!=nobody') })), { a: 1, b: 1 });
  const apart = place({ nodes, count: 4, change: nextTo('service!=s') });
  assert.deepEqual(perNode(apart), { a: 1, b: 1, c: 1 });
  assert.equal(apart.reason, 'no suitable node (affinities not satisfied on 3 nodes)');
  const alone = place({ nodes, count: 1, change: nextTo('service==nobody') });
  assert.equal(alone.reason, 'no suitable node (affinities not satisfied on 3 nodes)');
});

test('who does not want to share nodes is not joined either', () => {
  const shy = aServiceObject('shy', 1, nextTo('service!=loud'));
  const loud = aServiceObject('loud', 1);
  const book = bookOf([shy, loud], [aTask('shy', { nodeId: 'a' })], [aNode('a'), aNode('b')]);
  const tasks = [1, 2].map((slot) => aTask('loud', { slot, nodeId: '', state: 'pending' }));
  const plan = planGroup(
    { serviceId: 'loud', specVersion: 1, spec: loud.spec, tasks, nodeId: '' },
    book,
    NOW_MS,
  );
  assert.deepEqual(perNode(plan), { b: 2 });
});

test('neighbours that are preferred come first, and others will do', () => {
  const nodes = [aNode('a', { memoryBytes: 1_000 }), aNode('b'), aNode('c')];
  const existing = [aTask('other', { nodeId: 'a' })];
  const change = (affinity: string) => (spec: ServiceSpec) => nextTo(affinity)(reserve(500)(spec));
  const near = (count: number) =>
    perNode(place({ nodes, count, existing, change: change('prefer:service==other') }));
  assert.deepEqual(near(2), { a: 2 });
  assert.deepEqual(near(4), { a: 2, b: 1, c: 1 });
  const far = perNode(place({ nodes, count: 4, existing, change: change('prefer:service!=other') }));
  assert.deepEqual(far, { b: 2, c: 2 });
  const nobody = place({ nodes, count: 3, change: change('prefer:service==nobody') });
  assert.deepEqual(perNode(nobody), { a: 1, b: 1, c: 1 });

  const failed = Array.from({ length: 5 }, () =>
    aTask('s', { nodeId: 'a', state: 'failed', desired: 'shutdown', endedAtMs: NOW_MS }),
  );
  const elsewhere = { nodes, count: 1, existing: [...existing, ...failed] };
  assert.deepEqual(perNode(place({ ...elsewhere, change: change('prefer:service==other') })), { b: 1 });
});

test('a preference keeps nobody away', () => {
  const shy = aServiceObject('shy', 1, nextTo('prefer:service!=loud'));
  const loud = aServiceObject('loud', 1);
  const book = bookOf([shy, loud], [aTask('shy', { nodeId: 'a' })], [aNode('a')]);
  const tasks = [aTask('loud', { nodeId: '', state: 'pending' })];
  const group = { serviceId: 'loud', specVersion: 1, spec: loud.spec, tasks, nodeId: '' };
  assert.deepEqual(perNode(planGroup(group, book, NOW_MS)), { a: 1 });
});

const withCards = (id: string, ...names: string[]): Node => {
  const node = aNode(id);
  const genericResources = [{ kind: 'GPU', count: names.length, names }];
  return { ...node, description: { ...node.description, genericResources } };
};
const asking = (count: number) => (spec: ServiceSpec) => ({
  ...spec,
  task: { ...spec.task, resources: { ...spec.task.resources, generic: [{ kind: 'GPU', count, names: [] }] } },
});

test('each task gets generic resources of its own, by name, as many as it asks for (B16: swarmkit#3162)', () => {
  const nodes = [withCards('a', 'a0', 'a1', 'a2'), withCards('b', 'b0'), aNode('c')];
  const held = [{ kind: 'GPU', count: 1, names: ['a1'] }];
  const existing = [{ ...aTask('s', { nodeId: 'a' }), genericResources: held }];
  const plan = place({ nodes, count: 4, existing, change: asking(1) });
  const names = plan.assign.flatMap(({ booking }) => booking.generic.flatMap((given) => given.names));
  assert.deepEqual(names.sort(), ['a0', 'a2', 'b0']);
  assert.equal(plan.reason, 'no suitable node (insufficient resources on 3 nodes)');
  assert.deepEqual(perNode(place({ nodes, count: 2, change: asking(2) })), { a: 1 });
});
