import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type Balance, chainSlots, planBalance } from './balancing.ts';

const backends = fc.uniqueArray(
  fc.integer({ min: 2, max: 9000 }).map((n) => `10.0.${n >> 8}.${n & 255}`),
  { maxLength: 200 },
);

test('every backend has a slot, nobody else has one, and there is a chain for so many slots', () => {
  fc.assert(
    fc.property(backends, backends, (before, wanted) => {
      const { chain, slots } = planBalance(wanted, planBalance(before));

      assert.deepEqual(new Set(slots), new Set(wanted));
      assert.equal(chainSlots(chain), slots.length);
    }),
  );
});

test('no backend gets a quarter more than another', () => {
  fc.assert(
    fc.property(backends, (wanted) => {
      const counts = new Map<string, number>();
      for (const backend of planBalance(wanted).slots) counts.set(backend, (counts.get(backend) ?? 0) + 1);

      const shares = [...counts.values()];
      if (shares.length > 0) assert.ok(Math.max(...shares) <= Math.min(...shares) * 1.25);
    }),
  );
});

test('one backend that comes or goes changes two slots at most', () => {
  const before: Balance = planBalance(['a', 'b', 'c', 'd']);
  const slotsOf = (...backends: string[]): readonly string[] => planBalance(backends, before).slots;

  assert.deepEqual(slotsOf('a', 'b', 'c', 'd', 'e'), ['a', 'b', 'c', 'd', 'e']);
  assert.deepEqual(slotsOf('a', 'c', 'd'), ['a', 'd', 'c']);
  assert.deepEqual(slotsOf('a', 'c', 'd', 'x'), ['a', 'x', 'c', 'd']);
  assert.deepEqual(slotsOf(), []);
});

test('more backends than slots share those there are', () => {
  const many = Array.from({ length: 5000 }, (_, index) => `b${index}`);

  assert.equal(planBalance(many).slots.length, 4096);
});
