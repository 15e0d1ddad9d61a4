// What is said to fit, the scheduler places, and what is said not to fit, it does not: clusters by chance, with constraints,
// affinities, reservations, generic resources, host ports and bounds per node. The rules are written here once more, so that
// an error that both share is noticed. TSSWARM_TEST_SEED repeats a run.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { emptyPortConfig, type Node, type Service, type Task } from '../../core/generated/objects.ts';
import { holdsResources, isWanted } from '../../core/task-state.ts';
import { aNode, aServiceObject, aTask, NOW_MS, tablesOf } from '../../test/support/builders.ts';
import { type Chance, seededChance } from '../../test/support/faults.ts';
import { ClusterBook } from '../placement/cluster-book.ts';
import { planGroup } from '../placement/plan-placement.ts';
import { giveBack, type Placed, placeDemands } from './fit.ts';
import { withoutNode } from './spare.ts';

const RUNS = 300;
const NAMES = ['web', 'db', 'cache', 'job'];
const chosen = process.env['TSSWARM_TEST_SEED'];

interface Cluster {
  readonly nodes: readonly Node[];
  readonly services: readonly Service[];
  readonly tasks: Task[];
}

function pick<T>(chance: Chance, values: readonly T[]): T {
  return values[Math.floor(chance() * values.length)] as T;
}

function anyNode(chance: Chance, index: number): Node {
  const node = aNode(`n${index}`, {
    cpus: pick(chance, [1, 2, 4]),
    labels: { zone: pick(chance, ['a', 'b']) },
    availability: pick(chance, ['active', 'active', 'active', 'pause', 'drain']),
    state: pick(chance, ['ready', 'ready', 'ready', 'ready', 'down']),
    architecture: pick(chance, ['amd64', 'amd64', 'arm64']),
  });
  const names = ['g0', 'g1', 'g2'].slice(0, Math.floor(chance() * 4));
  const genericResources = [
    { kind: 'GPU', names, count: names.length },
    { kind: 'SSD', names: [], count: Math.floor(chance() * 3) },
  ];
  return { ...node, description: { ...node.description, genericResources } };
}

function anyService(chance: Chance, name: string): Service {
  return aServiceObject(name, 0, (spec) => ({
    ...spec,
    task: {
      ...spec.task,
      resources: {
        ...spec.task.resources,
        reservations: {
          cpuNanos: pick(chance, [0, 0, 0.5e9, 1e9]),
          memoryBytes: pick(chance, [0, 0, 3 * 2 ** 30]),
        },
        generic: pick(chance, [[], [], [{ kind: 'GPU', count: 1, names: [] }], twoKinds()]),
      },
      placement: {
        ...spec.task.placement,
        constraints: pick(chance, [[], [], ['node.labels.zone==a'], ['node.labels.zone!=b']]),
        platforms: pick(chance, [[], [], [{ os: 'linux', architecture: 'amd64' }]]),
        preferences: pick(chance, [[], ['spread=node.labels.zone']]),
        affinities: pick(chance, [
          [],
          [],
          [`service==${pick(chance, NAMES)}`],
          [`service!=${pick(chance, NAMES)}`],
          [`prefer:service==${pick(chance, NAMES)}`, `prefer:service!=${pick(chance, NAMES)}`],
        ]),
        maxReplicasPerNode: pick(chance, [0, 0, 1, 2]),
        strategy: pick(chance, ['spread', 'binpack'] as const),
      },
    },
    endpoint: { ...spec.endpoint, ports: chance() < 0.7 ? [] : [hostPort(pick(chance, [8080, 8081]))] },
  }));
}

const twoKinds = () => [
  { kind: 'GPU', count: 2, names: [] },
  { kind: 'SSD', count: 1, names: [] },
];
const hostPort = (publishedPort: number) => ({
  ...emptyPortConfig,
  publishMode: 'host' as const,
  targetPort: 80,
  publishedPort,
});

/** A cluster in which some tasks run, some of them on their way out. */
function anyCluster(chance: Chance): Cluster {
  const nodes = Array.from({ length: 1 + Math.floor(chance() * 6) }, (_, index) => anyNode(chance, index));
  const services = NAMES.map((name) => anyService(chance, name));
  const cluster: Cluster = { nodes, services, tasks: [] };
  for (let count = Math.floor(chance() * 12); count > 0; count--) {
    const service = pick(chance, services);
    const node = pick(chance, nodes);
    const generic = mayHave(cluster, service, node);
    if (generic === undefined) continue;
    const desired = pick(chance, ['running', 'running', 'shutdown'] as const);
    const state = pick(chance, ['running', 'assigned', 'failed'] as const);
    const task = aTask(service.id, { slot: count, nodeId: node.id, state, desired });
    cluster.tasks.push({ ...task, genericResources: generic });
  }
  return cluster;
}

