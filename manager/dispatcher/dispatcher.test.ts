// Sessions, heartbeats and statuses, under a clock that moves when told to and a log that commits when told to.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { FakeClock } from '../../core/clock.ts';
import { defaultClusterSpec } from '../../core/defaults.ts';
import { hasCode } from '../../core/errors.ts';
import {
  emptyCluster,
  emptyNodeDescription,
  emptyTaskStatus,
  type Node,
  type TaskState,
} from '../../core/generated/objects.ts';
import {
  type AgentMessage,
  type ManagerMessage,
  StatusBatchCodec,
  type TaskStatusUpdate,
} from '../../proto/generated/dispatcher.ts';
import { encode } from '../../proto/wire.ts';
import { setLogLevel } from '../../rpc/logger.ts';
import { AsyncQueue } from '../../rpc/queue.ts';
import { aNode, aServiceObject, aTask, putInto, removeFrom, tablesOf } from '../../test/support/builders.ts';
import { eventually } from '../../test/support/eventually.ts';
import { MemoryLog } from '../../test/support/memory-log.ts';
import { LogBroker } from '../log-broker.ts';
import { Store } from '../store/store.ts';
import { Transaction } from '../store/transaction.ts';
import { AssignmentTracker } from './assignments.ts';
import { Dispatcher } from './dispatcher.ts';
import { NetworkDirectory } from './network-directory.ts';

setLogLevel('silent');
// Of the default cluster.
const PERIOD_MS = 5_000;

/** An agent at the other end of a session, without a connection between. */
class Agent {
  readonly requests = new AsyncQueue<AgentMessage>();
  readonly received: ManagerMessage[] = [];
  readonly gone = new AbortController();
  readonly ended: Promise<unknown>;

  constructor(dispatcher: Dispatcher, nodeId = 'n1') {
    const messages = dispatcher.handlers.session(this.requests, {
      signal: this.gone.signal,
      caller: { role: 'worker', nodeId },
      isForwarded: false,
    });
    const read = async () => {
      for await (const message of messages) this.received.push(message);
    };
    this.ended = read().then(
      () => 'ended',
      (error: unknown) => error,
    );
    this.requests.push({ register: { nodeId, description: emptyNodeDescription, address: '' } });
  }

  report(taskId: string, state: TaskState, timestampMs: number): void {
    const status = { ...emptyTaskStatus, state, timestampMs };
    this.push([{ taskId, status }]);
  }

  push(updates: readonly TaskStatusUpdate[]): void {
    this.requests.push({ statuses: encode(StatusBatchCodec, { sequence: 1, updates }) });
  }

  registered(): Promise<unknown> {
    return eventually(() => this.received.length >= 2);
  }

  acknowledged(): Promise<unknown> {
    return eventually(() => this.received.some(({ statusAcknowledged }) => statusAcknowledged !== undefined));
  }
}

/** Somebody else is faster with the next write: it has to be decided again, after what happens meanwhile. */
class ContestedStore extends Store {
  meanwhile: (() => Promise<unknown>) | undefined;

  override async update<T>(decide: (tx: Transaction) => T): Promise<T> {
    const { meanwhile } = this;
    this.meanwhile = undefined;
    if (meanwhile !== undefined) {
      decide(new Transaction(this.view));
      await meanwhile();
    }
    return super.update(decide);
  }
}

async function start(node: Partial<Node['status']> = {}) {
  const log = new MemoryLog();
  const clock = new FakeClock();
  const store = new ContestedStore(log, clock);
  await store.open();
  await store.update((tx) => {
    const [first, second] = [aNode('n1'), aNode('n2')];
    tx.create('node', { ...first, status: { ...first.status, ...node } });
    tx.create('node', { ...second, status: { ...second.status, state: 'down' } });
  });
  // A process that did not run for a while.
  let stalledMs = 0;
  const dispatcher = new Dispatcher({
    store,
    clock: {
      nowMs: () => clock.nowMs() + stalledMs,
      elapsedMs: () => clock.elapsedMs() + stalledMs,
      after: (delayMs, callback) => clock.after(delayMs, callback),
    },
    random: () => 0.5,
    randomBytes,
    logBroker: new LogBroker(clock, randomBytes),
  });
  const stop = new AbortController();
  return {
    log,
    clock,
    store,
    dispatcher,
    stop,
    stall: (byMs: number) => {
      stalledMs += byMs;
    },
    run: () => dispatcher.run(stop.signal),
    nodeState: () => store.view.node.get('n1')?.status.state,
  };
}

