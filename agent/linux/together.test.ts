import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Together } from './together.ts';

/** Each act goes on until it is told how it ends. */
function heldActs() {
  const seen: (readonly number[])[] = [];
  const ends: PromiseWithResolvers<void>[] = [];
  const together = new Together<number>((items) => {
    seen.push(items);
    const end = Promise.withResolvers<void>();
    ends.push(end);
    return end.promise;
  });
  return { together, seen, ends };
}

const turn = () => new Promise(setImmediate);

test('what comes while something is done is done next, together', async () => {
  const { together, seen, ends } = heldActs();
  const first = together.add([1]);
  await turn();
  const others = [together.add([2]), together.add([3, 4])];
  await turn();
  assert.deepEqual(seen, [[1]]);

  ends[0]!.resolve();
  await first;
  await turn();
  assert.deepEqual(seen, [[1], [2, 3, 4]]);
  ends[1]!.resolve();
  await Promise.all(others);
});

test('a failure is told to those whose it is, and holds up nobody', async () => {
  const { together, ends } = heldActs();
  const first = together.add([1]);
  await turn();
  const second = together.add([2]);

  ends[0]!.reject(new Error('not done'));
  await assert.rejects(first, /not done/);
  await turn();
  ends[1]!.resolve();
  await second;
});

test('closing waits for what came before, and takes nothing more', async () => {
  const { together, seen, ends } = heldActs();
  void together.add([1]);
  await turn();
  void together.add([2]);
  let isClosed = false;
  const closed = together.close().then(() => {
    isClosed = true;
  });
  await together.add([3]);
  ends[0]!.resolve();
  await turn();
  assert.ok(!isClosed);
  ends[1]!.resolve();
  await closed;
  assert.deepEqual(seen, [[1], [2]]);
});
