import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { FakeClock } from '../core/clock.ts';
import {
  emptyReachEnd,
  emptyReachInput,
  emptyReachOutput,
  type ReachInput,
  type ReachOrder,
  type ReachOutput,
} from '../proto/generated/reach.ts';
import { AsyncQueue } from '../rpc/queue.ts';
import { ReachBroker } from './reach-broker.ts';

const request = { task: 't1', top: {} };

/** A broker with one node, and an operator who has asked for a task there. */
function start() {
  const clock = new FakeClock();
  const broker = new ReachBroker(clock, randomBytes);
  const orders: ReachOrder[] = [];
  const disconnect = broker.addNode('n1', (order) => orders.push(order));
  const said = new AsyncQueue<ReachInput>();
  const gone = new AbortController();
  const hearing = broker.open('n1', request, said, gone.signal);
  const first = hearing.next();
  first.catch(() => {});
  const outputs = new AsyncQueue<ReachOutput>();
  const answer = (nodeId = 'n1') => {
    outputs.push({ ...emptyReachOutput, reachId: orders[0]?.id ?? '' });
    return broker.answer(nodeId, outputs)[Symbol.asyncIterator]();
  };
  return { clock, broker, disconnect, said, gone, hearing, first, outputs, answer };
}

test('what one side says the other hears, until the agent has ended', async () => {
  const { broker, said, hearing, first, outputs, answer } = start();
  const agent = answer();
  const heard = agent.next();
  said.push({ ...emptyReachInput, signal: 'SIGTERM' });
  assert.equal((await heard).value?.signal, 'SIGTERM');

  outputs.push({ ...emptyReachOutput, started: true });
  outputs.push({ ...emptyReachOutput, ended: { ...emptyReachEnd, exitCode: 3 } });

  assert.equal((await first).value?.started, true);
  assert.equal((await hearing.next()).value?.ended?.exitCode, 3);
  assert.equal((await hearing.next()).done, true);
  assert.equal((await agent.next()).done, true);
  assert.equal(broker.size, 0);
});

test('only the node that was asked may answer', async () => {
  const { answer } = start();

  await assert.rejects(answer('n2').next(), { code: 'not-found' });
});

test('a node without a session is told of at once, one that loses it and one that is silent later', async () => {
  const { broker, disconnect, first, answer } = start();
  const signal = new AbortController().signal;
  await assert.rejects(broker.open('n2', request, new AsyncQueue<ReachInput>(), signal).next(), {
    code: 'unavailable',
    message: 'node n2 is not connected',
  });

  const agent = answer().next();
  disconnect();
  await assert.rejects(first, { code: 'unavailable' });
  assert.equal((await agent).done, true);

  const silent = start();
  silent.clock.advance(10_000);
  await assert.rejects(silent.first, { code: 'deadline-exceeded' });
});

test('an operator who leaves ends the stream of the agent', async () => {
  const { gone, first, answer } = start();
  const agent = answer().next();

  gone.abort();

  await assert.rejects(first, { code: 'cancelled' });
  assert.equal((await agent).done, true);
});