test('a node that registers while a new leader calls it unknown is ready afterwards', async () => {
  const { dispatcher, store, run, nodeState } = await start();
  let isRegistered = false;
  store.meanwhile = async () => {
    await new Agent(dispatcher).registered();
    isRegistered = true;
  };

  void run();
  await eventually(() => isRegistered);
  await new Promise((resolve) => setImmediate(resolve));

  assert.equal(nodeState(), 'ready');
});

test('a node whose deadline passes while it registers is ready afterwards', async () => {
  const { log, clock, dispatcher, run, nodeState } = await start();
  void run();
  await eventually(() => nodeState() === 'unknown');

  log.isHeld = true;
  const agent = new Agent(dispatcher);
  await new Promise((resolve) => setImmediate(resolve));
  clock.advance(PERIOD_MS * 6);
  log.release();
  await agent.registered();

  await new Promise((resolve) => setImmediate(resolve));
  assert.equal(nodeState(), 'ready');
  assert.equal(dispatcher.sessionCount, 1);
});

test('a node that registers before the dispatcher runs is not called unknown', async () => {
  const { dispatcher, run, nodeState } = await start({ state: 'unknown' });
  const agent = new Agent(dispatcher);
  await agent.registered();

  void run();

  await new Promise((resolve) => setImmediate(resolve));
  assert.equal(nodeState(), 'ready');
});

test('silence makes a node down and ends its session; it comes back by registering again', async () => {
  const { clock, dispatcher, run, nodeState } = await start();
  void run();
  const silent = new Agent(dispatcher);
  await silent.registered();

  clock.advance(PERIOD_MS * 3);

  assert.ok(hasCode(await silent.ended, 'deadline-exceeded'));
  await eventually(() => nodeState() === 'down');
  const back = new Agent(dispatcher);
  await back.registered();
  assert.equal(nodeState(), 'ready');
  clock.advance(PERIOD_MS * 1.9);
  assert.equal(nodeState(), 'ready');
});

test('a node that misses heartbeats is suspect before it is down, and ready with its next word', async () => {
  const { clock, dispatcher, run, nodeState } = await start();
  void run();
  const agent = new Agent(dispatcher);
  await agent.registered();

  clock.advance(PERIOD_MS * 2);
  await eventually(() => nodeState() === 'suspect');
  agent.requests.push({ heartbeat: {} });
  await eventually(() => nodeState() === 'ready');

  clock.advance(PERIOD_MS * 2);
  await eventually(() => nodeState() === 'suspect');
  clock.advance(PERIOD_MS);
  await eventually(() => nodeState() === 'down');
});

test('how long a node may be silent before it is suspect is a setting of the cluster', async () => {
  const { clock, store, dispatcher, run, nodeState } = await start();
  await store.update((tx) =>
    tx.create('cluster', {
      ...emptyCluster,
      id: 'c',
      spec: { ...defaultClusterSpec, nodeSuspectAfterMs: 7_000 },
    }),
  );
  void run();
  const agent = new Agent(dispatcher);
  await agent.registered();

  clock.advance(6_999);
  assert.equal(nodeState(), 'ready');
  clock.advance(1);
  await eventually(() => nodeState() === 'suspect');
});

test('a manager that was held up does not take its nodes for silent (B6: moby#38203)', async () => {
  const { clock, stall, dispatcher, run, nodeState } = await start();
  void run();
  const agent = new Agent(dispatcher);
  await agent.registered();

  stall(PERIOD_MS * 20);
  clock.advance(PERIOD_MS * 2);
  await new Promise((resolve) => setImmediate(resolve));
  assert.equal(nodeState(), 'ready');
  agent.requests.push({ heartbeat: {} });
  await new Promise((resolve) => setImmediate(resolve));
  clock.advance(PERIOD_MS);
  assert.equal(nodeState(), 'ready');
  clock.advance(PERIOD_MS * 2);
  await eventually(() => nodeState() === 'down');
});

test('a second session of a node ends the first, whose late words count for nothing', async () => {
  const { store, clock, dispatcher, run, nodeState } = await start();
  void run();
  const task = { ...aTask('s', { state: 'running' }), meta: { version: 0, createdAtMs: 0, updatedAtMs: 0 } };
  await store.update((tx) => tx.create('task', task));
  const old = new Agent(dispatcher);
  await old.registered();
  const next = new Agent(dispatcher);
  await next.registered();

  assert.ok(hasCode(await old.ended, 'unavailable'));
  old.report(task.id, 'failed', 2e12);
  await new Promise((resolve) => setImmediate(resolve));

  assert.equal(store.view.task.get(task.id)?.status.state, 'running');
  assert.equal(dispatcher.sessionCount, 1);
  clock.advance(PERIOD_MS * 1.9);
  assert.equal(nodeState(), 'ready');
});

