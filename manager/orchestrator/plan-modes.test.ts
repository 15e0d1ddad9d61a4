// Services on every node, jobs, and what is done in place: what the planner says in single cases.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { Node, Service, ServiceMode, ServiceSpec, Task } from '../../core/generated/objects.ts';
import { aNode, aServiceObject, aTask, NOW_MS, tablesOf } from '../../test/support/builders.ts';
import { planEvictions } from './plan-evictions.ts';
import { planService, type ServicePlan } from './plan-service.ts';
import { serviceContext } from './slots.ts';

function plan(
  service: Service,
  tasks: readonly Task[],
  nodes: readonly Node[] = [aNode('n1'), aNode('n2')],
  nowMs = NOW_MS,
): ServicePlan {
  return planService(serviceContext(tablesOf([service], tasks, nodes), service, nowMs));
}

const withMode = (mode: ServiceMode) => (spec: ServiceSpec) => ({ ...spec, mode });
const aGlobal = (change: (spec: ServiceSpec) => ServiceSpec = (spec) => spec) =>
  aServiceObject('s', 0, (spec) => change(withMode({ global: {} })(spec)));
const onNode = (nodeId: string, options: Parameters<typeof aTask>[1] = {}) =>
  aTask('s', { slot: 0, nodeId, ...options });
const changes = (result: ServicePlan) =>
  result.change.map(({ task, desiredState }) => [task.id, desiredState]);
const nodesOf = (result: ServicePlan) => result.create.map(({ nodeId }) => nodeId);

/** The same service with the changes as its next spec. */
function respecified(service: Service, change: (spec: ServiceSpec) => ServiceSpec): Service {
  return {
    ...service,
    spec: change(service.spec),
    specVersion: service.specVersion + 1,
    previousSpec: service.spec,
    previousSpecVersion: service.specVersion,
  };
}

const limited = (memoryBytes: number) => (spec: ServiceSpec) => ({
  ...spec,
  task: {
    ...spec.task,
    resources: { ...spec.task.resources, limits: { ...spec.task.resources.limits, memoryBytes } },
  },
});
const reserving = (memoryBytes: number) => (spec: ServiceSpec) => ({
  ...spec,
  task: {
    ...spec.task,
    resources: { ...spec.task.resources, reservations: { cpuNanos: 0, memoryBytes } },
  },
});

describe('global services', () => {
  test('each node that is ready, active and fits gets a task', () => {
    const nodes = [
      aNode('n1', { labels: { disk: 'ssd' } }),
      aNode('n2'),
      aNode('n3', { labels: { disk: 'ssd' }, state: 'down' }),
      aNode('n4', { labels: { disk: 'ssd' }, availability: 'pause' }),
      aNode('n5', { labels: { disk: 'ssd' }, availability: 'drain' }),
    ];
    const service = aGlobal((spec) => ({
      ...spec,
      task: {
        ...spec.task,
        placement: { ...spec.task.placement, constraints: ['node.labels.disk==ssd'] },
      },
    }));
    assert.deepEqual(nodesOf(plan(service, [], nodes)), ['n1']);
  });

  test('a task stays on a node that is paused or down, and goes from one that is drained, unfit or gone', () => {
    const staying = [onNode('n1'), onNode('n2')];
    const nodes = [aNode('n1', { availability: 'pause' }), aNode('n2', { state: 'down' })];
    assert.deepEqual(changes(plan(aGlobal(), staying, nodes)), []);

    const going = [onNode('n1'), onNode('n2')];
    assert.deepEqual(changes(plan(aGlobal(), going, [aNode('n1', { availability: 'drain' })])), [
      [going[0]?.id, 'shutdown'],
      [going[1]?.id, 'remove'],
    ]);
  });

  test('on a node that is active again, the next task waits for as long as the one before takes to stop', () => {
    const old = onNode('n1', { desired: 'shutdown' });
    const first = plan(aGlobal(), [old], [aNode('n1')]);
    assert.deepEqual(
      first.create.map(({ desiredState }) => desiredState),
      ['ready'],
    );
    const next = onNode('n1', { state: 'ready', desired: 'ready', createdAtMs: NOW_MS });
    assert.deepEqual(changes(plan(aGlobal(), [old, next], [aNode('n1')], NOW_MS + 3_600_000)), []);
    const ended = { ...old, status: { ...old.status, state: 'shutdown' as const } };
    assert.deepEqual(changes(plan(aGlobal(), [ended, next], [aNode('n1')])), [[next.id, 'running']]);
  });

  test('an update goes node by node, and leaves out one that is paused until it is active again', () => {
    const service = respecified(aGlobal(), (spec) => ({ ...spec, task: { ...spec.task, forceUpdate: 1 } }));
    const old = [onNode('n1'), onNode('n2'), onNode('n3')];
    const nodes = [aNode('n1', { availability: 'pause' }), aNode('n2'), aNode('n3')];
    const result = plan(service, old, nodes);
    assert.deepEqual(nodesOf(result), ['n2']);

    const done: Service = {
      ...service,
      updateStatus: { state: 'completed', startedAtMs: 1, completedAtMs: 2, message: '', slotsTotal: 2 },
    };
    const rest = [old[0] as Task, onNode('n2', { specVersion: 2 }), onNode('n3', { specVersion: 2 })];
    assert.deepEqual(plan(done, rest, nodes).create, []);
    const again = plan(done, rest, [aNode('n1'), aNode('n2'), aNode('n3')]);
    assert.deepEqual([nodesOf(again), again.updateStatus?.state], [['n1'], 'updating']);
  });
});

