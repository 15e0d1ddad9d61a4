// What goes out together, and what waits for it.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FakeClock } from '../core/clock.ts';
import { type TrunkFrames, TrunkFramesCodec } from '../proto/generated/trunk.ts';
import { decode, encode } from '../proto/wire.ts';
import { OutgoingFrames } from './trunk-frames.ts';

const settle = () => new Promise((resolve) => setImmediate(resolve));

/** Frames, and the messages that have gone out so far. */
function start() {
  const clock = new FakeClock();
  const frames = new OutgoingFrames(clock);
  const sent: number[][] = [];
  const isOver = (async () => {
    for await (const message of frames) sent.push(callsOf(message));
    return true;
  })();
  return { clock, frames, sent, isOver };
}

function callsOf({ frames }: TrunkFrames): number[] {
  return frames.map(({ call }) => call);
}

test('what comes after a silence goes at once, what comes soon after goes together', async () => {
  const { clock, frames, sent } = start();

  frames.push(1, { cancelled: true });
  frames.push(2, { cancelled: true });
  await settle();
  assert.deepEqual(sent, [[1, 2]], 'of one turn');
  for (const call of [3, 4, 5]) {
    frames.push(call, { cancelled: true });
    await settle();
  }
  assert.deepEqual(sent, [[1, 2]]);
  await clock.advance(10);
  await settle();
  assert.deepEqual(sent, [
    [1, 2],
    [3, 4, 5],
  ]);
  await clock.advance(10);
  frames.push(6, { cancelled: true });
  await settle();
  assert.deepEqual(sent.at(-1), [6]);
});

test('what was said before the end goes out', async () => {
  const { clock, frames, sent, isOver } = start();

  frames.push(1, { cancelled: true });
  await settle();
  frames.push(2, { cancelled: true });
  frames.end();
  frames.push(3, { cancelled: true });
  await clock.advance(10);

  assert.ok(await isOver);
  assert.deepEqual(sent, [[1], [2]]);
});

test('a message has a mebibyte, or one frame that is larger', async () => {
  const { frames, sent } = start();
  const payload = (kibibytes: number) => ({ payload: Buffer.alloc(kibibytes * 1024) });

  frames.push(1, payload(600));
  frames.push(2, payload(600));
  frames.push(3, payload(100));
  frames.push(4, payload(3_000));
  frames.push(5, payload(1));
  await settle();

  assert.deepEqual(sent.slice(0, 3), [[1], [2, 3], [4]]);
});

test('who sends more than the connection takes is told to wait until some of it has gone', async () => {
  const frames = new OutgoingFrames(new FakeClock());
  let rooms = 0;
  for (let call = 1; call <= 4; call++) frames.push(call, { payload: Buffer.alloc(1024 * 1024) });
  assert.ok(frames.isFull);
  frames.onRoom(() => rooms++);

  const message = await frames[Symbol.asyncIterator]().next();

  assert.deepEqual(callsOf(message.value as TrunkFrames), [1]);
  assert.equal(rooms, 1);
  assert.ok(!frames.isFull);
});

test('an empty message of a call is a message', async () => {
  const frames = new OutgoingFrames(new FakeClock());
  frames.push(1, { payload: Buffer.alloc(0) });
  const { value } = await frames[Symbol.asyncIterator]().next();

  const [frame] = decode(TrunkFramesCodec, encode(TrunkFramesCodec, value as TrunkFrames)).frames;

  assert.equal(frame?.payload?.length, 0);
});
