import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import {
  emptyNetworkAttachment,
  emptyPortConfig,
  type NetworkAttachment,
  type RestartPolicy,
  type Service,
  type ServiceSpec,
  type Task,
  type TaskState,
} from '../../core/generated/objects.ts';
import {
  aNode,
  aServiceObject,
  aTask,
  NOW_MS,
  type TaskOptions,
  tablesOf,
} from '../../test/support/builders.ts';
import { planRemoval, planService, type ServicePlan } from './plan-service.ts';
import { serviceContext } from './slots.ts';

function plan(
  service: Service,
  tasks: readonly Task[],
  nodes = [aNode('n1'), aNode('n2')],
  nowMs = NOW_MS,
): ServicePlan {
  return planService(serviceContext(tablesOf([service], tasks, nodes), service, nowMs));
}

const changes = (result: ServicePlan) =>
  result.change.map(({ task, desiredState }) => [task.id, desiredState]);
const withRestart = (restart: Partial<RestartPolicy>) => (spec: ServiceSpec) => ({
  ...spec,
  task: { ...spec.task, restart: { ...spec.task.restart, ...restart } },
});

describe('replicas', () => {
  test('empty slots are filled from the lowest number', () => {
    const result = plan(aServiceObject('s', 4), [aTask('s', { slot: 2 })]);
    assert.deepEqual(
      result.create.map(({ slot }) => slot),
      [1, 3, 4],
    );
    assert.ok(result.create.every(({ desiredState }) => desiredState === 'running'));
  });

  test('a service that is as it should be needs nothing', () => {
    const result = plan(aServiceObject('s', 2), [aTask('s', { slot: 1 }), aTask('s', { slot: 2 })]);
    assert.deepEqual([result.create, result.change, result.updateStatus], [[], [], undefined]);
  });

  test('surplus goes first from the fullest node, then what does not run, then the highest slots', () => {
    const tasks = [
      aTask('s', { slot: 1, nodeId: 'n1' }),
      aTask('s', { slot: 2, nodeId: 'n1' }),
      aTask('s', { slot: 3, nodeId: 'n1' }),
      aTask('s', { slot: 4, nodeId: 'n2' }),
    ];
    assert.deepEqual(changes(plan(aServiceObject('s', 2), tasks)), [
      [tasks[2]?.id, 'remove'],
      [tasks[1]?.id, 'remove'],
    ]);
  });

  test('of equal nodes the task that does not run goes', () => {
    const tasks = [
      aTask('s', { slot: 1, nodeId: 'n1', state: 'starting' }),
      aTask('s', { slot: 2, nodeId: 'n2' }),
    ];
    assert.deepEqual(changes(plan(aServiceObject('s', 1), tasks)), [[tasks[0]?.id, 'remove']]);
  });

  test('zero replicas remove everything', () => {
    const tasks = [aTask('s', { slot: 1 }), aTask('s', { slot: 2 })];
    assert.equal(plan(aServiceObject('s', 0), tasks).change.length, 2);
  });

  test('a stopped service has none, whatever its replicas, and gets them back', () => {
    const stopped = aServiceObject('s', 2, (spec) => ({ ...spec, stopped: true }));
    const tasks = [aTask('s', { slot: 1 }), aTask('s', { slot: 2 })];
    assert.deepEqual(
      changes(plan(stopped, tasks)).map(([, state]) => state),
      ['remove', 'remove'],
    );
    assert.deepEqual(plan(stopped, []).create, []);
    assert.equal(plan(aServiceObject('s', 2), []).create.length, 2);
  });

  test('all tasks of a removed service go, once', () => {
    const tasks = [
      aTask('s'),
      aTask('s', { state: 'failed', desired: 'shutdown' }),
      aTask('s', { desired: 'remove' }),
    ];
    assert.deepEqual(changes(planRemoval(tasks)), [
      [tasks[0]?.id, 'remove'],
      [tasks[1]?.id, 'remove'],
    ]);
  });
});

