import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { FakeClock } from '../core/clock.ts';
import type { LogSubscription } from '../proto/generated/dispatcher.ts';
import { LogBroker } from './log-broker.ts';

const options = { follow: false, tail: -1, sinceMs: 0, untilMs: 0 };

test('whoever reads the log of a node that disconnects is told, instead of waiting', async () => {
  const broker = new LogBroker(new FakeClock(), randomBytes);
  const disconnect = broker.addNode('n1', () => {});
  const reader = broker.subscribe(options);
  assert.ok(reader.add('n1', ['t1', 't2']));

  disconnect();

  await assert.rejects(reader[Symbol.asyncIterator]().next(), {
    code: 'unavailable',
    message: 'node n1 has disconnected: the lines of 2 tasks are incomplete',
  });
});

test('a node that has sent all lines may disconnect', async () => {
  const broker = new LogBroker(new FakeClock(), randomBytes);
  const announced: LogSubscription[] = [];
  const disconnect = broker.addNode('n1', (subscription) => announced.push(subscription));
  const reader = broker.subscribe(options);
  reader.add('n1', ['t1']);

  async function* batches() {
    yield { subscriptionId: announced[0]?.id ?? '', lines: [], finishedTaskIds: ['t1'], warnings: [] };
  }
  await broker.publish('n1', batches());
  disconnect();

  reader.complete();
  assert.equal((await reader[Symbol.asyncIterator]().next()).done, true);
});

test('lines are taken only from the node that was asked for them', async () => {
  const broker = new LogBroker(new FakeClock(), randomBytes);
  const announced: LogSubscription[] = [];
  for (const nodeId of ['n1', 'n2']) broker.addNode(nodeId, (subscription) => announced.push(subscription));
  const reader = broker.subscribe(options);
  reader.add('n1', ['t1']);
  reader.add('n2', ['t2']);

  const lineOf = (taskId: string) =>
    (async function* () {
      const line = { taskId, stream: 'stdout' as const, time: '', data: new Uint8Array(0), details: {} };
      yield { subscriptionId: announced[0]?.id ?? '', lines: [line], finishedTaskIds: [], warnings: [] };
    })();
  await broker.publish('n1', lineOf('t1'));

  for (const nodeId of ['n2', 'n3'])
    await assert.rejects(broker.publish(nodeId, lineOf('t1')), { code: 'permission-denied' });
  reader.close();
});