test('an agent that goes away while it registers leaves no session', async () => {
  const { log, dispatcher, run, nodeState } = await start();
  void run();
  await eventually(() => nodeState() === 'unknown');
  log.isHeld = true;
  const agent = new Agent(dispatcher);
  await new Promise((resolve) => setImmediate(resolve));

  agent.gone.abort();
  log.release();

  await agent.ended;
  assert.equal(dispatcher.sessionCount, 0);
});

test('states gone by and tasks that are gone are not written', async () => {
  const { store, agent, bare } = await withTasks();
  await store.update((tx) => tx.create('task', bare('ended', 'n1', 'failed')));
  const running = { ...emptyTaskStatus, state: 'running' as const, timestampMs: 2e12 };

  agent.push(['ended', 'mine', 'nosuch'].map((taskId) => ({ taskId, status: running })));
  await agent.acknowledged();

  const stateOf = (id: string) => store.view.task.get(id)?.status.state;
  assert.deepEqual(['ended', 'mine', 'nosuch'].map(stateOf), ['failed', 'running', undefined]);
});

test("a status of another node's task ends the session, and nothing of the batch is written", async () => {
  const { store, agent } = await withTasks();
  const failed = { ...emptyTaskStatus, state: 'failed' as const, timestampMs: 2e12 };

  agent.push(['mine', 'foreign'].map((taskId) => ({ taskId, status: failed })));

  const end = await agent.ended;
  assert.ok(hasCode(end, 'permission-denied'), String(end));
  const stateOf = (id: string) => store.view.task.get(id)?.status.state;
  assert.deepEqual(['mine', 'foreign'].map(stateOf), ['starting', 'running']);
});

test('statuses that are none end the session with a reason', async () => {
  const { agent } = await withTasks();

  agent.requests.push({ statuses: Buffer.from([0xff, 0xff]) });

  const end = await agent.ended;
  assert.ok(hasCode(end, 'invalid-argument') && /statuses/.test(String(end)), String(end));
});

/** A task of this node, one of another, and an agent that is registered. */
async function withTasks() {
  const { store, dispatcher, run } = await start();
  void run();
  const bare = (id: string, nodeId: string, state: TaskState) => ({
    ...aTask('s', { nodeId, state }),
    id,
    meta: { version: 0, createdAtMs: 0, updatedAtMs: 0 },
  });
  await store.update((tx) => {
    tx.create('task', bare('foreign', 'n2', 'running'));
    tx.create('task', bare('mine', 'n1', 'starting'));
  });
  const agent = new Agent(dispatcher);
  await agent.registered();
  return { store, agent, bare };
}

test('after its end a dispatcher leaves no timer behind, even for a node that registers late', async () => {
  const { log, clock, dispatcher, run, stop, nodeState } = await start();
  const running = run();
  await eventually(() => nodeState() === 'unknown');
  log.isHeld = true;
  const agent = new Agent(dispatcher);
  await new Promise((resolve) => setImmediate(resolve));

  stop.abort();
  await running;
  log.release();

  assert.equal(await agent.ended, 'ended');
  clock.advance(PERIOD_MS * 100);
  assert.equal(nodeState(), 'ready');
});

test('a revision goes out with its first task, is taken back with its last, and goes out again', () => {
  const service = aServiceObject('s', 2);
  const [first, second] = [aTask('s'), aTask('s', { slot: 2 })];
  const tables = tablesOf([service], [first]);
  const directory = new NetworkDirectory(tables);
  const tracker = new AssignmentTracker('n1');
  assert.deepEqual(
    tracker.complete(tables, directory).revisions.map(({ id }) => id),
    ['s.1'],
  );

  tracker.note(removeFrom(tables, 'task', first.id));
  assert.deepEqual(tracker.incremental(tables, directory)?.removedRevisionIds, ['s.1']);
  tracker.note(putInto(tables, 'task', second));

  assert.deepEqual(
    tracker.incremental(tables, directory)?.revisions.map(({ id }) => id),
    ['s.1'],
  );
});

test('a task whose revision is gone is never sent: the agent could do nothing with it', () => {
  const [service, task] = [aServiceObject('s', 1), aTask('s')];
  const tables = tablesOf([service], [task]);
  tables.delete('revision', 's.1');
  const directory = new NetworkDirectory(tables);
  const tracker = new AssignmentTracker('n1');

  assert.deepEqual(tracker.complete(tables, directory).tasks, []);
  tracker.note(putInto(tables, 'task', { ...task, desiredState: 'shutdown' }));
  assert.equal(tracker.incremental(tables, directory), undefined);
});
