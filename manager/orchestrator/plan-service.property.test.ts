// Whatever happens to its tasks, a service keeps these promises. A tiny world applies plans and lets tasks climb,
// fail and vanish at random; fast-check prints the seed and the shortest story that breaks a promise.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { Service, Task, TaskState } from '../../core/generated/objects.ts';
import { isTerminal, isWanted } from '../../core/task-state.ts';
import { aServiceObject, aTask, NOW_MS, tablesOf } from '../../test/support/builders.ts';
import { planService } from './plan-service.ts';
import { serviceContext } from './slots.ts';

type Step =
  | { readonly do: 'advance'; readonly task: number }
  | { readonly do: 'fail'; readonly task: number }
  | { readonly do: 'scale'; readonly replicas: number }
  | { readonly do: 'update' }
  | { readonly do: 'pass'; readonly ms: number };

const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 6, arbitrary: fc.record({ do: fc.constant('advance' as const), task: fc.nat(30) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('fail' as const), task: fc.nat(30) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('scale' as const), replicas: fc.nat(6) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('update' as const) }) },
  { weight: 3, arbitrary: fc.record({ do: fc.constant('pass' as const), ms: fc.nat(8_000) }) },
);

const CLIMB: Partial<Record<TaskState, TaskState>> = {
  new: 'assigned',
  assigned: 'ready',
  ready: 'starting',
  starting: 'running',
};

class World {
  service: Service;
  tasks: Task[] = [];
  nowMs = NOW_MS;

  constructor(replicas: number, order: 'stop-first' | 'start-first') {
    this.service = aServiceObject('s', replicas, (spec) => ({ ...spec, update: { ...spec.update, order } }));
  }

  get replicas(): number {
    return this.service.spec.mode.replicated?.replicas ?? 0;
  }

  plan() {
    return planService(serviceContext(tablesOf([this.service], this.tasks), this.service, this.nowMs));
  }

  /** Plans and applies; returns whether anything changed. */
  settle(): boolean {
    const plan = this.plan();
    for (const { task, desiredState } of plan.change)
      this.tasks = this.tasks.map((other) => (other.id === task.id ? { ...other, desiredState } : other));
    if (plan.updateStatus !== undefined) this.service = { ...this.service, updateStatus: plan.updateStatus };
    for (const { slot, desiredState, notBeforeMs } of plan.create)
      this.tasks.push(
        aTask('s', {
          slot,
          desired: desiredState,
          notBeforeMs,
          state: 'new',
          nodeId: '',
          specVersion: this.service.specVersion,
          createdAtMs: this.nowMs,
        }),
      );
    return plan.change.length + plan.create.length > 0 || plan.updateStatus !== undefined;
  }

  act(action: Step): void {
    this.nowMs += 1;
    switch (action.do) {
      case 'pass':
        this.nowMs += action.ms;
        break;
      case 'scale':
        this.service = {
          ...this.service,
          spec: { ...this.service.spec, mode: { replicated: { replicas: action.replicas } } },
        };
        break;
      case 'update': {
        const { updateStatus: _ended, ...rest } = this.service;
        const spec = {
          ...rest.spec,
          task: { ...rest.spec.task, forceUpdate: rest.spec.task.forceUpdate + 1 },
        };
        this.service = {
          ...rest,
          spec,
          specVersion: rest.specVersion + 1,
          previousSpec: rest.spec,
          previousSpecVersion: rest.specVersion,
        };
        break;
      }
      default:
        this.#touch(action);
    }
  }

  #touch({ do: what, task: position }: { do: 'advance' | 'fail'; task: number }): void {
    const task = this.tasks[position % Math.max(1, this.tasks.length)];
    if (task === undefined || isTerminal(task.status.state)) return;
    const state = what === 'fail' ? 'failed' : isWanted(task) ? this.#next(task) : 'shutdown';
    if (state === undefined) return;
    const runningAtMs = state === 'running' ? this.nowMs : task.status.runningAtMs;
    const status = { ...task.status, state, timestampMs: this.nowMs, runningAtMs };
    this.tasks = this.tasks.map((other) => (other === task ? { ...task, nodeId: 'n1', status } : other));
  }

  #next(task: Task): TaskState | undefined {
    if (task.desiredState === 'ready' && task.status.state === 'ready') return undefined;
    return CLIMB[task.status.state];
  }

  wanted(): Task[] {
    return this.tasks.filter(isWanted);
  }
}

const story = fc.record({
  replicas: fc.integer({ min: 0, max: 5 }),
  order: fc.constantFrom('stop-first' as const, 'start-first' as const),
  steps: fc.array(step, { maxLength: 60 }),
});

test('after every change the plan settles, and settling again changes nothing', () => {
  fc.assert(
    fc.property(story, ({ replicas, order, steps }) => {
      const world = new World(replicas, order);
      for (const action of steps) {
        world.act(action);
        let rounds = 0;
        while (world.settle()) assert.ok(++rounds < 10, 'the planner does not come to rest');
        const again = world.plan();
        assert.deepEqual([again.create, again.change, again.updateStatus], [[], [], undefined]);
      }
    }),
    { numRuns: 300 },
  );
});

test('never more wanted tasks than replicas and the surge of a start-first update, never two runnable in one slot', () => {
  fc.assert(
    fc.property(story, ({ replicas, order, steps }) => {
      const world = new World(replicas, order);
      for (const action of steps) {
        world.act(action);
        while (world.settle());
        const surge = order === 'start-first' ? 1 : 0;
        assert.ok(
          world.wanted().length <= world.replicas + surge,
          `${world.wanted().length} wanted for ${world.replicas}`,
        );
        const runnable = world
          .wanted()
          .filter((task) => task.desiredState === 'running')
          .map(({ slot }) => slot);
        if (surge === 0)
          assert.equal(new Set(runnable).size, runnable.length, 'two tasks of one slot may run');
      }
    }),
    { numRuns: 300 },
  );
});

test('left alone, every service reaches its replicas under its newest spec', () => {
  fc.assert(
    fc.property(story, ({ replicas, order, steps }) => {
      const world = new World(replicas, order);
      for (const action of steps.filter((action) => action.do !== 'fail')) {
        world.act(action);
        while (world.settle());
      }
      for (let round = 0; round < 400; round++) {
        world.act({ do: 'pass', ms: 1_000 });
        for (let position = 0; position < world.tasks.length; position++)
          world.act({ do: 'advance', task: position });
        while (world.settle());
      }
      const running = world.wanted().filter((task) => task.status.state === 'running');
      assert.equal(running.length, world.replicas);
      assert.equal(world.wanted().length, world.replicas);
      assert.ok(running.every((task) => task.specVersion === world.service.specVersion));
    }),
    { numRuns: 60 },
  );
});