describe('restarts', () => {
  test('a failed task is followed by one that waits for the delay, in the same slot', () => {
    const task = aTask('s', { slot: 3, state: 'failed', endedAtMs: NOW_MS });
    const result = plan(aServiceObject('s', 1, withRestart({ delayMs: 5_000 })), [task]);
    assert.deepEqual(changes(result), [[task.id, 'shutdown']]);
    assert.deepEqual(result.create, [{ slot: 3, desiredState: 'ready', notBeforeMs: NOW_MS + 5_000 }]);
  });

  test('the replacement is started when its time has come, and the planner asks to be woken then', () => {
    const old = aTask('s', { state: 'failed', desired: 'shutdown' });
    const next = aTask('s', {
      state: 'ready',
      desired: 'ready',
      createdAtMs: NOW_MS,
      notBeforeMs: NOW_MS + 500,
    });
    assert.deepEqual(plan(aServiceObject('s', 1), [old, next]).wakeAtMs, NOW_MS + 500);
    assert.deepEqual(changes(plan(aServiceObject('s', 1), [old, next], undefined, NOW_MS + 500)), [
      [next.id, 'running'],
    ]);
  });

  test('two tasks of a slot that end at once, in an update that starts first, are followed by one (B14: moby#39130)', () => {
    const service = aServiceObject('s', 1, (spec) => ({ ...spec, mode: { global: {} } }));
    const died = (specVersion: number) =>
      aTask('s', { slot: 0, nodeId: 'n1', specVersion, state: 'failed', endedAtMs: NOW_MS - 1 });
    const result = plan({ ...service, specVersion: 2 }, [died(2), died(1)], [aNode('n1')]);
    assert.deepEqual(
      result.create.map(({ nodeId, desiredState }) => [nodeId, desiredState]),
      [['n1', 'ready']],
    );
    assert.equal(result.change.length, 2);
  });

  test('two tasks of a slot that are lost together are followed by one, in the same slot', () => {
    const service = { ...aServiceObject('s', 2), specVersion: 2 };
    const other = aTask('s', { nodeId: 'n2', specVersion: 2 });
    const lost = [
      aTask('s', { slot: 2, specVersion: 1 }),
      aTask('s', { slot: 2, specVersion: 2, state: 'starting' }),
    ];
    const evicted = lost.map((task) => ({ ...task, eviction: 'its node is being drained' }));
    for (const [tasks, state] of [
      [lost, 'down'],
      [evicted, 'ready'],
    ] as const) {
      const result = plan(service, [other, ...tasks], [aNode('n1', { state }), aNode('n2')]);
      assert.deepEqual(result.create, [{ slot: 2, desiredState: 'ready', notBeforeMs: NOW_MS }]);
      assert.equal(result.change.length, 2);
    }
  });

  test('the replacement waits for its predecessor to be down, but not for ever', () => {
    const old = aTask('s', { state: 'running', desired: 'shutdown' });
    const next = aTask('s', { state: 'ready', desired: 'ready', createdAtMs: NOW_MS });
    assert.deepEqual(changes(plan(aServiceObject('s', 1), [old, next])), []);
    const slow = (spec: ServiceSpec) => ({ ...spec, endpoint: { ...spec.endpoint, drainMs: 30_000 } });
    const later = (ms: number) => plan(aServiceObject('s', 1, slow), [old, next], undefined, NOW_MS + ms);
    assert.deepEqual(changes(later(99_999)), [], 'while the old one may be draining, and then stopping');
    assert.deepEqual(changes(later(100_000)), [[next.id, 'running']]);
  });

  test('a replacement that cannot even be prepared is followed by the next only when its delay is over', () => {
    const old = aTask('s', { state: 'rejected', desired: 'shutdown' });
    const next = aTask('s', { state: 'rejected', desired: 'ready', notBeforeMs: NOW_MS + 500 });
    const service = aServiceObject('s', 1);
    assert.deepEqual(changes(plan(service, [old, next])), []);
    assert.equal(plan(service, [old, next]).wakeAtMs, NOW_MS + 500);
    const later = plan(service, [old, next], undefined, NOW_MS + 500);
    assert.deepEqual(changes(later), [[next.id, 'shutdown']]);
    assert.deepEqual(later.create, [{ slot: 1, desiredState: 'ready', notBeforeMs: NOW_MS + 5_500 }]);
  });

  test('condition none: an ended task stays the last of its slot', () => {
    const task = aTask('s', { state: 'complete', endedAtMs: NOW_MS });
    const service = aServiceObject('s', 1, withRestart({ condition: 'none' }));
    assert.deepEqual(plan(service, [task]).create, []);
    const ended = { ...task, desiredState: 'shutdown' as const };
    assert.deepEqual([plan(service, [ended]).create, plan(service, [ended]).change], [[], []]);
  });

  test('condition on-failure: success is an end, failure is not', () => {
    const service = aServiceObject('s', 1, withRestart({ condition: 'on-failure' }));
    assert.equal(plan(service, [aTask('s', { state: 'complete' })]).create.length, 0);
    assert.equal(plan(service, [aTask('s', { state: 'failed' })]).create.length, 1);
  });

  test('the number of attempts is bounded per slot', () => {
    const service = aServiceObject('s', 1, withRestart({ maxAttempts: 2 }));
    const dead = (age: number) =>
      aTask('s', {
        state: 'failed',
        desired: 'shutdown',
        createdAtMs: NOW_MS - age,
        endedAtMs: NOW_MS - age + 1,
      });
    const last = aTask('s', { state: 'failed', createdAtMs: NOW_MS - 10, endedAtMs: NOW_MS });
    assert.equal(plan(service, [dead(2_000), last]).create.length, 1, 'one restart so far');
    assert.equal(plan(service, [dead(3_000), dead(2_000), last]).create.length, 0, 'two restarts so far');
  });

  test('attempts older than the window do not count', () => {
    const service = aServiceObject('s', 1, withRestart({ maxAttempts: 2, windowMs: 1_000 }));
    const dead = (age: number) =>
      aTask('s', { state: 'failed', desired: 'shutdown', createdAtMs: NOW_MS - age });
    const last = aTask('s', { state: 'failed', createdAtMs: NOW_MS - 10, endedAtMs: NOW_MS });
    assert.equal(plan(service, [dead(9_000), dead(8_000), dead(7_000), last]).create.length, 1);
  });

  test('a task that is to go, or whose node is down, is replaced at once, whatever the restart condition', () => {
    for (const lost of [{ nodeId: 'n1' }, { nodeId: 'n2', eviction: 'its node is being drained' }]) {
      const { eviction } = lost;
      const task = { ...aTask('s', { nodeId: lost.nodeId }), ...(eviction !== undefined && { eviction }) };
      const result = plan(
        aServiceObject('s', 1, withRestart({ condition: 'none' })),
        [task],
        [aNode('n1', { state: 'down' }), aNode('n2')],
      );
      assert.deepEqual(changes(result), [[task.id, 'shutdown']]);
      assert.deepEqual(result.create, [{ slot: 1, desiredState: 'ready', notBeforeMs: NOW_MS }]);
    }
  });
});

