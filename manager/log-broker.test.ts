import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { defined } from '../core/assert.ts';
import { FakeClock } from '../core/clock.ts';
import type { LogBatch, LogLine, LogSubscription } from '../proto/generated/dispatcher.ts';
import { AsyncQueue } from '../rpc/queue.ts';
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
    yield {
      subscriptionId: announced[0]?.id ?? '',
      lines: [],
      finishedTaskIds: ['t1'],
      warnings: [],
      passed: {},
    };
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
      yield {
        subscriptionId: announced[0]?.id ?? '',
        lines: [line],
        finishedTaskIds: [],
        warnings: [],
        passed: {},
      };
    })();
  await broker.publish('n1', lineOf('t1'));

  for (const nodeId of ['n2', 'n3'])
    await assert.rejects(broker.publish(nodeId, lineOf('t1')), { code: 'permission-denied' });
  reader.close();
});

test('a followed node that opens another session is asked for what was not heard, and for nothing twice', async () => {
  const broker = new LogBroker(new FakeClock(), randomBytes);
  const old: LogSubscription[] = [];
  const disconnect = broker.addNode('n1', (subscription) => old.push(subscription));
  const reader = broker.subscribe({ ...options, follow: true, tail: 0 });
  reader.add('n1', ['heard', 'silent', 'ended']);
  reader.add('n1', ['young'], { isNew: true });
  const stale = batchesOf(defined(old[0], 'first').id);
  const publishing = broker.publish('n1', stale.batches);
  stale.send({ passed: { heard: '1', silent: '3', ended: '' } });
  stale.send({ lines: [lineOf('heard', '5')], finishedTaskIds: ['ended'] });
  const lines = reader[Symbol.asyncIterator]();
  assert.deepEqual(timesOf(await lines.next()), ['5']);

  const fresh: LogSubscription[] = [];
  broker.addNode('n1', (subscription) => fresh.push(subscription));
  disconnect();

  const [asked] = fresh;
  assert.deepEqual(asked?.taskIds, ['heard', 'silent', 'young']);
  assert.deepEqual(asked?.after, { heard: '5', silent: '3', young: '' });
  // What the old stream still holds is sent again by the new one.
  stale.send({ lines: [lineOf('heard', '6')] });
  await publishing;
  const again = batchesOf(asked?.id ?? '');
  void broker.publish('n1', again.batches);
  again.send({ lines: [lineOf('heard', '6'), lineOf('heard', '7')] });
  assert.deepEqual(timesOf(await lines.next()), ['6', '7']);
  reader.close();
  assert.equal(fresh.at(-1)?.closed, true);
});

test('who follows a node that is away gets its lines when it comes', () => {
  const broker = new LogBroker(new FakeClock(), randomBytes);
  const reader = broker.subscribe({ ...options, follow: true });
  assert.equal(reader.add('n1', ['t1']), false);

  const announced: LogSubscription[] = [];
  broker.addNode('n1', (subscription) => announced.push(subscription));

  assert.deepEqual(announced[0]?.taskIds, ['t1']);
  reader.close();
});

function lineOf(taskId: string, time: string): LogLine {
  return { taskId, stream: 'stdout', time, data: new Uint8Array(0), details: {} };
}

function timesOf(result: IteratorResult<readonly LogLine[]>): string[] {
  return (result.value ?? []).map(({ time }: LogLine) => time);
}

function batchesOf(subscriptionId: string) {
  const batches = new AsyncQueue<LogBatch>();
  const empty = { subscriptionId, lines: [], finishedTaskIds: [], warnings: [], passed: {} };
  return { batches, send: (batch: Partial<LogBatch>) => batches.push({ ...empty, ...batch }) };
}
