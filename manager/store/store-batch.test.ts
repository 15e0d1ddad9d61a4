// Many steps in one batch, most of which find nothing to write, and many batches at once: the loops of a large cluster.

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

/** In how many turns of the event loop something was done. */
class Turns implements Disposable {
  readonly #seen = new Set<number>();
  #turn = 0;
  #next = setImmediate(() => this.#count());

  get count(): number {
    return this.#seen.size;
  }

  note(): void {
    this.#seen.add(this.#turn);
  }

  #count(): void {
    this.#turn++;
    this.#next = setImmediate(() => this.#count());
  }

  [Symbol.dispose](): void {
    clearImmediate(this.#next);
  }
}

test('steps that decide for long leave room for others, though they write nothing', async () => {
  const store = new Store(new MemoryLog(), new BusyClock());
  await store.open();
  using turns = new Turns();

  await store.batch(Array.from({ length: 100 }, () => () => turns.note()));

  assert.ok(turns.count >= 10, `100 steps of a millisecond were decided in ${turns.count} turns`);
});

test('so do many batches that begin in the same moment', async () => {
  const store = new Store(new MemoryLog(), new BusyClock());
  await store.open();
  using turns = new Turns();

  await Promise.all(Array.from({ length: 20 }, () => store.batch([() => turns.note()])));

  assert.ok(turns.count >= 5, `20 batches of some milliseconds were decided in ${turns.count} turns`);
});