describe('a task that leaves last', () => {
  const leaving = { ...aTask('s', { createdAtMs: NOW_MS - 60_000 }), eviction: 'because', leavesLast: true };
  const successor = (state: TaskState, more: TaskOptions = {}) =>
    aTask('s', { nodeId: 'n2', state, createdAtMs: NOW_MS - 10_000, endedAtMs: NOW_MS, ...more });
  const planned = (...tasks: readonly Task[]) =>
    plan(aServiceObject('s', 1), tasks, [aNode('n1'), aNode('n2')]);

  test('gets a successor, which starts beside it, and goes when that runs', () => {
    const first = planned(leaving);
    assert.deepEqual(
      [changes(first), first.create],
      [[], [{ slot: 1, desiredState: 'running', notBeforeMs: 0 }]],
    );
    const starting = planned(leaving, successor('starting'));
    assert.deepEqual([changes(starting), starting.create], [[], []]);
    const running = planned(leaving, successor('running'));
    assert.deepEqual([changes(running), running.create], [[[leaving.id, 'shutdown']], []]);
  });

  test('stays while its successor fails, and attempts keep the delay of restarts', () => {
    const failed = successor('failed');
    const again = planned(leaving, failed);
    assert.deepEqual(changes(again), [[failed.id, 'shutdown']]);
    assert.deepEqual(again.create, [{ slot: 1, desiredState: 'ready', notBeforeMs: NOW_MS + 5_000 }]);

    const ended = successor('failed', { desired: 'shutdown' });
    const waiting = successor('ready', {
      desired: 'ready',
      createdAtMs: NOW_MS - 5_000,
      notBeforeMs: NOW_MS,
    });
    const due = planned(leaving, ended, waiting);
    assert.deepEqual(
      changes(due),
      [[waiting.id, 'running']],
      'it does not wait for the one that leaves last',
    );
    const given = planned(leaving, ended);
    assert.deepEqual([changes(given), given.create], [[], []], 'no attempt beside the policy');
  });

  test('stays when its successor is lost, which gets another', () => {
    const lost = successor('running', { nodeId: 'n3' });
    const nodes = [aNode('n1'), aNode('n2'), aNode('n3', { state: 'down' })];
    const result = plan(aServiceObject('s', 1), [leaving, lost], nodes);
    assert.deepEqual(changes(result), [[lost.id, 'shutdown']]);
    assert.deepEqual(result.create, [{ slot: 1, desiredState: 'ready', notBeforeMs: NOW_MS }]);
  });

  test('goes at once when its node is given up, or it does not run', () => {
    const lost = plan(aServiceObject('s', 1), [leaving], [aNode('n1', { state: 'down' }), aNode('n2')]);
    assert.deepEqual([changes(lost), lost.create.length], [[[leaving.id, 'shutdown']], 1]);
    const early = { ...leaving, status: { ...leaving.status, state: 'starting' as const } };
    assert.deepEqual([changes(planned(early)), planned(early).create.length], [[[early.id, 'shutdown']], 1]);
  });
});

