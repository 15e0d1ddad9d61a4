import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { FakeClock } from '../core/clock.ts';
import { AsyncQueue } from './queue.ts';
import { TimeMerge, type TimeMergeOptions } from './time-merge.ts';

const settle = () => new Promise((resolve) => setImmediate(resolve));

function merge(overrides: Partial<TimeMergeOptions<string>> = {}) {
  const clock = new FakeClock();
  const merged = new TimeMerge<string>({
    clock,
    timeOf: (item) => item,
    bytesOf: (item) => item.length,
    itemsMax: 3,
    bytesMax: 1_000,
    patienceMs: undefined,
    ...overrides,
  });
  return { clock, merged };
}

async function* pieces(all: readonly (readonly string[])[]) {
  yield* all;
}

test('what sources say is put in order, whatever pieces it comes in', async () => {
  const sorted = fc.array(fc.array(fc.integer({ min: 100, max: 999 }), { minLength: 1 })).map((all) => {
    const items = all.flat().sort();
    return all.map((piece) => items.splice(0, piece.length).map(String));
  });
  await fc.assert(
    fc.asyncProperty(fc.array(sorted), async (sources) => {
      const { merged } = merge();
      for (const source of sources) merged.add(pieces(source));
      merged.complete();

      const out: string[] = [];
      for await (const batch of merged) {
        assert.ok(batch.length <= 3);
        out.push(...batch);
      }

      assert.deepEqual(out, sources.flat(2).sort());
    }),
  );
});

test('others wait for a silent source as long as their patience, and not at all after that', async () => {
  const { clock, merged } = merge({ patienceMs: 50 });
  const silent = new AsyncQueue<readonly string[]>();
  merged.add(silent);
  merged.add(pieces([['b', 'c'], ['d']]));
  const reader = merged[Symbol.asyncIterator]();
  const next = reader.next();
  await settle();
  silent.push(['a']);
  await settle();

  assert.deepEqual((await next).value, ['a']);
  const second = reader.next();
  await settle();
  clock.advance(50);
  assert.deepEqual((await second).value, ['b', 'c']);
});

test('a clock that is set back while others wait for a silent source holds nothing up', async () => {
  const { clock, merged } = merge({ patienceMs: 50 });
  merged.add(new AsyncQueue<readonly string[]>());
  merged.add(pieces([['b']]));
  const next = merged[Symbol.asyncIterator]().next();
  await settle();

  clock.setBy(-3_600_000);
  clock.advance(50);

  assert.deepEqual((await next).value, ['b']);
});

test('of each source one piece is held while nobody reads', async () => {
  let asked = 0;
  async function* endless() {
    for (;;) {
      asked += 1;
      yield ['a'];
    }
  }
  const { merged } = merge();
  for (let count = 0; count < 10; count += 1) merged.add(endless());
  const reader = merged[Symbol.asyncIterator]();

  await reader.next();
  for (let turn = 0; turn < 10; turn += 1) await settle();

  assert.ok(asked <= 11, `${asked} pieces were asked for`);
});

test('a source that fails fails the merge', async () => {
  const { merged } = merge();
  merged.add(
    (async function* (): AsyncGenerator<readonly string[]> {
      yield ['a'];
      throw new Error('the disk is gone');
    })(),
  );
  merged.complete();

  await assert.rejects(async () => {
    for await (const _batch of merged);
  }, /the disk is gone/);
});
