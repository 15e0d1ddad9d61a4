// The logs of a thousand tasks at once: publishers of agents and the manager's broker, with streams between them that hold what
// gRPC's do.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { LogPublisher } from '../agent/session/log-publisher.ts';
import { defined } from '../core/assert.ts';
import { LogBroker } from '../manager/log-broker.ts';
import { systemClock } from '../node/system-clock.ts';
import type { DispatcherService, LogBatch } from '../proto/generated/dispatcher.ts';
import type { Client } from '../rpc/client.ts';
import { setLogLevel } from '../rpc/logger.ts';
import { AsyncQueue } from '../rpc/queue.ts';
import { eventually } from './support/eventually.ts';

setLogLevel('silent');

const NODES = 10;
const TASKS_PER_NODE = 100;
// What one read of a log gives.
const LINES_PER_READ = 160;
const LINE_BYTES = 100;
// gRPC's stream of messages that were received and not yet read.
const MESSAGES_IN_STREAM = 16;
const MIB = 2 ** 20;

const all = { follow: false, tail: -1, sinceMs: 0, untilMs: 0 };

/** Agents whose tasks have this many reads of log each. */
function cluster(readsPerTask: number) {
  const broker = new LogBroker(systemClock, randomBytes);
  const produced = { bytes: 0 };
  for (let node = 0; node < NODES; node += 1) {
    const nodeId = `n${node}`;
    const publishLogs = () => {
      const wire = new AsyncQueue<LogBatch>();
      const response = broker.publish(nodeId, wire).then(() => ({}));
      response.catch(() => {});
      return {
        send: (batch: LogBatch) => wire.offer(batch, MESSAGES_IN_STREAM),
        end: () => wire.end(),
        response,
      };
    };
    const client = { publishLogs } as unknown as Client<typeof DispatcherService>;
    async function* log(taskId: string) {
      for (let read = 0; read < readsPerTask; read += 1) {
        produced.bytes += LINES_PER_READ * LINE_BYTES;
        yield Array.from({ length: LINES_PER_READ }, (_, line) => ({
          stream: 'stdout' as const,
          time: String(read * LINES_PER_READ + line).padStart(12, '0'),
          line: taskId.padEnd(LINE_BYTES, '.'),
        }));
      }
    }
    const publisher = new LogPublisher(client, log, systemClock);
    broker.addNode(nodeId, (subscription) => publisher.handle(subscription));
  }
  return { broker, produced };
}

function askForAll(broker: LogBroker, options = all) {
  const reader = broker.subscribe(options);
  for (let node = 0; node < NODES; node += 1)
    reader.add(
      `n${node}`,
      Array.from({ length: TASKS_PER_NODE }, (_, task) => `n${node}-t${task}`),
    );
  if (!options.follow) reader.complete();
  return reader;
}

test('a thousand logs arrive complete and in order', async () => {
  const { broker } = cluster(2);
  let lines = 0;
  let last = '';

  for await (const batch of askForAll(broker)) {
    lines += batch.length;
    for (const { time } of batch) {
      assert.ok(time >= last);
      last = time;
    }
  }

  assert.equal(lines, NODES * TASKS_PER_NODE * LINES_PER_READ * 2);
});

for (const follow of [false, true])
  test(`a reader who stops holds ${follow ? 'followed' : 'whole'} logs up and hurts no other`, async () => {
    const { broker, produced } = cluster(100);
    const slow = askForAll(broker, { ...all, follow });
    const reading = slow[Symbol.asyncIterator]();
    const first = defined((await reading.next()).value, 'lines');
    let seen = -1;
    await eventually(() => {
      const isStill = seen === produced.bytes;
      seen = produced.bytes;
      return isStill;
    });

    const held = produced.bytes - first.length * LINE_BYTES;
    assert.ok(held < 24 * MIB, `${held} bytes are held of ${100 * 16_000 * NODES * TASKS_PER_NODE}`);

    let lines = 0;
    const other = broker.subscribe(all);
    other.add('n0', ['n0-t0']);
    other.complete();
    for await (const batch of other) lines += batch.length;
    assert.equal(lines, 100 * LINES_PER_READ);
    slow.close();
    other.close();
  });
