// `why` about nodes and updates.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { defaultClusterSpec } from '../../core/defaults.ts';
import {
  emptyCluster,
  type GenericResource,
  type Node,
  type ServiceSpec,
  type Task,
  type UpdateStatus,
} from '../../core/generated/objects.ts';
import { aNode, aServiceObject, aTask, NOW_MS, tablesOf } from '../../test/support/builders.ts';
import { explain } from './explain.ts';

type Tables = ReturnType<typeof tablesOf>;

const ask = (tables: Tables, target: string, kind = '') => explain(tables, { target, kind }, NOW_MS);
const lines = (tables: Tables, target: string, kind = '') =>
  ask(tables, target, kind).steps.map(
    ({ subject, text, remedy }) => `${subject}: ${text}${remedy && ` → ${remedy}`}`,
  );
const withStatus = (node: Node, status: Partial<Node['status']>): Node => ({
  ...node,
  status: { ...node.status, sinceMs: NOW_MS - 5_000, ...status },
});
const web = aServiceObject('web', 2);

interface Reservations {
  readonly cpuNanos: number;
  readonly memoryBytes: number;
  readonly generic: readonly GenericResource[];
}

const withResources = (
  spec: ServiceSpec,
  { generic = [], ...reserved }: Partial<Reservations>,
): ServiceSpec => {
  const { resources } = spec.task;
  const reservations = { ...resources.reservations, ...reserved };
  return { ...spec, task: { ...spec.task, resources: { ...resources, generic, reservations } } };
};
/** As the scheduler leaves it. */
const refused = (service: string, reason: string): Task => {
  const task = aTask(service, { slot: 1, nodeId: '', state: 'pending' });
  return { ...task, status: { ...task.status, error: `no suitable node (${reason})` } };
};

test('a node that is well has nothing to tell but how many tasks it runs', () => {
  const tables = tablesOf([web], [aTask('web')], [aNode('n1'), aNode('n2')]);
  assert.deepEqual(lines(tables, 'n1'), ['node: n1 is ready', 'tasks: 1 of its 1 task running']);
  assert.equal(ask(tables, 'n1').ok, true);
});

test('a suspect node tells when it is down, one that is down what becomes of its tasks', () => {
  const suspect = withStatus(aNode('n1'), { state: 'suspect', message: 'heartbeats are missing' });
  const [first] = lines(tablesOf([web], [aTask('web')], [suspect]), 'n1');
  assert.match(first ?? '', /n1 is suspect since 5 s ago: heartbeats.*down in 0 s.*→ see on that node/);

  const down = withStatus(aNode('n1'), { state: 'down', message: 'heartbeat failure' });
  const told = lines(tablesOf([web], [aTask('web', { desired: 'shutdown' })], [down]), 'n1');
  assert.match(told[0] ?? '', /its tasks are replaced elsewhere → .*tsswarm node rm n1/);
  assert.match(told[2] ?? '', /1 task may still run there, orphaned in 24 h/);
});

test('a node that the brake holds tells why, and what would let it go', () => {
  const message = 'heartbeat failure; its tasks are not replaced yet: too many nodes are down';
  const held = withStatus(aNode('n1'), { state: 'down', held: true, message });
  const [first] = lines(tablesOf([web], [aTask('web')], [held, aNode('n2')]), 'n1');
  const ofService = lines(tablesOf([web], [aTask('web')], [held, aNode('n2')]), 'web');
  assert.match(
    ofService[1] ?? '',
    /1 task on n1, which is down: .*too many nodes are down → tsswarm why node n1/,
  );
  assert.match(first ?? '', /too many nodes are down → .*more than 1 a minute: .*--reschedule-max 100/);
});

test('a drained node tells what is left, how it goes on, and what its tasks wait for', () => {
  const node = aNode('n1', { availability: 'drain' });
  const drained = {
    ...node,
    spec: { ...node.spec, drainRate: 1, drainDeadlineMs: 600_000 },
    drainStartedAtMs: NOW_MS - 60_000,
  };
  const leaving = { ...aTask('web', { slot: 1 }), eviction: 'its node is being drained', leavesLast: true };
  const waiting = refused('web', 'insufficient resources on 1 node');
  const big = aServiceObject('web', 2, (spec) => withResources(spec, { cpuNanos: 9e9 }));
  const tables = tablesOf([big], [leaving, waiting, aTask('web', { slot: 2 })], [drained, aNode('n2')]);

  const told = lines(tables, 'n1').join('\n');
  assert.match(
    told,
    /being drained since 60 s ago: 2 tasks left, 1 of them on the way \(1 at a time; in 9 min/,
  );
  assert.match(told, /task: web\.1 [\s\S]*insufficient resources on 1 node\) → lower --reserve-cpu of web/);
  assert.match(told, /→ tsswarm node update --availability active n1/);
});

