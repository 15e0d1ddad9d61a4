import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import type { LogSubscription } from '../proto/generated/dispatcher.ts';
import { LogBroker } from './log-broker.ts';

const options = { follow: false, tail: -1, sinceMs: 0 };

test('whoever reads the log of a node that disconnects is told, instead of waiting', async () => {
  const broker = new LogBroker(randomBytes);
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
  const broker = new LogBroker(randomBytes);
  const announced: LogSubscription[] = [];
  const disconnect = broker.addNode('n1', (subscription) => announced.push(subscription));
  const reader = broker.subscribe(options);
  reader.add('n1', ['t1']);

  async function* batches() {
    yield { subscriptionId: announced[0]?.id ?? '', lines: [], finishedTaskIds: ['t1'] };
  }
  await broker.publish(batches());
  disconnect();

  const first = await reader[Symbol.asyncIterator]().next();
  assert.deepEqual(first.value?.finishedTaskIds, ['t1']);
  reader.close();
});
