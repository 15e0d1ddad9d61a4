// What holds while tasks move between nodes, whatever the order in which agents report: drains keep their rate and the
// service whole, rebalancing comes to an end, and the brake lets no more nodes be given up than it may. fast-check prints
// the seed and the shortest story that breaks a promise.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { defaultClusterSpec } from '../../core/defaults.ts';
import { takesTasks } from '../../core/eligible-node.ts';
import type { Node, Service, Task, TaskState, UpdateConfig } from '../../core/generated/objects.ts';
import { giveUpsMax } from '../../core/node-silence.ts';
import { isTerminal, isWanted } from '../../core/task-state.ts';
import { aNode, aServiceObject, aTask, NOW_MS, tablesOf } from '../../test/support/builders.ts';
import { ClusterBook } from '../placement/cluster-book.ts';
import { planDrain } from './plan-drain.ts';
import { BRAKE_WINDOW_MS, planLostNodes } from './plan-lost-nodes.ts';
import { planRebalance } from './plan-rebalance.ts';
import { planService } from './plan-service.ts';
import { serviceContext } from './slots.ts';

const CLIMB: Partial<Record<TaskState, TaskState>> = {
  assigned: 'ready',
  ready: 'starting',
  starting: 'running',
};
const ROUNDS_MAX = 200;
const DEADLINE_MS = 600_000;

interface Setting {
  readonly nodes: number;
  /** Nodes of the replicas at the beginning. */
  readonly places: readonly number[];
  readonly update?: Partial<UpdateConfig>;
  readonly rebalance?: boolean;
}

function rebalance({ tables, service, nowMs }: Pick<World, 'tables' | 'service' | 'nowMs'>, calmMs = 0) {
  return planRebalance(tables, service, { nowMs, calmMs, book: () => ClusterBook.of(tables) });
}

class World {
  readonly service: Service;
  tasks: readonly Task[];
  nodes: Map<string, Node>;
  nowMs = NOW_MS;
  moves = 0;

  constructor({ nodes, places, update, rebalance = false }: Setting) {
    this.nodes = new Map(
      Array.from({ length: nodes }, (_, index) => [`n${index}`, aNode(`n${index}`, { cpus: 100 })]),
    );
    this.service = aServiceObject('s', places.length, (spec) => ({
      ...spec,
      update: { ...spec.update, ...update },
      task: { ...spec.task, placement: { ...spec.task.placement, rebalance } },
    }));
    this.tasks = places.map((place, index) =>
      aTask('s', { slot: index + 1, nodeId: `n${place % nodes}`, createdAtMs: NOW_MS - 3_600_000 }),
    );
  }

  get tables() {
    return tablesOf([this.service], this.tasks, [...this.nodes.values()]);
  }

  running(): Task[] {
    return this.tasks.filter(({ status }) => status.state === 'running');
  }

  /** On their way: told to go, and not gone or not replaced. */
  moving(): Task[] {
    return this.tasks.filter(
      (task) =>
        task.eviction !== undefined &&
        (!isTerminal(task.status.state) ||
          !this.running().some((other) => other.slot === task.slot && isWanted(other))),
    );
  }

  setNode(id: string, change: Partial<Node>): void {
    this.nodes.set(id, { ...(this.nodes.get(id) as Node), ...change });
  }

  /** All loops until none has anything to do. */
  settle(): void {
    for (let round = 0; this.#step(); round++) assert.ok(round < ROUNDS_MAX, 'the loops do not come to rest');
  }

  /** The agent of a task reports its next state. */
  advance(position: number): void {
    const live = this.tasks.filter((task) => this.#next(task) !== undefined);
    const task = live[position % Math.max(1, live.length)];
    if (task === undefined) return;
    const state = this.#next(task) as TaskState;
    const runningAtMs = state === 'running' ? this.nowMs : task.status.runningAtMs;
    this.#put({ ...task, status: { ...task.status, state, timestampMs: this.nowMs, runningAtMs } });
  }

  /** Until nothing moves any more. */
  finish(): void {
    for (let round = 0; round < 2_000; round++) {
      this.nowMs += 1_000;
      this.advance(round);
      this.settle();
    }
  }

  #next(task: Task): TaskState | undefined {
    const { state } = task.status;
    if (isTerminal(state) || task.nodeId === '') return undefined;
    if (this.nodes.get(task.nodeId)?.status.state !== 'ready') return undefined;
    if (!isWanted(task)) return 'shutdown';
    return task.desiredState === 'ready' && state === 'ready' ? undefined : CLIMB[state];
  }

  #put(task: Task): void {
    this.tasks = this.tasks.map((other) => (other.id === task.id ? task : other));
  }

