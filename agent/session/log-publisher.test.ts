import assert from 'node:assert/strict';
import { test } from 'node:test';
import { systemClock } from '../../node/system-clock.ts';
import type { DispatcherService, LogBatch } from '../../proto/generated/dispatcher.ts';
import type { Client } from '../../rpc/client.ts';
import { setLogLevel } from '../../rpc/logger.ts';
import { LogPublisher } from './log-publisher.ts';

setLogLevel('silent');

test('a log that breaks while a full batch is being sent ends its task, and nothing else', async () => {
  const sent: LogBatch[] = [];
  const ended = Promise.withResolvers<void>();
  const client = {
    publishLogs: () => ({
      send: async (batch: LogBatch) => {
        // Slow: the next lines are read, and fail, meanwhile.
        for (let turn = 0; turn < 5; turn++) await new Promise((resolve) => setImmediate(resolve));
        sent.push(batch);
      },
      end: () => ended.resolve(),
      response: Promise.resolve({}),
    }),
  } as unknown as Client<typeof DispatcherService>;
  const record = (time: string) => ({ stream: 'stdout' as const, time, line: 'x' });
  async function* log(taskId: string) {
    if (taskId === 'whole') {
      yield [record('2')];
      return;
    }
    yield Array.from({ length: 500 }, () => record('1'));
    throw new Error('the disk is gone');
  }
  const publisher = new LogPublisher(client, log, systemClock);

  publisher.handle({
    id: 'a',
    taskIds: ['broken', 'whole'],
    options: { follow: false, tail: -1, sinceMs: 0, untilMs: 0 },
    after: {},
    closed: false,
  });
  await ended.promise;

  assert.deepEqual(
    sent.map(({ lines }) => lines.length),
    [500, 1, 0],
  );
  assert.deepEqual(sent.flatMap(({ finishedTaskIds }) => finishedTaskIds).sort(), ['broken', 'whole']);
  assert.deepEqual(
    sent.flatMap(({ warnings }) => warnings),
    ['the log of task broken cannot be read: the disk is gone'],
  );
});