describe('jobs', () => {
  const aJob = (totalCompletions: number, maxConcurrent = 0) =>
    aServiceObject('s', 0, withMode({ replicatedJob: { totalCompletions, maxConcurrent } }));
  const complete = (slot: number) => aTask('s', { slot, state: 'complete', desired: 'complete' });

  test('as many tasks are begun as may be under way, and what has completed is left alone', () => {
    assert.deepEqual(
      plan(aJob(5, 2), []).create.map(({ slot, desiredState }) => [slot, desiredState]),
      [
        [1, 'complete'],
        [2, 'complete'],
      ],
    );
    const result = plan(aJob(3, 2), [complete(1), aTask('s', { slot: 2, desired: 'complete' })]);
    assert.deepEqual([result.create.map(({ slot }) => slot), result.change], [[3], []]);
    assert.deepEqual(plan(aJob(2), [complete(1), complete(2)]).create, []);
  });

  test('another spec is another iteration: what runs is stopped, and all of it begins again', () => {
    const service = respecified(aJob(2), (spec) => ({ ...spec, labels: { a: 'b' } }));
    const running = aTask('s', { slot: 2, desired: 'complete' });
    const result = plan(service, [complete(1), running]);
    assert.deepEqual(changes(result), [[running.id, 'shutdown']]);
    assert.deepEqual(
      result.create.map(({ slot, desiredState }) => [slot, desiredState]),
      [
        [1, 'complete'],
        [2, 'ready'],
      ],
      'the slot that is still being left has to wait',
    );
    assert.equal(result.updateStatus, undefined);
  });

  test('numbers that the job does not have any more leave no history', () => {
    const service = respecified(
      aJob(3),
      withMode({ replicatedJob: { totalCompletions: 1, maxConcurrent: 0 } }),
    );
    const old = [complete(1), complete(2), complete(3)];
    assert.deepEqual(changes(plan(service, old)), [
      [old[1]?.id, 'remove'],
      [old[2]?.id, 'remove'],
    ]);
  });

  test('a global job runs on a node that joins later, also when it is complete on the others', () => {
    const service = aServiceObject('s', 0, withMode({ globalJob: {} }));
    const done = onNode('n1', { state: 'complete', desired: 'complete' });
    assert.deepEqual(nodesOf(plan(service, [done], [aNode('n1'), aNode('new')])), ['new']);
  });
});