test('a task without room tells what it needs and what there is, and what would make room', () => {
  const nodes = [aNode('n1'), aNode('n2')];
  const asks = (resources: Partial<Reservations>) =>
    lines(
      tablesOf(
        [aServiceObject('web', 1, (spec) => withResources(spec, resources))],
        [refused('web', 'insufficient resources on 2 nodes')],
        nodes,
      ),
      'web',
    ).slice(-2);
  const [refusal, room] = asks({ cpuNanos: 8e9, memoryBytes: 500 * 2 ** 30 });
  assert.match(refusal ?? '', /→ lower --reserve-cpu or --reserve-memory of web, or free or add a node$/);
  assert.equal(room, 'room: needs 500 GiB, free 8 GiB; needs 8 CPUs, free 4 CPUs at most on a node');
  const [, gpu] = asks({ generic: [{ kind: 'GPU', count: 2, names: [] }] });
  assert.equal(gpu, 'room: needs 2 of GPU, free 0 at most on a node');
  // It has been freed, and the scheduler has not come to it yet.
  assert.match(asks({ cpuNanos: 1e9 })[1] ?? '', /^scheduler: pending/);
});

test('a task that other services keep away tells which', () => {
  const web = aServiceObject('web', 1, (spec) => ({
    ...spec,
    task: { ...spec.task, placement: { ...spec.task.placement, affinities: ['service!=db'] } },
  }));
  const tables = tablesOf(
    [web, aServiceObject('db', 1)],
    [aTask('db'), refused('web', 'affinities not satisfied on 1 node')],
  );
  const [refusal, room] = lines(tables, 'web').slice(-2);
  assert.match(refusal ?? '', /→ add a node, or change .*--placement-affinity-rm … web$/);
  assert.equal(room, 'room: its affinities are not satisfied (service!=db)');
});

test('a task of a job that has completed does not count as one that should run', () => {
  const done = aTask('web', { state: 'complete', desired: 'complete' });
  const told = lines(tablesOf([web], [done, aTask('web', { slot: 2 })]), 'n1');
  assert.ok(told.includes('tasks: 1 of its 1 task running'), told.join());
});

test('services, nodes and tasks are found by name, before prefixes', () => {
  const tables = tablesOf([web], [aTask('web')], [aNode('we'), aNode('n1')]);
  assert.match(lines(tables, 'we')[0] ?? '', /^node: we/);
  assert.match(lines(tables, 'web')[0] ?? '', /^service: web/);
  assert.match(lines(tables, 'web.1')[0] ?? '', /^node: on n1/);
  assert.throws(() => ask(tables, 'nobody'), /no service, task or node nobody/);
  assert.throws(() => ask(tables, 'web', 'node'), /node web not found/);
  assert.throws(() => ask(tables, 'web', 'cluster'), /kind: "cluster" must be service, task, node, update/);
});

test('an update tells how far it is, what it waits for and until when, and what has failed', () => {
  const status: UpdateStatus = {
    state: 'updating',
    startedAtMs: NOW_MS - 20_000,
    completedAtMs: 0,
    message: 'update in progress',
    slotsTotal: 2,
  };
  const service = {
    ...web,
    specVersion: 2,
    previousSpec: web.spec,
    previousSpecVersion: 1,
    updateStatus: status,
  };
  const fresh = (state: 'running' | 'failed' | 'starting', slot: number) =>
    aTask('web', { slot, state, specVersion: 2, createdAtMs: NOW_MS - 10_000 });
  const tables = tablesOf(
    [service],
    [fresh('running', 1), fresh('starting', 2), { ...fresh('failed', 2), desiredState: 'shutdown' }],
  );
  tables.put('cluster', { ...emptyCluster, id: 'c', spec: defaultClusterSpec });

  const told = lines(tables, 'web', 'update').join('\n');
  assert.match(told, /update: updating: update in progress \(started 20 s ago\)/);
  assert.match(told, /progress: 1 of 2 tasks run with spec number 2/);
  assert.match(
    told,
    /failures: 1 of its tasks failed; more than 0 of 2 mean pause → tsswarm service logs web/,
  );
  assert.match(told, /waiting: for 1 task to run, at most 1 at once/);
  assert.match(told, /deadline: in 10 min, unless another task comes to run/);
  assert.match(lines(tablesOf([web], []), 'web', 'update')[0] ?? '', /no update is under way/);
});
