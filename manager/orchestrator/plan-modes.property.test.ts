// What services on every node and jobs promise, whatever happens to their tasks and nodes: a tiny world of nodes that
// fall silent, are drained, paused, labelled and come back. fast-check prints the seed and the shortest story that
// breaks a promise.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { fitsPlacement, takesTasks } from '../../core/eligible-node.ts';
import type { Node, Service, ServiceMode, Task, TaskState } from '../../core/generated/objects.ts';
import { isJob } from '../../core/service-mode.ts';
import { compareTaskStates, isTerminal, isWanted } from '../../core/task-state.ts';
import { aNode, aServiceObject, aTask, NOW_MS, tablesOf } from '../../test/support/builders.ts';
import { planService } from './plan-service.ts';
import { serviceContext } from './slots.ts';

const NODE_IDS = ['n1', 'n2', 'n3'];
const CLIMB: Partial<Record<TaskState, TaskState>> = {
  new: 'assigned',
  assigned: 'ready',
  ready: 'starting',
  starting: 'running',
};

const step = fc.oneof(
  { weight: 8, arbitrary: fc.record({ do: fc.constant('advance' as const), task: fc.nat(30) }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('complete' as const), task: fc.nat(30) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('fail' as const), task: fc.nat(30) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('update' as const) }) },
  { weight: 3, arbitrary: fc.record({ do: fc.constant('pass' as const), ms: fc.nat(90_000) }) },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constant('node' as const),
      node: fc.nat(2),
      state: fc.constantFrom('ready' as const, 'ready' as const, 'down' as const),
      availability: fc.constantFrom('active' as const, 'active' as const, 'pause' as const, 'drain' as const),
      isLabelled: fc.boolean(),
    }),
  },
);
type Step = typeof step extends fc.Arbitrary<infer T> ? T : never;

interface Story {
  readonly mode: ServiceMode;
  readonly order: 'stop-first' | 'start-first';
  readonly parallelism?: number;
}

class World {
  service: Service;
  tasks: Task[] = [];
  nodes = new Map<string, Node>(NODE_IDS.map((id) => [id, aNode(id, { labels: { here: 'yes' } })]));
  nowMs = NOW_MS;

  constructor({ mode, order, parallelism = 1 }: Story) {
    this.service = aServiceObject('s', 1, (spec) => ({
      ...spec,
      mode,
      // A job has no update of its own.
      update: { ...spec.update, parallelism, order: isJob(mode) ? 'stop-first' : order },
      task: {
        ...spec.task,
        placement: { ...spec.task.placement, constraints: ['node.labels.here==yes'] },
        restart: { ...spec.task.restart, condition: isJob(mode) ? 'on-failure' : 'any' },
      },
    }));
  }

  plan() {
    const tables = tablesOf([this.service], this.tasks, [...this.nodes.values()]);
    return planService(serviceContext(tables, this.service, this.nowMs));
  }

  /** Plans and applies; returns whether anything changed. */
  settle(): boolean {
    const plan = this.plan();
    for (const { task, desiredState } of plan.change)
      this.tasks = this.tasks.map((other) => (other.id === task.id ? { ...other, desiredState } : other));
    if (plan.updateStatus !== undefined) this.service = { ...this.service, updateStatus: plan.updateStatus };
    for (const { slot, nodeId = '', desiredState, notBeforeMs } of plan.create) {
      if (nodeId !== '') {
        const node = this.nodes.get(nodeId);
        assert.ok(node !== undefined && node.status.state !== 'down', 'a task for a node that is down');
        assert.equal(node.spec.availability, 'active', 'a task for a node that takes none');
        assert.ok(fitsPlacement(node, this.service.spec.task.placement), 'a task where none is wanted');
      }
      const { specVersion } = this.service;
      const createdAtMs = this.nowMs;
      this.tasks.push(
        aTask('s', {
          slot,
          nodeId,
          desired: desiredState,
          notBeforeMs,
          state: 'new',
          specVersion,
          createdAtMs,
        }),
      );
    }
    return plan.change.length + plan.create.length > 0 || plan.updateStatus !== undefined;
  }

  act(action: Step): void {
    this.nowMs += 1;
    if (action.do === 'pass') this.nowMs += action.ms;
    else if (action.do === 'update') this.#update();
    else if (action.do === 'node') {
      const { state, availability, isLabelled } = action;
      const id = NODE_IDS[action.node] ?? '';
      const labels = isLabelled ? { here: 'yes' } : {};
      this.nodes.set(id, aNode(id, { state, availability, labels }));
    } else this.#touch(action.do, action.task);
  }

