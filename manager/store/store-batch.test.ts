// Many steps in one batch, most of which find nothing to write: the loops of a large cluster.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FakeClock } from '../../core/clock.ts';
import { MemoryLog } from '../../test/support/memory-log.ts';
import { Store } from './store.ts';

/** Each look at it takes a millisecond, and what waits for it comes in the next turn of the event loop. */
class BusyClock extends FakeClock {
  #looks = 0;

  override elapsedMs(): number {
    return ++this.#looks;
  }

  override after(_delayMs: number, callback: () => void): () => void {
    const pending = setImmediate(callback);
    return () => clearImmediate(pending);
  }
}

test('steps that decide for long leave room for others, though they write nothing', async () => {
  const store = new Store(new MemoryLog(), new BusyClock());
  await store.open();
  const turns = new Set<number>();
  let turn = 0;
  const count = () => {
    turn++;
    next = setImmediate(count);
  };
  let next = setImmediate(count);
  try {
    await store.batch(Array.from({ length: 100 }, () => () => turns.add(turn)));
  } finally {
    clearImmediate(next);
  }
  assert.ok(turns.size >= 10, `100 steps of a millisecond were decided in ${turns.size} turns`);
});