describe('changes in place', () => {
  test('limits and reservations are taken on by the tasks that run, without an update', () => {
    const service = respecified(aServiceObject('s', 2), limited(2 ** 26));
    const tasks = [aTask('s', { slot: 1 }), aTask('s', { slot: 2 })];
    const result = plan(service, tasks);
    assert.deepEqual([result.create, result.change, result.updateStatus], [[], [], undefined]);
    assert.deepEqual(result.adopt, tasks);
    const adopted = tasks.map((task) => ({ ...task, specVersion: 2 }));
    assert.deepEqual(plan(service, adopted).adopt, []);
  });

  test('a task that waits for a place takes on where it may go now, one that has its place stays as it is', () => {
    const constrained = (constraints: readonly string[]) => (spec: ServiceSpec) => ({
      ...spec,
      task: { ...spec.task, placement: { ...spec.task.placement, constraints } },
    });
    const first = aServiceObject('s', 2, constrained(['node.labels.x==1']));
    const service = respecified(first, constrained([]));
    const waiting = aTask('s', { slot: 1, state: 'pending', nodeId: '' });
    const tasks = [waiting, aTask('s', { slot: 2 })];

    const result = plan(service, tasks);

    assert.deepEqual([result.create, result.change, result.updateStatus], [[], [], undefined]);
    assert.deepEqual(result.adopt, [waiting]);
    assert.deepEqual(plan(service, [{ ...waiting, specVersion: 2 }]).adopt, []);
  });

  test('a change that the runtime cannot make in a container that runs needs new tasks', () => {
    const service = respecified(limitedCpuset(''), () => limitedCpuset('0').spec);
    const result = plan(service, [aTask('s')]);
    assert.deepEqual([result.adopt, result.create.length], [[], 1]);
  });

  test('where the reservation no longer fits the node, the task is replaced by the update', () => {
    const node = aNode('n1', { memoryBytes: 1_000 });
    const service = respecified(aServiceObject('s', 1), reserving(800));
    const other = aServiceObject('other', 1, reserving(300));
    const tasks = [aTask('s'), aTask('other')];
    const full = planService(serviceContext(tablesOf([service, other], tasks, [node]), service, NOW_MS));
    assert.deepEqual([full.adopt, full.create.length], [[], 1]);
    const free = planService(serviceContext(tablesOf([service], tasks.slice(0, 1), [node]), service, NOW_MS));
    assert.deepEqual([free.adopt.length, free.create], [1, []]);
  });

  function limitedCpuset(cpusetCpus: string): Service {
    return aServiceObject('s', 1, (spec) => ({
      ...spec,
      task: {
        ...spec.task,
        resources: { ...spec.task.resources, limits: { ...spec.task.resources.limits, cpusetCpus } },
      },
    }));
  }
});

