import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { planSlots, slotClasses } from './balancing.ts';

const backends = fc.uniqueArray(
  fc.integer({ min: 2, max: 9000 }).map((n) => `10.0.${n >> 8}.${n & 255}`),
  { maxLength: 200 },
);

test('every backend has a slot, nobody else has one, and there is a chain for so many slots', () => {
  fc.assert(
    fc.property(backends, backends, (before, wanted) => {
      const slots = planSlots(wanted, planSlots(before));

      assert.deepEqual(new Set(slots), new Set(wanted));
      assert.ok(slots.length === 0 || slotClasses.includes(slots.length));
    }),
  );
});

test('no backend gets a quarter more than another', () => {
  fc.assert(
    fc.property(backends, (wanted) => {
      const counts = new Map<string, number>();
      for (const backend of planSlots(wanted)) counts.set(backend, (counts.get(backend) ?? 0) + 1);

      const shares = [...counts.values()];
      if (shares.length > 0) assert.ok(Math.max(...shares) <= Math.min(...shares) * 1.25);
    }),
  );
});

test('one backend that comes or goes changes two slots at most', () => {
  const before = planSlots(['a', 'b', 'c', 'd']);

  assert.deepEqual(planSlots(['a', 'b', 'c', 'd', 'e'], before), ['a', 'b', 'c', 'd', 'e']);
  assert.deepEqual(planSlots(['a', 'c', 'd'], before), ['a', 'd', 'c']);
  assert.deepEqual(planSlots(['a', 'c', 'd', 'x'], before), ['a', 'x', 'c', 'd']);
  assert.deepEqual(planSlots([], before), []);
});

test('more backends than slots share those there are', () => {
  const many = Array.from({ length: 5000 }, (_, index) => `b${index}`);

  assert.equal(planSlots(many).length, 4096);
});