/** What the task would be given if the node may have one more of the service; undefined: it may not. */
function mayHave(
  { services, tasks }: Cluster,
  { spec }: Service,
  node: Node,
): Task['genericResources'] | undefined {
  const specOf = ({ serviceId }: Task) => services.find(({ id }) => id === serviceId)!.spec;
  const { resources, placement } = spec.task;
  if (node.status.state !== 'ready' || node.spec.availability !== 'active') return undefined;
  const zone = node.spec.labels['zone'];
  for (const constraint of placement.constraints)
    if (constraint.includes('==') !== (zone === constraint.at(-1))) return undefined;
  const { architecture } = node.description.platform;
  if (placement.platforms.some((platform) => platform.architecture !== architecture)) return undefined;
  const holding = tasks.filter((task) => task.nodeId === node.id && holdsResources(task));
  const wanted = holding.filter(isWanted).map((task) => specOf(task));
  if (placement.maxReplicasPerNode > 0)
    if (wanted.filter(({ name }) => name === spec.name).length >= placement.maxReplicasPerNode)
      return undefined;
  for (const other of wanted)
    if (placement.affinities.includes(`service!=${other.name}`)) return undefined;
    else if (other.task.placement.affinities.includes(`service!=${spec.name}`)) return undefined;
  for (const affinity of placement.affinities)
    if (affinity.startsWith('service==') && !wanted.some(({ name }) => affinity === `service==${name}`))
      return undefined;
  const portOf = (other: Service['spec']) => other.endpoint.ports[0]?.publishedPort;
  if (portOf(spec) !== undefined && holding.some((task) => portOf(specOf(task)) === portOf(spec)))
    return undefined;
  for (const kind of ['cpuNanos', 'memoryBytes'] as const) {
    const used = holding.reduce((sum, task) => sum + specOf(task).task.resources.reservations[kind], 0);
    const reserved = resources.reservations[kind];
    if (reserved > 0 && used + reserved > node.description.resources[kind]) return undefined;
  }
  const given = resources.generic.map(({ kind, count }) => {
    const held = holding.flatMap((task) => task.genericResources.filter((each) => each.kind === kind));
    const has = node.description.genericResources.find((each) => each.kind === kind)!;
    const used = held.reduce((sum, each) => sum + each.count, 0);
    const names = has.names.filter((name) => !held.some((each) => each.names.includes(name)));
    return { kind, count, names: names.slice(0, count), isFree: has.count - used >= count };
  });
  if (given.some(({ isFree }) => !isFree)) return undefined;
  return given.map(({ kind, count, names }) => ({ kind, count, names }));
}

function viewOf({ nodes, services, tasks }: Cluster): ReturnType<typeof tablesOf> {
  return tablesOf(services, tasks, nodes);
}

/** As the scheduler does: group by group, again while somebody has come for whom others may wait. */
function schedule(book: ClusterBook, groups: readonly (readonly Task[])[], services: readonly Service[]) {
  const places = new Map<Task, string>();
  for (let before = -1; before < places.size; ) {
    before = places.size;
    for (const group of groups) {
      const tasks = group.filter((task) => !places.has(task));
      const service = services.find(({ id }) => id === group[0]?.serviceId)!;
      const { id: serviceId, spec, specVersion } = service;
      const { assign } = planGroup({ serviceId, specVersion, spec, tasks, nodeId: '' }, book, NOW_MS);
      for (const { task, booking } of assign) places.set(task, booking.info.node.id);
    }
  }
  return places;
}

function forSeeds(check: (cluster: Cluster, chance: Chance) => void): void {
  const first = chosen === undefined ? Date.now() % 1e9 : Number(chosen);
  for (let seed = first; seed < first + (chosen === undefined ? RUNS : 1); seed++)
    try {
      const chance = seededChance(seed);
      check(anyCluster(chance), chance);
    } catch (cause) {
      throw new Error(`TSSWARM_TEST_SEED=${seed}`, { cause });
    }
}

