// Many steps in one batch, most of which find nothing to write, and many batches at once: the loops of a large cluster.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FakeClock } from '../../core/clock.ts';
import { EventLoopTurns } from '../../test/support/event-loop-turns.ts';
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
  using turns = new EventLoopTurns();
  const seen = new Set<number>();

  await store.batch(Array.from({ length: 100 }, () => () => seen.add(turns.current)));

  assert.ok(seen.size >= 10, `100 steps of a millisecond were decided in ${seen.size} turns`);
});

test('so do many batches that begin in the same moment', async () => {
  const store = new Store(new MemoryLog(), new BusyClock());
  await store.open();
  using turns = new EventLoopTurns();
  const seen = new Set<number>();

  await Promise.all(Array.from({ length: 20 }, () => store.batch([() => seen.add(turns.current)])));

  assert.ok(seen.size >= 5, `20 batches of some milliseconds were decided in ${seen.size} turns`);
});
