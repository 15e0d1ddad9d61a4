import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type Backend, type Balance, chainSlots, planBalance, type SlotPick } from './balancing.ts';

const names = fc.uniqueArray(
  fc.integer({ min: 2, max: 9000 }).map((n) => `10.0.${n >> 8}.${n & 255}`),
  { maxLength: 200, size: 'max' },
);
const weighted = names.chain((list) =>
  fc
    .array(fc.integer({ min: 1, max: 5 }), { minLength: list.length, maxLength: list.length })
    .map((weights) => list.map((name, index) => ({ name, weight: weights[index]! }))),
);

function alike(list: readonly string[]): Backend[] {
  return list.map((name) => ({ name, weight: 1 }));
}

function counts({ slots }: Balance): Map<string, number> {
  const result = new Map<string, number>();
  for (const name of slots) result.set(name, (result.get(name) ?? 0) + 1);
  return result;
}

function changedSlots(one: Balance, other: Balance): number {
  return one.slots.filter((name, slot) => name !== other.slots[slot]).length;
}

test('every backend has a slot, nobody else has one, and there is a chain for so many slots', () => {
  fc.assert(
    fc.property(weighted, weighted, (before, wanted) => {
      const { chain, slots } = planBalance(wanted, 'random', planBalance(before, 'random'));

      assert.deepEqual(new Set(slots), new Set(wanted.map(({ name }) => name)));
      assert.equal(chainSlots(chain), slots.length);
    }),
  );
});

test('no backend gets a quarter more than another', () => {
  fc.assert(
    fc.property(names, names, (before, wanted) => {
      const balance = planBalance(alike(wanted), 'random', planBalance(alike(before), 'random'));

      const shares = [...counts(balance).values()];
      if (shares.length > 0) assert.ok(Math.max(...shares) <= Math.min(...shares) * 1.25);
    }),
  );
});

test('backends get their share, within a quarter', () => {
  fc.assert(
    fc.property(weighted, (wanted) => {
      for (const ratio of shareRatios(wanted, 'random'))
        assert.ok(ratio >= 0.75 && ratio <= 1.25, `${ratio}`);
    }),
  );
});

/** Of each backend, what it gets against what it should. */
function shareRatios(wanted: readonly Backend[], pick: SlotPick): number[] {
  const balance = planBalance(wanted, pick);
  const total = wanted.reduce((sum, { weight }) => sum + weight, 0);
  const shares = counts(balance);
  return wanted.map(
    ({ name, weight }) => (shares.get(name) ?? 0) / ((weight * balance.slots.length) / total),
  );
}

test('few slots are shared exactly', () => {
  const slotsOf = (...weights: number[]): readonly number[] => [
    ...counts(
      planBalance(
        weights.map((weight, index) => ({ name: `b${index}`, weight })),
        'random',
      ),
    ).values(),
  ];

  assert.deepEqual(slotsOf(1, 2, 3), [1, 2, 3]);
  assert.deepEqual(slotsOf(100, 200), [1, 2]);
});

test('one backend that comes or goes changes two slots at most', () => {
  const before = planBalance(alike(['a', 'b', 'c', 'd']), 'random');
  const slotsOf = (...backends: string[]) => planBalance(alike(backends), 'random', before).slots;

  assert.deepEqual(slotsOf('a', 'b', 'c', 'd', 'e'), ['a', 'b', 'c', 'd', 'e']);
  assert.deepEqual(slotsOf('a', 'c', 'd'), ['a', 'd', 'c']);
  assert.deepEqual(slotsOf('a', 'c', 'd', 'x'), ['a', 'x', 'c', 'd']);
  assert.deepEqual(slotsOf(), []);
});

test('of many backends, one that is replaced gives its slots to its successor', () => {
  const list = Array.from({ length: 100 }, (_, index) => `b${index}`);
  const before = planBalance(alike(list), 'random');
  const after = planBalance(alike(list.with(50, 'x')), 'random', before);

  assert.equal(changedSlots(before, after), counts(before).get('b50'));
});

test('with affinity, slots are the same on every node, whatever was there before and in whichever order', () => {
  fc.assert(
    fc.property(weighted, weighted, (before, wanted) => {
      const one = planBalance(wanted, 'client-address');
      const other = planBalance(wanted.toReversed(), 'client-address', planBalance(before, 'client-address'));

      assert.deepEqual(one, other);
      assert.equal(chainSlots(one.chain), one.slots.length);
    }),
    { numRuns: 30 },
  );
});

test('with affinity, a backend that comes or goes changes no slot but its own', () => {
  fc.assert(
    fc.property(weighted, (wanted) => {
      const [changing, ...rest] = wanted;
      const whole = planBalance(wanted, 'client-address');
      const without = planBalance(rest, 'client-address');
      if (changing === undefined || whole.slots.length !== without.slots.length) return;

      assert.equal(changedSlots(whole, without), counts(whole).get(changing.name) ?? 0);
    }),
    { numRuns: 30 },
  );
});

test('with affinity, backends get about their share', () => {
  const list = (count: number, weightOf: (index: number) => number): Backend[] =>
    Array.from({ length: count }, (_, index) => ({ name: `10.0.0.${index + 2}`, weight: weightOf(index) }));

  for (const count of [2, 3, 5, 8, 12]) {
    for (const weightOf of [() => 1, (index: number) => 1 + (index % 3)]) {
      const ratios = shareRatios(list(count, weightOf), 'client-address');
      for (const ratio of ratios) assert.ok(ratio > 0.6 && ratio < 1.4, `${count}: ${ratio}`);
    }
  }
});

test('more backends than slots share those there are', () => {
  const many = alike(Array.from({ length: 5000 }, (_, index) => `b${index}`));

  assert.equal(planBalance(many, 'random').slots.length, 4096);
});
