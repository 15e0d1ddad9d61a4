// Whether tasks find a place, and what would be without a node.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { emptyPortConfig, type Node, type ServiceSpec } from '../../core/generated/objects.ts';
import { aNode, aServiceObject, aTask, tablesOf } from '../../test/support/builders.ts';
import { giveBack, placeDemands, seatsOf } from './fit.ts';
import { spareOf, withoutNode } from './spare.ts';

const GIB = 2 ** 30;

const needing =
  (memoryBytes: number, cpus = 0) =>
  (spec: ServiceSpec): ServiceSpec => ({
    ...spec,
    task: {
      ...spec.task,
      resources: { ...spec.task.resources, reservations: { memoryBytes, cpuNanos: cpus * 1e9 } },
    },
  });

function placeOf(change: (spec: ServiceSpec) => ServiceSpec, count: number, nodes: readonly Node[]) {
  const { id, spec } = aServiceObject('web', count, change);
  const seats = seatsOf(tablesOf([], [], nodes));
  const [placed] = placeDemands([{ serviceId: id, spec, count }], seats);
  assert.ok(placed !== undefined);
  return {
    ...placed,
    places: Object.fromEntries([...placed.countBySeat].map(([{ node }, tasks]) => [node.id, tasks])),
  };
}

test('tasks are spread over the nodes that have room, and those without a place have a reason', () => {
  const nodes = [aNode('a', { memoryBytes: 4 * GIB }), aNode('b', { memoryBytes: 3 * GIB })];
  const fits = placeOf(needing(2 * GIB), 3, nodes);
  assert.deepEqual([fits.places, fits.missing, fits.reason], [{ a: 2, b: 1 }, 0, '']);

  const tooMany = placeOf(needing(2 * GIB), 5, nodes);
  assert.equal(tooMany.missing, 2);
  assert.equal(tooMany.reason, 'needs 2 GiB, free 1 GiB at most on a node');
  const noCpu = placeOf(needing(0, 8), 1, nodes);
  assert.equal(noCpu.reason, 'needs 8 CPUs, free 4 CPUs at most on a node');
});

test('nodes that take no tasks, or that the placement does not want, have no room', () => {
  const nodes = [
    aNode('paused', { availability: 'pause' }),
    aNode('suspect', { state: 'suspect' }),
    aNode('other', { labels: { disk: 'hdd' } }),
    aNode('arm', { labels: { disk: 'ssd' }, architecture: 'arm64' }),
  ];
  const picky = placeOf(
    (spec) => ({
      ...spec,
      task: {
        ...spec.task,
        placement: {
          ...spec.task.placement,
          constraints: ['node.labels.disk==ssd'],
          platforms: [{ os: 'linux', architecture: 'amd64' }],
        },
      },
    }),
    1,
    nodes,
  );
  assert.deepEqual([picky.places, picky.reason], [{}, 'no node that is ready satisfies its placement']);
});

test('a port of the node is given once, and replicas per node are bounded', () => {
  const nodes = [aNode('a'), aNode('b')];
  const port = { ...emptyPortConfig, publishMode: 'host' as const, targetPort: 80, publishedPort: 8080 };
  const published = placeOf((spec) => ({ ...spec, endpoint: { ...spec.endpoint, ports: [port] } }), 3, nodes);
  assert.deepEqual([published.places, published.reason], [{ a: 1, b: 1 }, 'its port 8080/tcp is taken']);

  const bounded = placeOf(
    (spec) => ({
      ...spec,
      task: { ...spec.task, placement: { ...spec.task.placement, maxReplicasPerNode: 2 } },
    }),
    5,
    nodes,
  );
  assert.deepEqual([bounded.missing, bounded.reason], [1, 'at most 2 of it may be on a node']);
});

test('what would be without a node: its tasks need a place on the others, those of global services do not', () => {
  const nodes = [aNode('a', { memoryBytes: 4 * GIB }), aNode('b', { memoryBytes: 3 * GIB })];
  const web = aServiceObject('web', 2, needing(2 * GIB));
  const agent = aServiceObject('agent', 0, (spec) => ({ ...needing(4 * GIB)(spec), mode: { global: {} } }));
  const tasks = [
    aTask('web', { slot: 1, nodeId: 'a' }),
    aTask('web', { slot: 2, nodeId: 'b' }),
    aTask('agent', { slot: 0, nodeId: 'b' }),
  ];
  const tables = tablesOf([web, agent], tasks.slice(0, 2), nodes);
  const reason = 'needs 2 GiB, free 1 GiB at most on a node';
  assert.deepEqual(
    [...spareOf(tables)],
    [
      {
        nodeId: 'a',
        hostname: 'a',
        tasks: 1,
        misfits: [{ serviceId: 'web', serviceName: 'web', tasks: 1, reason }],
      },
      { nodeId: 'b', hostname: 'b', tasks: 1, misfits: [] },
    ],
  );

  const withGlobal = tablesOf([web, agent], tasks.slice(1), nodes);
  assert.deepEqual(withoutNode(withGlobal, nodes[1] as Node), {
    nodeId: 'b',
    hostname: 'b',
    tasks: 1,
    misfits: [],
  });
});

test('what is given back leaves the seats as they were', () => {
  const demand = fc.record({ memory: fc.nat(4), count: fc.nat(5), port: fc.boolean() });
  fc.assert(
    fc.property(fc.array(demand, { maxLength: 5 }), fc.integer({ min: 1, max: 4 }), (asked, count) => {
      const nodes = Array.from({ length: count }, (_, index) => aNode(`n${index}`));
      const seats = seatsOf(tablesOf([], [], nodes));
      const shape = () =>
        JSON.stringify(
          seats.map(({ cpuNanosFree, memoryBytesFree, hostPorts, countByService }) => [
            cpuNanosFree,
            memoryBytesFree,
            [...hostPorts],
            [...countByService].filter(([, tasks]) => tasks > 0),
          ]),
        );
      const before = shape();
      const demands = asked.map(({ memory, count, port }, index) => {
        const { id, spec } = aServiceObject(`s${index}`, count, needing(memory * GIB));
        const ports = [
          { ...emptyPortConfig, publishMode: 'host' as const, targetPort: 80, publishedPort: 80 + index },
        ];
        return {
          serviceId: id,
          spec: { ...spec, endpoint: { ...spec.endpoint, ports: port ? ports : [] } },
          count,
        };
      });
      const placed = placeDemands(demands, seats);
      giveBack(placed);
      assert.equal(shape(), before);
    }),
    { numRuns: 100 },
  );
});