  #step(): boolean {
    const before = this.tasks;
    const { tables, nowMs } = this;
    for (const node of this.nodes.values())
      for (const { task, leavesLast } of planDrain(tables, node, nowMs).evict)
        this.#put({ ...task, eviction: task.eviction ?? 'its node is being drained', leavesLast });
    for (const task of rebalance(this).move) {
      this.moves++;
      this.#put({ ...task, eviction: 'another node has fewer tasks of its service', leavesLast: true });
    }
    const plan = planService(serviceContext(this.tables, this.service, nowMs));
    for (const { task, desiredState } of plan.change)
      this.#put({ ...(this.tasks.find(({ id }) => id === task.id) as Task), desiredState });
    for (const { slot, desiredState, notBeforeMs } of plan.create)
      this.tasks = [
        ...this.tasks,
        aTask('s', {
          slot,
          nodeId: '',
          state: 'pending',
          desired: desiredState,
          notBeforeMs,
          createdAtMs: nowMs,
        }),
      ];
    this.#place();
    return this.tasks !== before;
  }

  /** As the scheduler does: to the node with the fewest. */
  #place(): void {
    for (const task of this.tasks.filter(
      ({ status, nodeId }) => status.state === 'pending' && nodeId === '',
    )) {
      if (!isWanted(task)) continue;
      const count = ({ id }: Node) =>
        this.tasks.filter(
          (other) => other.nodeId === id && isWanted(other) && !isTerminal(other.status.state),
        ).length;
      const [node] = [...this.nodes.values()].filter(takesTasks).sort((a, b) => count(a) - count(b));
      if (node !== undefined)
        this.#put({ ...task, nodeId: node.id, status: { ...task.status, state: 'assigned' } });
    }
  }
}

const places = fc.array(fc.nat(4), { minLength: 1, maxLength: 9 });
const order = fc.constantFrom('start-first' as const, 'stop-first' as const);

test('a drain keeps its rate, a start-first service is never below its replicas, and the node ends up empty', () => {
  const story = fc.record({
    places,
    order,
    rate: fc.integer({ min: 1, max: 3 }),
    steps: fc.array(fc.nat(30), { maxLength: 60 }),
  });
  fc.assert(
    fc.property(story, ({ places, order, rate, steps }) => {
      const world = new World({ nodes: 4, places, update: { order } });
      const { spec } = world.nodes.get('n0') as Node;
      world.setNode('n0', {
        spec: { ...spec, availability: 'drain', drainRate: rate, drainDeadlineMs: DEADLINE_MS },
        drainStartedAtMs: NOW_MS,
      });
      world.settle();
      for (const position of steps) {
        world.nowMs += 1;
        world.advance(position);
        world.settle();
        assert.ok(world.moving().length <= rate, `${world.moving().length} are moving`);
        const floor = order === 'start-first' ? places.length : places.length - rate;
        assert.ok(world.running().length >= floor, `${world.running().length} of ${places.length} run`);
      }
      // Long before the deadline.
      for (let round = 0; round < 400; round++) {
        world.nowMs += 1;
        world.advance(round);
        world.settle();
      }
      assert.ok(world.running().every(({ nodeId }) => nodeId !== 'n0'));
      assert.equal(world.running().length, places.length);
    }),
    { numRuns: 60 },
  );
});

test('after its deadline a drain waits for no successor', () => {
  const world = new World({ nodes: 2, places: [0, 0, 1], update: { order: 'start-first' } });
  const { spec } = world.nodes.get('n0') as Node;
  world.setNode('n0', {
    spec: { ...spec, availability: 'drain', drainRate: 1, drainDeadlineMs: DEADLINE_MS },
    drainStartedAtMs: NOW_MS,
  });
  world.settle();
  const wanted = () => world.tasks.filter((task) => task.nodeId === 'n0' && isWanted(task)).length;
  assert.equal(wanted(), 2);

  world.nowMs = NOW_MS + DEADLINE_MS;
  world.settle();

  assert.equal(wanted(), 0);
});

test('rebalancing moves no more at once than an update does, only where it helps, and comes to an end', () => {
  const story = fc.record({
    places,
    parallelism: fc.integer({ min: 1, max: 3 }),
    order,
    steps: fc.array(fc.nat(30), { maxLength: 80 }),
  });
  fc.assert(
    fc.property(story, ({ places, parallelism, order, steps }) => {
      const world = new World({
        nodes: 4,
        places,
        rebalance: true,
        update: { parallelism, order, monitorMs: 0 },
      });
      const counts = () =>
        [...world.nodes.keys()].map((id) => world.running().filter((task) => task.nodeId === id).length);
      const surplus = Math.max(...counts()) - Math.min(...counts());
      world.settle();
      assert.ok(surplus >= 2 || world.moves === 0, 'it moved without need');
      for (const position of steps) {
        world.nowMs += 1;
        world.advance(position);
        world.settle();
        assert.ok(world.moving().length <= parallelism, `${world.moving().length} are moving`);
        assert.ok(world.running().length >= places.length, `${world.running().length} run`);
      }
      world.finish();
      const { moves } = world;
      assert.ok(Math.max(...counts()) - Math.min(...counts()) <= 1, counts().join(' '));
      assert.ok(moves <= places.length, `${moves} moves of ${places.length} tasks`);
      world.finish();
      assert.equal(world.moves, moves, 'it goes on');
    }),
    { numRuns: 40 },
  );
});