test('what fits is placed by the scheduler, and where something does not fit no rule would allow it', () => {
  forSeeds((cluster, chance) => {
    const { services } = cluster;
    const demands = NAMES.map((name) => {
      const { id: serviceId, specVersion, spec } = services.find(({ id }) => id === name)!;
      return { serviceId, specVersion, spec, count: 1 + Math.floor(chance() * 4) };
    });
    const said = placeDemands(demands, ClusterBook.of(viewOf(cluster)), { nowMs: NOW_MS });
    requireLawful({ ...cluster, tasks: [...cluster.tasks] }, said);

    const groups = demands.map(({ serviceId, count }) =>
      Array.from({ length: count }, (_, slot) => aTask(serviceId, { slot, nodeId: '', state: 'pending' })),
    );
    const places = schedule(ClusterBook.of(viewOf(cluster)), groups, services);
    for (const [index, { bookings }] of said.entries()) {
      const placed = groups[index]!.flatMap((task) => places.get(task) ?? []);
      assert.deepEqual(placed.sort(), bookings.map(({ info }) => info.node.id).sort());
    }
  });
});

/** Booked one after the other, each by the rules; and no rule allows one more of those that are missing. */
function requireLawful(cluster: Cluster, said: readonly Placed[]): void {
  const serviceOf = (id: string) => cluster.services.find((service) => service.id === id)!;
  const waiting = said.flatMap(({ demand, bookings }) => bookings.map((booking) => ({ demand, booking })));
  for (let before = -1; before !== waiting.length; ) {
    before = waiting.length;
    for (const [at, { demand, booking }] of waiting.entries()) {
      const { node } = booking.info;
      if (mayHave(cluster, serviceOf(demand.serviceId), node) === undefined) continue;
      const task = aTask(demand.serviceId, { nodeId: node.id, state: 'assigned' });
      cluster.tasks.push({ ...task, genericResources: booking.generic });
      waiting.splice(at, 1);
      break;
    }
  }
  assert.deepEqual(waiting, [], 'it is placed where it may not be');
  const names = cluster.tasks
    .filter(holdsResources)
    .flatMap(({ nodeId, genericResources }) =>
      genericResources.flatMap((each) => each.names.map((name) => `${nodeId} ${name}`)),
    );
  assert.equal(new Set(names).size, names.length, 'a name is given twice');
  for (const { demand, missing, reason } of said) {
    if (missing === 0) continue;
    assert.notEqual(reason, '');
    const open = cluster.nodes.find((node) => mayHave(cluster, serviceOf(demand.serviceId), node));
    assert.equal(open?.id, undefined, `${demand.serviceId} has no place: ${reason}`);
  }
}

test('a node whose tasks would fit elsewhere is told so exactly when the scheduler places all of them', () => {
  forSeeds((cluster) => {
    const view = viewOf(cluster);
    for (const node of cluster.nodes) {
      const { misfits, tasks } = withoutNode(view, node, { nowMs: NOW_MS });
      const moving = view
        .tasksOnNode(node.id)
        .filter((task) => isWanted(task) && ['assigned', 'running'].includes(task.status.state));
      assert.equal(tasks, moving.length);
      const away = { ...node, spec: { ...node.spec, availability: 'drain' as const } };
      const drained = { ...cluster, nodes: cluster.nodes.map((other) => (other === node ? away : other)) };
      const size = ([task]: readonly Task[]) =>
        cluster.services.find(({ id }) => id === task?.serviceId)!.spec.task.resources.reservations
          .memoryBytes;
      const groups = [...Map.groupBy(moving, ({ serviceId }) => serviceId).values()]
        .map((group) => group.map((task) => ({ ...task, id: `${task.id}-next`, nodeId: '' })))
        .sort((a, b) => size(b) - size(a) || (a[0]!.serviceId < b[0]!.serviceId ? -1 : 1));
      const places = schedule(ClusterBook.of(viewOf(drained)), groups, cluster.services);
      assert.equal(
        misfits.reduce((sum, misfit) => sum + misfit.tasks, 0),
        moving.length - places.size,
      );
    }
  });
});

test('what is given back leaves the book as it was', () => {
  forSeeds((cluster) => {
    const book = ClusterBook.of(viewOf(cluster));
    const shape = () =>
      JSON.stringify(
        book.nodes.map((info) => [
          info.cpuNanosFree,
          info.memoryBytesFree,
          info.taskCount,
          info.bookings,
          [...info.hostPorts],
          [...info.genericUse].map(([kind, { count, names }]) => [kind, count, [...names]]),
          cluster.services.map(({ id, spec }) => book.versionOf(id, 1, spec).service.counts.on(info)),
        ]),
      );
    const before = shape();
    const demands = cluster.services.map(({ id: serviceId, spec }) => ({
      serviceId,
      specVersion: 1,
      spec,
      count: 3,
    }));
    giveBack(placeDemands(demands, book, { nowMs: NOW_MS }), book);
    assert.equal(shape(), before);
  });
});
