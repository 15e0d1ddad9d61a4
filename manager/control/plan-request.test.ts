// What a dry run tells of a service that is to be created or changed.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { emptyPortConfig, type Service, type ServiceSpec } from '../../core/generated/objects.ts';
import { aNetwork, aNode, aServiceObject, aTask, NOW_MS, tablesOf } from '../../test/support/builders.ts';
import { planServiceRequest } from './plan-request.ts';

const GIB = 2 ** 30;
type Tables = ReturnType<typeof tablesOf>;

const nodes = [aNode('n1', { memoryBytes: 4 * GIB }), aNode('n2', { memoryBytes: 4 * GIB })];
const reserving =
  (memoryBytes: number) =>
  (spec: ServiceSpec): ServiceSpec => ({
    ...spec,
    task: {
      ...spec.task,
      resources: { ...spec.task.resources, reservations: { cpuNanos: 0, memoryBytes } },
    },
  });
const create = (tables: Tables, spec: ServiceSpec) =>
  planServiceRequest(tables, { serviceId: '', version: 0, spec }, NOW_MS);
const update = (tables: Tables, { id, specVersion }: Service, spec: ServiceSpec) =>
  planServiceRequest(tables, { serviceId: id, version: specVersion, spec }, NOW_MS);
const textOf = ({ steps }: ReturnType<typeof create>) =>
  steps.map(({ subject, text }) => `${subject}: ${text}`);

test('a new service: its tasks, where they have room, addresses and ports', () => {
  const tables = tablesOf([], [], nodes);
  tables.put('network', aNetwork('lan'));
  const { spec } = aServiceObject('web', 3, (spec) => ({
    ...spec,
    task: { ...spec.task, networks: [{ networkId: 'lan', aliases: [], virtualAddresses: [], options: {} }] },
    endpoint: {
      ...spec.endpoint,
      ports: [{ ...emptyPortConfig, targetPort: 80, publishedPort: 8080 }],
    },
  }));
  const plan = create(tables, spec);
  assert.equal(plan.ok, true);
  assert.deepEqual(textOf(plan), [
    'service: web would be created',
    'tasks: 3 would be created',
    'scheduler: room for them on n1: 2, n2: 1',
    'allocator: network lan: 4 addresses needed, 253 free',
    'allocator: free to publish: 8080/tcp',
  ]);
});

test('of any number of tasks', () => {
  const { spec } = aServiceObject('web', 200_000);
  assert.deepEqual(textOf(create(tablesOf([], [], nodes), spec)).slice(1), [
    'tasks: 200000 would be created',
    'scheduler: room for them on n1: 100000, n2: 100000',
  ]);
});

test('what would be refused is refused, and what does not fit is not ok', () => {
  const web = aServiceObject('web', 1);
  const tables = tablesOf([web], [], nodes);
  assert.throws(() => create(tables, web.spec), /service web already exists/);
  assert.throws(() => update(tables, { ...web, specVersion: 7 }, web.spec), /its spec is number 1, not 7/);
  const big = create(tables, aServiceObject('big', 3, reserving(3 * GIB)).spec);
  assert.equal(big.ok, false);
  assert.ok(textOf(big).some((text) => /no room for 1 of 3 tasks: needs 3 GiB, free 1 GiB/.test(text)));
});

test('a change: what differs, and how many tasks are replaced, made and kept', () => {
  const web = aServiceObject('web', 2, reserving(3 * GIB));
  const tasks = [aTask('web', { slot: 1, nodeId: 'n1' }), aTask('web', { slot: 2, nodeId: 'n2' })];
  const tables = tablesOf([web], tasks, nodes);
  const labelled = update(tables, web, { ...web.spec, labels: { a: 'b' } });
  assert.deepEqual([labelled.ok, textOf(labelled).at(-1)], [true, 'tasks: 2 would stay as they are']);

  const forced = { ...web.spec, task: { ...web.spec.task, forceUpdate: 1 } };
  const stopFirst = update(tables, web, forced);
  assert.equal(stopFirst.ok, true);
  assert.ok(textOf(stopFirst).includes('tasks: 2 replaced, 1 at a time, stop-first'));
  const startFirst = update(tables, web, { ...forced, update: { ...forced.update, order: 'start-first' } });
  assert.equal(startFirst.ok, false, 'the old ones hold what the new ones need');

  const more = update(tables, web, { ...web.spec, mode: { replicated: { replicas: 1 } } });
  assert.ok(textOf(more).includes('tasks: 1 would be removed; 1 would stay as they are'));
});

test('reservations that a node has no room for, and tasks that wait, need a place', () => {
  const web = aServiceObject('web', 2, reserving(GIB));
  const tasks = [
    aTask('web', { slot: 1, nodeId: 'n1' }),
    aTask('web', { slot: 2, nodeId: '', state: 'pending' }),
  ];
  const tables = tablesOf([web], tasks, nodes);
  const reserved = (memoryBytes: number) => textOf(update(tables, web, reserving(memoryBytes)(web.spec)));

  assert.ok(reserved(9 * GIB).some((text) => /no room for 2 of 2 tasks: needs 9 GiB/.test(text)));
  assert.deepEqual(reserved(2 * GIB).slice(-2), [
    'tasks: 1 replaced, 1 at a time, stop-first; 1 would stay as they are',
    'scheduler: room for them on n2: 1',
  ]);

  const { placement } = web.spec.task;
  const constrained = (constraints: readonly string[]) =>
    update(tables, web, {
      ...web.spec,
      task: { ...web.spec.task, placement: { ...placement, constraints } },
    });
  const nowhere = constrained(['node.labels.x==1']);
  assert.equal(nowhere.ok, false);
  assert.ok(
    textOf(nowhere).some((text) => /no room for 2 of 2 tasks/.test(text)),
    textOf(nowhere).join(),
  );
  assert.deepEqual(textOf(constrained(['node.hostname==n2'])).slice(-2), [
    'tasks: 1 replaced, 1 at a time, stop-first; 1 would look for a place again',
    'scheduler: room for them on n2: 2',
  ]);
});