  #update(): void {
    const { updateStatus: _ended, ...rest } = this.service;
    const spec = { ...rest.spec, task: { ...rest.spec.task, forceUpdate: rest.spec.task.forceUpdate + 1 } };
    this.service = {
      ...rest,
      spec,
      specVersion: rest.specVersion + 1,
      previousSpec: rest.spec,
      previousSpecVersion: rest.specVersion,
    };
  }

  #touch(what: 'advance' | 'complete' | 'fail', position: number): void {
    const task = this.tasks[position % Math.max(1, this.tasks.length)];
    if (task === undefined || isTerminal(task.status.state)) return;
    const nodeId = task.nodeId || (NODE_IDS[position % NODE_IDS.length] ?? '');
    // Nobody hears of what happens on a node that is down, and it hears of nothing.
    if (this.nodes.get(nodeId)?.status.state === 'down') return;
    const state = this.#next(task, what);
    if (state === undefined) return;
    const runningAtMs = state === 'running' ? this.nowMs : task.status.runningAtMs;
    const status = { ...task.status, state, timestampMs: this.nowMs, runningAtMs };
    this.tasks = this.tasks.map((other) => (other === task ? { ...task, nodeId, status } : other));
  }

  #next(task: Task, what: 'advance' | 'complete' | 'fail'): TaskState | undefined {
    const { state } = task.status;
    if (what === 'fail') return compareTaskStates(state, 'assigned') >= 0 ? 'failed' : undefined;
    if (!isWanted(task)) return compareTaskStates(state, 'assigned') >= 0 ? 'shutdown' : undefined;
    if (what === 'complete') return state === 'running' ? 'complete' : undefined;
    if (task.desiredState === 'ready' && state === 'ready') return undefined;
    return CLIMB[state];
  }

  /** Containers that run, by node. */
  runningOn(nodeId: string): Task[] {
    return this.tasks.filter(
      ({ nodeId: its, status: { state } }) => its === nodeId && (state === 'starting' || state === 'running'),
    );
  }

  /** Wanted ones. */
  running(): Task[] {
    return this.tasks.filter((task) => isWanted(task) && task.status.state === 'running');
  }

  get current(): Task[] {
    return this.tasks.filter(({ specVersion }) => specVersion === this.service.specVersion);
  }

  /** Nodes come back, nothing fails, and time passes. */
  heal(): void {
    for (const id of NODE_IDS) this.nodes.set(id, aNode(id, { labels: { here: 'yes' } }));
    for (let round = 0; round < 120; round++) {
      this.act({ do: 'pass', ms: 10_000 });
      for (let position = 0; position < this.tasks.length; position++) {
        this.act({ do: 'advance', task: position });
        if (isJob(this.service.spec.mode)) this.act({ do: 'complete', task: position });
      }
      while (this.settle());
    }
  }
}

const lasting: fc.Arbitrary<Story> = fc.record({
  mode: fc.constant<ServiceMode>({ global: {} }),
  order: fc.constantFrom('stop-first' as const, 'start-first' as const),
});
const job: fc.Arbitrary<Story> = fc.record({
  mode: fc.oneof(
    fc.constant<ServiceMode>({ globalJob: {} }),
    fc.record({
      replicatedJob: fc.record({
        totalCompletions: fc.integer({ min: 0, max: 6 }),
        maxConcurrent: fc.integer({ min: 0, max: 3 }),
      }),
    }),
  ),
  order: fc.constant('stop-first' as const),
});
const steps = fc.array(step, { maxLength: 60, size: 'max' });

function play(story: Story, actions: readonly Step[], check: (world: World) => void): World {
  const world = new World(story);
  for (const action of actions) {
    world.act(action);
    let rounds = 0;
    while (world.settle()) assert.ok(++rounds < 12, 'the planner does not come to rest');
    check(world);
  }
  return world;
}

test('in every mode the plan settles, and deciding again on the same changes nothing', () => {
  fc.assert(
    fc.property(fc.oneof(lasting, job), steps, (story, actions) => {
      play(story, actions, (world) => {
        const again = world.plan();
        assert.deepEqual(
          [again.create, again.change, again.adopt, again.updateStatus],
          [[], [], [], undefined],
        );
      });
    }),
    { numRuns: 300 },
  );
});

