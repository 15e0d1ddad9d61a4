import assert from 'node:assert/strict';
import { test } from 'node:test';
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
        // Slow: the next line is read, and fails, meanwhile.
        for (let turn = 0; turn < 5; turn++) await new Promise((resolve) => setImmediate(resolve));
        sent.push(batch);
      },
      end: () => ended.resolve(),
      response: Promise.resolve({}),
    }),
  } as unknown as Client<typeof DispatcherService>;
  let isClosed = false;
  async function* log() {
    try {
      for (let line = 0; line < 500; line++) yield { stream: 'stdout' as const, time: '', line: 'x' };
      throw new Error('the disk is gone');
    } finally {
      isClosed = true;
    }
  }
  const publisher = new LogPublisher(client, log);

  publisher.handle({
    id: 'a',
    taskIds: ['t1'],
    options: { follow: false, tail: -1, sinceMs: 0 },
    closed: false,
  });
  await ended.promise;

  assert.deepEqual(
    sent.map(({ lines, finishedTaskIds }) => [lines.length, finishedTaskIds]),
    [
      [500, []],
      [0, ['t1']],
    ],
  );
  assert.ok(isClosed);
});
