// Nodes that are down: the brake, and what becomes of their tasks.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { FakeClock } from '../../core/clock.ts';
import { defaultClusterSpec } from '../../core/defaults.ts';
import type { Node, Task } from '../../core/generated/objects.ts';
import { setLogLevel } from '../../rpc/logger.ts';
import { aNode, aServiceObject, aTask, NOW_MS, tablesOf } from '../../test/support/builders.ts';
import { eventually } from '../../test/support/eventually.ts';
import { MemoryLog } from '../../test/support/memory-log.ts';
import { Store } from '../store/store.ts';
import { runLostNodesLoop } from './lost-nodes-loop.ts';
import { BRAKE_WINDOW_MS, planLostNodes } from './plan-lost-nodes.ts';
import { planService } from './plan-service.ts';
import { serviceContext } from './slots.ts';

setLogLevel('silent');
const DAY_MS = 24 * 3_600_000;

function downNode(id: string, status: Partial<Node['status']> = {}): Node {
  const node = aNode(id, { state: 'down' });
  return { ...node, status: { ...node.status, sinceMs: NOW_MS, held: true, ...status } };
}

const names = (count: number) =>
  Array.from({ length: count }, (_, index) => `n${String(index).padStart(2, '0')}`);
const oneOnEach = (nodes: readonly Node[]): Task[] =>
  nodes.map(({ id }, index) => aTask('s', { slot: index + 1, nodeId: id }));

function planFor(nodes: readonly Node[], nowMs = NOW_MS, tasks: readonly Task[] = oneOnEach(nodes)) {
  return planLostNodes(
    tablesOf([aServiceObject('s', nodes.length)], tasks, nodes),
    defaultClusterSpec,
    nowMs,
  );
}

describe('the brake', () => {
  test('one node that is down is given up at once, however small the cluster', () => {
    const { giveUp, hold } = planFor([downNode('n1'), aNode('n2')]);
    assert.deepEqual(
      giveUp.map(({ node }) => node.id),
      ['n1'],
    );
    assert.deepEqual(hold, []);
  });

  test('of a third that falls silent at once a quarter of all is given up in the first minute (B6: moby#25976)', () => {
    const ids = names(30);
    const nodes = ids.map((id, index) => (index < 10 ? downNode(id) : aNode(id)));
    const first = planFor(nodes);
    assert.equal(first.giveUp.length, 7);
    assert.match(
      first.hold[0]?.message ?? '',
      /too many nodes are down: 7 of 30 may be given up in a minute/,
    );
    assert.equal(first.wakeAtMs, NOW_MS + BRAKE_WINDOW_MS);

    const later = nodes.map((node) =>
      first.giveUp.some((given) => given.node.id === node.id)
        ? { ...node, status: { ...node.status, held: false, givenUpAtMs: NOW_MS } }
        : node,
    );
    assert.equal(planFor(later, NOW_MS + BRAKE_WINDOW_MS - 1).giveUp.length, 0);
    assert.equal(planFor(later, NOW_MS + BRAKE_WINDOW_MS).giveUp.length, 3);
  });

  test('when no node is heard of none is given up: all agents are late after a change of leader (B6: moby#38203)', () => {
    const nodes = names(5).map((id) => downNode(id));
    const plan = planFor(nodes, NOW_MS + 10 * BRAKE_WINDOW_MS);
    assert.deepEqual([plan.giveUp, plan.orphan], [[], []]);
    assert.match(plan.hold[0]?.message ?? '', /no other node is ready to take its tasks/);

    const service = aServiceObject('s', 5);
    const tables = tablesOf([service], oneOnEach(nodes), nodes);
    const { create, change } = planService(serviceContext(tables, service, NOW_MS));
    assert.deepEqual([create, change], [[], []]);
  });

  test('nodes without tasks are given up beside the others and do not count', () => {
    const nodes = [downNode('a'), downNode('b'), downNode('c'), aNode('d')];
    const { giveUp } = planFor(nodes, NOW_MS, [aTask('s', { nodeId: 'c' })]);
    assert.deepEqual(
      giveUp.map(({ node, isCounted }) => [node.id, isCounted]),
      [
        ['a', false],
        ['b', false],
        ['c', true],
      ],
    );
  });
});

test('tasks of a node that is down for a day are orphaned, those of one that the brake holds are not', () => {
  const given = downNode('n1', { held: false, sinceMs: NOW_MS - DAY_MS });
  const held = downNode('n2', { sinceMs: NOW_MS - DAY_MS });
  const nodes = [given, held];
  const tasks = [
    ...oneOnEach(nodes),
    aTask('s', { slot: 3, state: 'failed' }),
    aTask('s', { slot: 4, state: 'pending' }),
  ];
  assert.deepEqual(planFor(nodes, NOW_MS, tasks).orphan, [tasks[0]]);

  const early = planFor(
    [{ ...given, status: { ...given.status, sinceMs: NOW_MS - DAY_MS + 1 } }],
    NOW_MS,
    tasks,
  );
  assert.deepEqual([early.orphan, early.wakeAtMs], [[], NOW_MS + 1]);
});

test('who fell silent under another leader has time to say that it is back, before anything of it is given up', () => {
  const graceMs = 6 * defaultClusterSpec.heartbeatPeriodMs;
  const before = NOW_MS - DAY_MS;
  const held = downNode('n1', { sinceMs: before });
  const given = downNode('n2', { sinceMs: before, held: false });
  const nodes = [held, given, aNode('n3')];
  const tables = tablesOf([aServiceObject('s', 3)], oneOnEach(nodes), nodes);
  const plan = (nowMs: number, ledSinceMs = NOW_MS) =>
    planLostNodes(tables, defaultClusterSpec, nowMs, ledSinceMs);

  const early = plan(NOW_MS + graceMs - 1);
  assert.deepEqual([early.giveUp, early.hold, early.orphan], [[], [], []]);
  assert.equal(early.wakeAtMs, NOW_MS + graceMs);
  const late = plan(NOW_MS + graceMs);
  assert.deepEqual([late.giveUp.length, late.orphan.length], [1, 1]);
  const own = plan(NOW_MS, before);
  assert.deepEqual(
    [own.giveUp.length, own.orphan.length],
    [1, 1],
    'whom it called down itself is no such case',
  );
});

test('the loop gives a node up, and orphans its tasks when the time has come', async (t) => {
  const clock = new FakeClock(NOW_MS);
  const store = new Store(new MemoryLog(), clock);
  await store.open();
  const stop = new AbortController();
  t.after(() => stop.abort());
  const task = { ...aTask('s', { nodeId: 'n1' }), meta: { version: 0, createdAtMs: 0, updatedAtMs: 0 } };
  await store.update((tx) => {
    for (const node of [downNode('n1'), aNode('n2')]) tx.create('node', node);
    tx.create('task', task);
  });
  void runLostNodesLoop({ store, clock }, stop.signal);

  await eventually(() => store.view.node.get('n1')?.status.held === false);
  assert.equal(store.view.node.get('n1')?.status.givenUpAtMs, NOW_MS);
  await eventually(() => clock.nextAtMs !== undefined);
  clock.advance(DAY_MS);
  await eventually(() => store.view.task.get(task.id)?.status.state === 'orphaned');
  assert.equal(store.view.task.get(task.id)?.desiredState, 'shutdown');
});