describe('evictions', () => {
  const picky = aServiceObject('s', 2, (spec) => ({
    ...spec,
    task: { ...spec.task, placement: { ...spec.task.placement, constraints: ['node.labels.disk==ssd'] } },
  }));

  test('a node that has lost a label loses the tasks that asked for it, and only those', () => {
    const tables = tablesOf([picky, aServiceObject('other', 1)], [aTask('s'), aTask('other')]);
    const [eviction, ...more] = planEvictions(tables, aNode('n1'));
    assert.deepEqual([eviction?.task.serviceId, more], ['s', []]);
    assert.match(eviction?.reason ?? '', /node\.labels\.disk==ssd any more/);
    assert.deepEqual(planEvictions(tables, aNode('n1', { labels: { disk: 'ssd' } })), []);
    assert.deepEqual(planEvictions(tables, aNode('n1', { availability: 'pause' })), []);
  });

  test('who was told to leave last, by a drain or a rebalancing, goes at once where it may not stay', () => {
    const leaving = { ...aTask('s'), eviction: 'its node is being drained', leavesLast: true };
    const tables = tablesOf([picky], [leaving]);
    assert.deepEqual(
      planEvictions(tables, aNode('n1')).map(({ task }) => task.id),
      [leaving.id],
    );
    assert.deepEqual(planEvictions(tables, aNode('n1', { labels: { disk: 'ssd' } })), []);
  });

  test('of a node with less memory than was reserved the newest tasks go, and deciding again changes nothing', () => {
    const service = aServiceObject('s', 3, reserving(400));
    const tasks = [300, 200, 100].map((age, index) =>
      aTask('s', { slot: index + 1, createdAtMs: NOW_MS - age }),
    );
    const node = aNode('n1', { memoryBytes: 900 });
    const found = planEvictions(tablesOf([service], tasks, [node]), node);
    assert.deepEqual(
      found.map(({ task }) => task.id),
      [tasks[2]?.id],
    );
    const marked = tasks.map((task) => (task === tasks[2] ? { ...task, eviction: 'because' } : task));
    assert.deepEqual(planEvictions(tablesOf([service], marked, [node]), node), []);
  });

  test('a node without the cards that it had loses the tasks that were given them, the newest where it has too few (B16: swarmkit#3162)', () => {
    const given = (kind: string, age: number, ...names: string[]): Task => ({
      ...aTask('s', { createdAtMs: NOW_MS - age }),
      genericResources: [{ kind, count: names.length || 1, names }],
    });
    const tasks = [given('GPU', 3, 'g0'), given('GPU', 2, 'g1'), given('SSD', 2), given('SSD', 1)];
    const bare = aNode('n1');
    const having = (...genericResources: Node['description']['genericResources']) => ({
      ...bare,
      description: { ...bare.description, genericResources },
    });
    const tables = tablesOf([aServiceObject('s', 4)], tasks, [bare]);
    const reasons = (node: Node) =>
      planEvictions(tables, node).map(({ task, reason }) => [
        tasks.findIndex(({ id }) => id === task.id),
        reason,
      ]);
    const cards = { kind: 'GPU', count: 2, names: ['g1', 'g2'] };
    assert.deepEqual(reasons(having(cards, { kind: 'SSD', count: 1, names: [] })), [
      [0, 'its node does not have the GPU any more'],
      [3, 'its node does not have the SSD any more'],
    ]);
    assert.equal(reasons(bare).length, 4);
    const more = [
      { ...cards, count: 3, names: ['g0', 'g1', 'g2'] },
      { kind: 'SSD', count: 2, names: [] },
    ];
    assert.deepEqual(reasons(having(...more)), []);
  });

  test('an evicted task is replaced at once, and its successor waits until it has stopped', () => {
    const task = { ...aTask('s', { slot: 1 }), eviction: 'because' };
    const result = plan(aServiceObject('s', 1), [task]);
    assert.deepEqual(changes(result), [[task.id, 'shutdown']]);
    assert.deepEqual(result.create, [{ slot: 1, desiredState: 'ready', notBeforeMs: NOW_MS }]);
  });
});