test('a service that is not whole, is being updated, or does not want it, is left where it is', () => {
  const uneven = { nodes: 2, places: [0, 0, 0], update: { monitorMs: 0 } };
  const planned = ({ tables, service, nowMs }: World, change: Partial<Service> = {}) =>
    rebalance({ tables, nowMs, service: { ...service, ...change } }).move.length;
  const wanting = new World({ ...uneven, rebalance: true });
  assert.equal(planned(wanting), 1);

  assert.equal(planned(new World(uneven)), 0);
  const status = { state: 'updating' as const, startedAtMs: 0, completedAtMs: 0, message: '', slotsTotal: 0 };
  assert.equal(planned(wanting, { updateStatus: status }), 0);
  const [first, ...others] = wanting.tasks as [Task, ...Task[]];
  wanting.tasks = [{ ...first, status: { ...first.status, state: 'starting' } }, ...others];
  assert.equal(planned(wanting), 0);
});

test('nothing moves to a node that has come back only just, or is refused what the task reserves', () => {
  const world = new World({ nodes: 2, places: [0, 0, 0], rebalance: true, update: { monitorMs: 0 } });
  const back = world.nodes.get('n1') as Node;
  world.setNode('n1', { status: { ...back.status, sinceMs: NOW_MS - 10_000 } });
  const plan = () => rebalance(world, 30_000);
  assert.deepEqual(plan(), { move: [], wakeAtMs: NOW_MS + 20_000 });

  world.nowMs = NOW_MS + 20_000;
  const greedy = {
    ...world.service.spec,
    task: {
      ...world.service.spec.task,
      resources: { ...world.service.spec.task.resources, reservations: { cpuNanos: 1e12, memoryBytes: 0 } },
    },
  };
  const service = { ...world.service, spec: greedy };
  assert.deepEqual(rebalance({ tables: world.tables, nowMs: world.nowMs, service }), {
    move: [],
    wakeAtMs: world.nowMs + 60_000,
  });
});

test('while no node has two more than another, nobody counts what there is room for', () => {
  const even = new World({ nodes: 2, places: [0, 1, 0], rebalance: true, update: { monitorMs: 0 } });
  const book = () => assert.fail('all tasks of the cluster are counted');
  const moment = { nowMs: even.nowMs, calmMs: 0, book };
  assert.deepEqual(planRebalance(even.tables, even.service, moment), { move: [], wakeAtMs: undefined });
});

test('in any minute no more nodes are given up than the brake allows, and what is on the others stays (B6)', () => {
  const story = fc.record({
    nodes: fc.integer({ min: 2, max: 16 }),
    percent: fc.constantFrom(10, 25, 50),
    steps: fc.array(fc.record({ node: fc.nat(15), isBack: fc.boolean(), ms: fc.nat(40_000) }), {
      maxLength: 40,
    }),
  });
  fc.assert(
    fc.property(story, ({ nodes, percent, steps }) => {
      const world = new World({ nodes, places: Array.from({ length: nodes }, (_, index) => index) });
      const spec = { ...defaultClusterSpec, rescheduleMaxPercent: percent };
      const givenUpAt: number[] = [];
      for (const { node, isBack, ms } of steps) {
        world.nowMs += ms;
        const id = `n${node % nodes}`;
        const { status } = world.nodes.get(id) as Node;
        const state = isBack ? ('ready' as const) : ('down' as const);
        if (state !== status.state)
          world.setNode(id, { status: { ...status, state, held: !isBack, sinceMs: world.nowMs } });
        for (const { node: lost, isCounted } of planLostNodes(world.tables, spec, world.nowMs).giveUp) {
          const since = isCounted ? { givenUpAtMs: world.nowMs } : {};
          world.setNode(lost.id, { status: { ...lost.status, held: false, ...since } });
          if (isCounted) givenUpAt.push(world.nowMs);
        }
        const again = planLostNodes(world.tables, spec, world.nowMs).giveUp;
        assert.deepEqual(again, [], 'deciding twice gives more');
        const isHeld = ({ nodeId }: Task) => world.nodes.get(nodeId)?.status.held === true;
        const wanted = () =>
          world.tasks.filter((task) => isHeld(task) && isWanted(task)).map((task) => task.id);
        const before = wanted();
        world.settle();
        assert.deepEqual(wanted(), before, 'tasks of a held node are replaced');
        const recent = givenUpAt.filter((atMs) => atMs > world.nowMs - BRAKE_WINDOW_MS).length;
        assert.ok(recent <= giveUpsMax(spec, nodes), `${recent} given up in a minute`);
      }
    }),
    { numRuns: 60 },
  );
});