describe('updates', () => {
  const changed = (spec: ServiceSpec): ServiceSpec => ({
    ...spec,
    task: { ...spec.task, forceUpdate: spec.task.forceUpdate + 1 },
  });
  /** A service whose spec number 2 differs from its number 1. */
  function updated(
    replicas: number,
    configure: (spec: ServiceSpec) => ServiceSpec = (spec) => spec,
  ): Service {
    const first = aServiceObject('s', replicas, configure);
    return {
      ...first,
      spec: changed(first.spec),
      specVersion: 2,
      previousSpec: first.spec,
      previousSpecVersion: 1,
    };
  }
  const updating = (slotsTotal: number) => ({
    state: 'updating' as const,
    startedAtMs: NOW_MS,
    completedAtMs: 0,
    message: '',
    slotsTotal,
  });
  const old = (slot: number) => aTask('s', { slot });
  const fresh = (slot: number, options = {}) =>
    aTask('s', { slot, specVersion: 2, createdAtMs: NOW_MS - 30_000, ...options });
  const configure = (update: Partial<ServiceSpec['update']>) => (spec: ServiceSpec) => ({
    ...spec,
    update: { ...spec.update, ...update },
  });

  test('begins with as many slots as the parallelism says, stop first', () => {
    const tasks = [old(1), old(2), old(3)];
    const result = plan(updated(3, configure({ parallelism: 2 })), tasks);
    assert.equal(result.updateStatus?.state, 'updating');
    assert.equal(result.updateStatus?.slotsTotal, 3);
    assert.deepEqual(changes(result), [
      [tasks[0]?.id, 'shutdown'],
      [tasks[1]?.id, 'shutdown'],
    ]);
    assert.deepEqual(
      result.create.map(({ slot, desiredState }) => [slot, desiredState]),
      [
        [1, 'ready'],
        [2, 'ready'],
      ],
    );
  });

  test('a service that moves to another network, or gets another alias there, replaces its tasks in turn', () => {
    const joined = (change: Partial<NetworkAttachment>) => (spec: ServiceSpec) => ({
      ...spec,
      task: {
        ...spec.task,
        networks: [{ ...emptyNetworkAttachment, networkId: 'front', ...change }],
      },
    });
    const first = aServiceObject('s', 2, joined({}));
    for (const next of [joined({ networkId: 'back' }), joined({ aliases: ['www'] })]) {
      const service = { ...first, spec: next(first.spec), specVersion: 2, previousSpec: first.spec };
      const tasks = [old(1), old(2)];
      const result = plan({ ...service, previousSpecVersion: 1 }, tasks);
      assert.equal(result.updateStatus?.slotsTotal, 2);
      assert.deepEqual(changes(result), [[tasks[0]?.id, 'shutdown']]);
    }
  });

  test('start first keeps the old task until the new one runs', () => {
    const service = updated(1, configure({ order: 'start-first' }));
    const task = old(1);
    assert.deepEqual(plan(service, [task]).create, [{ slot: 1, desiredState: 'running', notBeforeMs: 0 }]);
    assert.deepEqual(changes(plan(service, [task])), []);
    const going = { ...service, updateStatus: updating(1) };
    assert.deepEqual(changes(plan(going, [task, fresh(1, { state: 'starting' })])), []);
    assert.deepEqual(changes(plan(going, [task, fresh(1)])), [[task.id, 'shutdown']]);
    assert.deepEqual(plan(going, [task, fresh(1)]).create, [], 'one replacement is enough');
  });

  test('the next slot waits until the one before runs, and for the delay after', () => {
    const service = { ...updated(2, configure({ delayMs: 10_000 })), updateStatus: updating(2) };
    const running = fresh(1, { runningAtMs: NOW_MS - 4_000 });
    assert.deepEqual(plan(service, [fresh(1, { state: 'starting' }), old(2)]).create, []);
    assert.deepEqual(plan(service, [running, old(2)]).create, []);
    assert.equal(plan(service, [running, old(2)]).wakeAtMs, NOW_MS + 6_000);
    assert.equal(plan(service, [running, old(2)], undefined, NOW_MS + 6_000).create.length, 1);
  });

  test('is complete one monitor period after the last task began to run', () => {
    const service = { ...updated(1), updateStatus: updating(1) };
    const tasks = [fresh(1, { runningAtMs: NOW_MS - 1_000 })];
    assert.equal(plan(service, tasks).updateStatus, undefined);
    assert.equal(plan(service, tasks).wakeAtMs, NOW_MS + 4_000);
    assert.equal(plan(service, tasks, undefined, NOW_MS + 4_000).updateStatus?.state, 'completed');
  });

  test('pauses when more tasks fail than the ratio allows, and then leaves old tasks alone', () => {
    const service = { ...updated(2), updateStatus: updating(2) };
    const failed = fresh(1, { state: 'failed', desired: 'shutdown', endedAtMs: NOW_MS });
    const result = plan(service, [failed, fresh(1, { state: 'ready', desired: 'ready' }), old(2)]);
    assert.equal(result.updateStatus?.state, 'paused');
    assert.match(result.updateStatus?.message ?? '', new RegExp(`early termination of task ${failed.id}`));
    const paused = { ...service, updateStatus: { ...updating(2), state: 'paused' as const } };
    assert.deepEqual(changes(plan(paused, [old(1), old(2)])), []);
  });

  test('pausing leaves no two tasks in a slot: the old one still goes when the new one runs', () => {
    const service = { ...updated(2), updateStatus: { ...updating(2), state: 'paused' as const } };
    const before = old(1);
    assert.deepEqual(changes(plan(service, [before, fresh(1, { state: 'starting' }), old(2)])), []);
    assert.deepEqual(changes(plan(service, [before, fresh(1), old(2)])), [[before.id, 'shutdown']]);
  });

  test('an update that is taken back while both tasks of a slot are wanted leaves the one that runs', () => {
    const { spec, ...first } = updated(1);
    const back = {
      ...first,
      spec: first.previousSpec as ServiceSpec,
      specVersion: 3,
      previousSpec: spec,
      previousSpecVersion: 2,
      updateStatus: { ...updating(1), state: 'rollback-completed' as const },
    };
    const before = aTask('s', { specVersion: 3 });
    // What had no place yet has taken on the spec that it differed from in nothing else.
    const begun = aTask('s', { specVersion: 3, nodeId: '', state: 'pending' });
    assert.deepEqual(changes(plan(back, [before, begun])), [[begun.id, 'shutdown']]);
    assert.deepEqual(changes(plan(back, [before])), []);
  });

  test('a failure within the ratio does not stop it', () => {
    const service = { ...updated(4, configure({ maxFailureRatio: 0.5 })), updateStatus: updating(4) };
    const failed = fresh(1, { state: 'failed', desired: 'shutdown', endedAtMs: NOW_MS });
    const result = plan(service, [
      failed,
      fresh(1, { state: 'ready', desired: 'ready' }),
      old(2),
      old(3),
      old(4),
    ]);
    assert.equal(result.updateStatus, undefined);
    assert.ok(result.create.some(({ slot }) => slot === 2));
  });

  test('a task that ended long after it began to run is no failure of the update', () => {
    const service = { ...updated(1), updateStatus: updating(1) };
    const ended = fresh(1, {
      state: 'failed',
      desired: 'shutdown',
      runningAtMs: NOW_MS - 20_000,
      endedAtMs: NOW_MS,
    });
    assert.notEqual(plan(service, [ended]).updateStatus?.state, 'paused');
  });

  test('failure action rollback asks for the previous spec', () => {
    const service = { ...updated(1, configure({ failureAction: 'rollback' })), updateStatus: updating(1) };
    const result = plan(service, [fresh(1, { state: 'rejected', desired: 'shutdown', endedAtMs: NOW_MS })]);
    assert.equal(result.rollback, true);
    assert.equal(result.updateStatus?.state, 'rollback-started');
  });

  test('a failing rollback pauses', () => {
    const service = { ...updated(1), updateStatus: { ...updating(1), state: 'rollback-started' as const } };
    const result = plan(service, [fresh(1, { state: 'failed', desired: 'shutdown', endedAtMs: NOW_MS })]);
    assert.equal(result.updateStatus?.state, 'rollback-paused');
  });

  test('what a running task does not feel replaces nothing', () => {
    const ports = [{ ...emptyPortConfig, targetPort: 80, publishedPort: 8080 }];
    const first = aServiceObject('s', 1, (spec) => ({ ...spec, endpoint: { ...spec.endpoint, ports } }));
    const moved = { ports: [{ ...emptyPortConfig, targetPort: 81, publishedPort: 8081 }], weightLabel: 'w' };
    const next = withRestart({ delayMs: 1 })({
      ...first.spec,
      labels: { tier: 'front' },
      endpoint: { ...first.spec.endpoint, ...moved },
    });
    const service = {
      ...first,
      spec: next,
      specVersion: 2,
      previousSpec: first.spec,
      previousSpecVersion: 1,
    };
    const result = plan(service, [old(1)]);
    assert.deepEqual([result.create, result.change], [[], []]);
  });

  test('the first published port, and one of the node itself, take new tasks', () => {
    const port = { ...emptyPortConfig, targetPort: 80, publishedPort: 8080 };
    for (const ports of [[port], [{ ...port, publishMode: 'host' as const }]]) {
      const first = aServiceObject('s', 1);
      const next = { ...first.spec, endpoint: { ...first.spec.endpoint, ports } };
      const service = { ...first, spec: next, specVersion: 2 };
      const result = plan({ ...service, previousSpec: first.spec, previousSpecVersion: 1 }, [old(1)]);
      assert.equal(result.change.length, 1);
    }
  });

  test('a new constraint moves only tasks whose node does not satisfy it', () => {
    const first = aServiceObject('s', 2);
    const placement = { ...first.spec.task.placement, constraints: ['node.labels.disk==ssd'] };
    const service = {
      ...first,
      spec: { ...first.spec, task: { ...first.spec.task, placement } },
      specVersion: 2,
      previousSpec: first.spec,
      previousSpecVersion: 1,
    };
    const tasks = [aTask('s', { slot: 1, nodeId: 'n1' }), aTask('s', { slot: 2, nodeId: 'n2' })];
    const result = plan(service, tasks, [aNode('n1', { labels: { disk: 'ssd' } }), aNode('n2')]);
    assert.deepEqual(changes(result), [[tasks[1]?.id, 'shutdown']]);
  });
});

test('a replacement whose time comes together with an update is replaced, not started', () => {
  const first = aServiceObject('s', 1);
  const spec = { ...first.spec, task: { ...first.spec.task, forceUpdate: 1 } };
  const service = { ...first, spec, specVersion: 2, previousSpec: first.spec, previousSpecVersion: 1 };
  const ended = aTask('s', { state: 'failed', desired: 'shutdown', createdAtMs: NOW_MS - 9_000 });
  const due = aTask('s', { state: 'ready', desired: 'ready', createdAtMs: NOW_MS - 5_000 });

  const plan = planService(serviceContext(tablesOf([service], [ended, due]), service, NOW_MS));

  assert.deepEqual(plan.change, [{ task: due, desiredState: 'shutdown' }]);
  assert.equal(plan.create.length, 1);
});