describe('updates without progress', () => {
  const DEADLINE_MS = 60_000;
  const updating = (failureAction: 'pause' | 'rollback'): Service => ({
    ...respecified(aServiceObject('s', 1), (spec) => ({
      ...spec,
      task: { ...spec.task, forceUpdate: 1 },
      update: { ...spec.update, deadlineMs: DEADLINE_MS, failureAction },
    })),
    updateStatus: {
      state: 'updating',
      startedAtMs: NOW_MS,
      completedAtMs: 0,
      message: 'update in progress',
      slotsTotal: 1,
    },
  });
  const waiting = () => {
    const task = aTask('s', { specVersion: 2, state: 'pending', nodeId: '', createdAtMs: NOW_MS });
    return {
      ...task,
      status: { ...task.status, error: 'no suitable node (insufficient resources on 2 nodes)' },
    };
  };
  const atDeadlineMs = NOW_MS + DEADLINE_MS;

  test('after its deadline an update says since when, and why, and once', () => {
    const service = updating('pause');
    const task = waiting();
    const before = plan(service, [task], undefined, atDeadlineMs - 1);
    assert.deepEqual([before.updateStatus, before.wakeAtMs], [undefined, atDeadlineMs]);

    const { updateStatus } = plan(service, [task], undefined, atDeadlineMs);
    assert.equal(updateStatus?.state, 'updating');
    assert.equal(updateStatus?.noProgressSinceMs, NOW_MS);
    assert.match(updateStatus?.message ?? '', /no progress since 2023-.*: no suitable node \(insufficient/);
    const told = { ...service, updateStatus };
    assert.equal(plan(told as Service, [task], undefined, atDeadlineMs + 5_000).updateStatus, undefined);
  });

  test('it is told that it goes on when a task has come to run', () => {
    const stalled = plan(updating('pause'), [waiting()], undefined, atDeadlineMs).updateStatus;
    const service = { ...updating('pause'), updateStatus: stalled } as Service;
    const running = aTask('s', { specVersion: 2, createdAtMs: NOW_MS, runningAtMs: atDeadlineMs });
    const { updateStatus } = plan(service, [running], undefined, atDeadlineMs + 60_000);
    assert.deepEqual([updateStatus?.state, updateStatus?.noProgressSinceMs], ['completed', undefined]);
  });

  test('it goes back when that is its failure action, and a rollback only says so (B13: moby#37493)', () => {
    const result = plan(updating('rollback'), [waiting()], undefined, atDeadlineMs);
    assert.equal(result.rollback, true);
    assert.match(result.updateStatus?.message ?? '', /update rolled back because of no progress since/);
  });

  test('an update that is given up begins no other slot', () => {
    const old = aTask('s', { specVersion: 1 });
    const { rollback, create, change } = plan(updating('rollback'), [old], undefined, atDeadlineMs);
    assert.deepEqual([rollback, create, change], [true, [], []]);
  });

  test('a time without a leader is not counted: a new one goes on with what went well', () => {
    const service = updating('rollback');
    const old = aTask('s', { specVersion: 1 });
    const under = (nowMs: number) =>
      planService(serviceContext(tablesOf([service], [old], [aNode('n1')]), service, nowMs, atDeadlineMs));
    const first = under(atDeadlineMs);
    assert.deepEqual([first.rollback, first.create.length], [undefined, 1]);
    assert.equal(under(atDeadlineMs + DEADLINE_MS).rollback, true);
  });
});

describe('back-off', () => {
  const failed = (age: number, delayMs: number, ranMs = 0) =>
    aTask('s', {
      state: 'failed',
      desired: 'shutdown',
      createdAtMs: NOW_MS - age,
      notBeforeMs: NOW_MS - age + delayMs,
      runningAtMs: ranMs > 0 ? NOW_MS - age : 0,
      endedAtMs: NOW_MS - age + ranMs,
    });
  const nextDelayMs = (history: readonly Task[], service = aServiceObject('s', 1)): number => {
    const [last, ...older] = history;
    const ending = { ...(last as Task), desiredState: 'running' as const };
    return (plan(service, [ending, ...older]).create[0]?.notBeforeMs ?? 0) - NOW_MS;
  };

  test('a slot that fails again and again waits twice as long each time, to a bound', () => {
    assert.equal(nextDelayMs([failed(10_000, 5_000), failed(20_000, 5_000)]), 5_000);
    const third = [failed(10_000, 5_000), failed(20_000, 5_000), failed(30_000, 0)];
    assert.equal(nextDelayMs(third), 10_000);
    assert.equal(nextDelayMs([failed(100_000, 80_000), ...third]), 160_000);
    assert.equal(
      nextDelayMs([
        failed(400_000, 290_000),
        ...third.map((task) => ({ ...task, meta: { ...task.meta, createdAtMs: NOW_MS - 900_000 } })),
      ]),
      300_000,
    );
  });

  test('a slot that is to be started at once waits as well when it fails again and again', () => {
    const atOnce = aServiceObject('s', 1, (spec) => ({
      ...spec,
      task: { ...spec.task, restart: { ...spec.task.restart, delayMs: 0 } },
    }));
    const history = [failed(10_000, 0), failed(20_000, 0)];
    assert.equal(nextDelayMs(history, atOnce), 0);
    assert.equal(nextDelayMs([failed(5_000, 0), ...history], atOnce), 1_000);
    assert.equal(nextDelayMs([failed(4_000, 1_000), ...history], atOnce), 2_000);
  });

  test('a task that ran for long has made the failures before it forgotten', () => {
    const before = [failed(200_000, 0), failed(210_000, 0), failed(220_000, 0)];
    assert.equal(nextDelayMs([failed(190_000, 40_000, 120_000), ...before]), 5_000);
  });

  test('a policy with a number of attempts keeps its delay', () => {
    const bounded = aServiceObject('s', 1, (spec) => ({
      ...spec,
      task: { ...spec.task, restart: { ...spec.task.restart, maxAttempts: 10 } },
    }));
    const history = [failed(10_000, 5_000), failed(20_000, 5_000), failed(30_000, 5_000)];
    assert.equal(nextDelayMs(history, bounded), 5_000);
  });
});