test('a node never runs two tasks of one global service, or three while an update starts first (B14: moby#42295, moby#39130)', () => {
  fc.assert(
    fc.property(fc.oneof(lasting, job), steps, (story, actions) => {
      if (story.mode.replicatedJob !== undefined) return;
      const most = story.order === 'start-first' ? 2 : 1;
      play(story, actions, (world) => {
        for (const id of NODE_IDS)
          assert.ok(world.runningOn(id).length <= most, `${world.runningOn(id).length} run on ${id}`);
      });
    }),
    { numRuns: 400 },
  );
});

test('what a drained node has of a global service is told to go, and it gets nothing (B14: moby#36958)', () => {
  fc.assert(
    fc.property(fc.oneof(lasting, job), steps, (story, actions) => {
      if (story.mode.replicatedJob !== undefined) return;
      play(story, actions, ({ nodes, tasks }) => {
        for (const task of tasks)
          if (nodes.get(task.nodeId)?.spec.availability === 'drain' && !isTerminal(task.status.state))
            assert.ok(!isWanted(task), `${task.id} is wanted on a drained node`);
      });
    }),
    { numRuns: 300 },
  );
});

test('left alone, a global service has one task of its newest spec on each node', () => {
  fc.assert(
    fc.property(lasting, steps, (story, actions) => {
      const calm = actions.filter((action) => action.do !== 'fail' && action.do !== 'complete');
      const world = play(story, calm, () => {});
      world.heal();
      for (const id of NODE_IDS)
        assert.deepEqual(
          world.runningOn(id).map(({ specVersion }) => specVersion),
          [world.service.specVersion],
        );
    }),
    { numRuns: 60 },
  );
});

test('a job has no more under way than it may, completes no number twice, and completes in the end', () => {
  fc.assert(
    fc.property(job, steps, (story, actions) => {
      const { totalCompletions = NODE_IDS.length, maxConcurrent = 0 } = story.mode.replicatedJob ?? {};
      const atOnce = maxConcurrent || totalCompletions;
      const world = play(story, actions, (now) => {
        const underWay = now.tasks.filter((task) => isWanted(task) && !isTerminal(task.status.state));
        assert.ok(underWay.length <= Math.max(atOnce, 0), `${underWay.length} under way`);
        assert.ok(underWay.every(({ specVersion }) => specVersion === now.service.specVersion));
        const done = now.current.filter(({ status }) => status.state === 'complete');
        const places = done.map(({ slot, nodeId }) => slot || nodeId);
        assert.equal(new Set(places).size, places.length, 'something completed twice');
        assert.ok(done.every(({ desiredState }) => desiredState === 'complete' || desiredState === 'remove'));
      });
      world.heal();
      const done = world.current.filter(({ status }) => status.state === 'complete');
      assert.equal(done.length, totalCompletions);
      assert.ok(world.tasks.every((task) => !isWanted(task) || isTerminal(task.status.state)));
      assert.ok([...world.nodes.values()].every(takesTasks));
    }),
    { numRuns: 150 },
  );
});

test('an update never has less running than its floor: all, or all but as many as it replaces at once', () => {
  const updated = fc.record({
    mode: fc.constantFrom<ServiceMode>({ global: {} }, { replicated: { replicas: 5 } }),
    order: fc.constantFrom('stop-first' as const, 'start-first' as const),
    parallelism: fc.integer({ min: 1, max: 3 }),
  });
  const calm = steps.map((actions) =>
    actions.filter((action) => action.do === 'advance' || action.do === 'pass'),
  );
  fc.assert(
    fc.property(updated, calm, (story, actions) => {
      const world = new World(story);
      while (world.settle());
      world.heal();
      const all = world.running().length;
      assert.equal(all, story.mode.replicated?.replicas ?? NODE_IDS.length);
      const floor = story.order === 'start-first' ? all : all - story.parallelism;
      const check = () => {
        const { length } = world.running();
        assert.ok(length >= floor, `${length} run, the floor is ${floor}`);
        assert.ok(length <= all + story.parallelism, `${length} run`);
      };
      for (const action of [{ do: 'update' as const }, ...actions]) {
        world.act(action);
        while (world.settle()) check();
        check();
      }
    }),
    { numRuns: 200 },
  );
});
