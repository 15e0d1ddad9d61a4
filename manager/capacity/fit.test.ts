// Whether tasks find a place, and what would be without a node.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { emptyPortConfig, type Node, type ServiceSpec } from '../../core/generated/objects.ts';
import { systemClock } from '../../node/system-clock.ts';
import type { NodeSpare } from '../../proto/generated/control.ts';
import { aNode, aServiceObject, aTask, NOW_MS, tablesOf } from '../../test/support/builders.ts';
import { ClusterBook } from '../placement/cluster-book.ts';
import { placeDemands } from './fit.ts';
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
  const book = ClusterBook.of(tablesOf([], [], nodes));
  const demand = { serviceId: id, specVersion: 1, spec, count };
  const [placed] = placeDemands([demand], book, { nowMs: NOW_MS });
  assert.ok(placed !== undefined);
  const places = [...Map.groupBy(placed.bookings, ({ info }) => info.node.id)];
  return { ...placed, places: Object.fromEntries(places.map(([id, { length }]) => [id, length])) };
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

test('what would be without a node: its tasks need a place on the others, those of global services do not', async () => {
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
  const spare: NodeSpare[] = [];
  for await (const one of spareOf({ view: tables, clock: systemClock }, new AbortController().signal))
    spare.push(one);
  assert.deepEqual(spare, [
    {
      nodeId: 'a',
      hostname: 'a',
      tasks: 1,
      misfits: [{ serviceId: 'web', serviceName: 'web', tasks: 1, reason }],
    },
    { nodeId: 'b', hostname: 'b', tasks: 1, misfits: [] },
  ]);

  const withGlobal = tablesOf([web, agent], tasks.slice(1), nodes);
  assert.deepEqual(withoutNode(withGlobal, nodes[1] as Node, { nowMs: NOW_MS }), {
    nodeId: 'b',
    hostname: 'b',
    tasks: 1,
    misfits: [],
  });
});

test('a look at what is spare rests in between when nobody waits for it', async () => {
  let nowMs = 0;
  const rests: number[] = [];
  const busyClock = {
    nowMs: () => nowMs,
    elapsedMs: () => nowMs++,
    after: (delayMs: number, callback: () => void) => {
      rests.push(delayMs);
      setImmediate(callback);
      return () => {};
    },
  };
  const nodes = Array.from({ length: 40 }, (_, number) => aNode(`n${number}`));
  let count = 0;
  const source = { view: tablesOf([], [], nodes), clock: busyClock, restFactor: 9 };
  for await (const _ of spareOf(source, new AbortController().signal)) count++;

  assert.equal(count, 40);
  assert.ok(rests.length > 5 && rests.every((delayMs) => delayMs >= 9 * 5), rests.join(' '));
});

test('a look at what is spare goes by the book of the scheduler as it is by then', async () => {
  const nodes = ['a', 'b', 'c', 'd'].map((id) => aNode(id, { memoryBytes: 4 * GIB }));
  const web = aServiceObject('web', 1, needing(2 * GIB));
  const view = tablesOf([web], [aTask('web', { slot: 1, nodeId: 'd' })], nodes);
  const book = ClusterBook.of(view);
  const misfits: Record<string, number> = {};
  for await (const spare of spareOf({ view, clock: systemClock, book }, new AbortController().signal)) {
    misfits[spare.nodeId] = spare.misfits.length;
    // Meanwhile one goes, one fails, and nothing is left on the first for what has to leave the last.
    book.noteNode('b', undefined);
    book.noteNode('c', { ...aNode('c'), status: { ...aNode('c').status, state: 'down' } });
    book.noteNode('a', aNode('a', { memoryBytes: GIB }));
  }
  assert.deepEqual(misfits, { a: 0, d: 1 });
});

test('generic resources are what limits a service, and who shuns it', () => {
  const node = aNode('a');
  const genericResources = [{ kind: 'GPU', count: 2, names: ['g0', 'g1'] }];
  const withCards = { ...node, description: { ...node.description, genericResources } };
  const cards = placeOf(
    (spec) => ({
      ...spec,
      task: {
        ...spec.task,
        resources: { ...spec.task.resources, generic: [{ kind: 'GPU', count: 1, names: [] }] },
      },
    }),
    3,
    [withCards, aNode('b')],
  );
  assert.deepEqual(
    [cards.places, cards.missing, cards.reason],
    [{ a: 2 }, 1, 'needs 1 of GPU, free 0 at most on a node'],
  );
});

const nextTo =
  (...affinities: string[]) =>
  (spec: ServiceSpec): ServiceSpec => ({
    ...spec,
    task: { ...spec.task, placement: { ...spec.task.placement, affinities } },
  });

test('a node is not to be drained when its tasks may share no other node with what is there', () => {
  const nodes = [aNode('a'), aNode('b')];
  const [web, db] = [aServiceObject('web', 1, nextTo('service!=db')), aServiceObject('db', 1)];
  const tasks = [aTask('web', { nodeId: 'a' }), aTask('db', { nodeId: 'b' })];
  const tables = tablesOf([web, db], tasks, nodes);
  const reasons = nodes.map(
    (node) => withoutNode(tables, node, { nowMs: NOW_MS }).misfits.map(({ reason }) => reason)[0],
  );
  assert.deepEqual(reasons, [
    'its affinities are not satisfied (service!=db)',
    'another service does not want it on its nodes',
  ]);
});

test('who goes with a service finds a place where that has found one', () => {
  const nodes = [aNode('a'), aNode('b')];
  const cache = aServiceObject('cache', 1, (spec) => nextTo('service==web')(needing(GIB)(spec)));
  const tasks = [aTask('cache', { nodeId: 'a' }), aTask('web', { nodeId: 'a' })];
  const tables = tablesOf([cache, aServiceObject('web', 1)], tasks, nodes);
  assert.deepEqual(withoutNode(tables, nodes[0] as Node, { nowMs: NOW_MS }).misfits, []);
});
