import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { anEntry } from '../../test/support/raft-log.ts';
import { agreedHash, nextHash } from './state-hash.ts';

function agreed(voters: number, answers: Record<number, number>): number | undefined {
  const ids = Array.from({ length: voters }, (_, position) => position + 1);
  return agreedHash(ids, 1, new Map(Object.entries(answers).map(([id, hash]) => [Number(id), hash])));
}

test('what most voters have counts, whether or not the leader is among them', () => {
  assert.equal(agreed(3, { 1: 7, 2: 7 }), 7);
  assert.equal(agreed(3, { 1: 9, 2: 7, 3: 7 }), 7);
  assert.equal(agreed(5, { 1: 9, 2: 7, 3: 7, 4: 7 }), 7);
});

test('without a majority it is open until all have answered, and then the leader is followed', () => {
  assert.equal(agreed(3, { 1: 7 }), undefined);
  assert.equal(agreed(3, { 1: 7, 2: 8 }), undefined);
  assert.equal(agreed(3, { 1: 7, 2: 8, 3: 9 }), 7);
  assert.equal(agreed(2, { 1: 7, 2: 8 }), 7);
});

test('who has no vote is not counted', () => {
  assert.equal(agreed(3, { 1: 7, 4: 7 }), undefined);
});

test('the hash depends on each entry, its place, and what became of it', () => {
  const results = fc.oneof(
    fc.constant(undefined),
    fc.record({ applied: fc.constant(true as const), index: fc.constant(0), digest: fc.nat() }),
    fc.record({ applied: fc.constant(false as const), index: fc.constant(0), reason: fc.string() }),
  );
  const steps = fc.array(fc.tuple(fc.string({ minLength: 1, maxLength: 20 }), results), {
    minLength: 1,
    maxLength: 8,
  });
  const hashOf = (list: readonly (readonly [string, never])[]) =>
    list.reduce((hash, [text, result], at) => nextHash(hash, anEntry(at + 1, 1, text), result), 0);
  fc.assert(
    fc.property(steps, fc.nat(), (list, draw) => {
      const before = hashOf(list as never);
      assert.ok(Number.isInteger(before) && before >= 0 && before < 2 ** 32);
      assert.equal(hashOf(list as never), before);
      const at = draw % list.length;
      const changed = list.map((step, position) => (position === at ? [`${step[0]}!`, step[1]] : step));
      assert.notEqual(hashOf(changed as never), before);
    }),
  );
  const entry = anEntry(5);
  const hashes = [
    nextHash(1, entry, { applied: true, index: 5, digest: 1 }),
    nextHash(1, entry, { applied: true, index: 5, digest: 2 }),
    nextHash(1, entry, { applied: false, index: 5, reason: 'one' }),
    nextHash(1, entry, { applied: false, index: 5, reason: 'two' }),
    nextHash(1, { ...entry, index: 6 }, { applied: true, index: 6, digest: 1 }),
    nextHash(2, entry, { applied: true, index: 5, digest: 1 }),
  ];
  assert.equal(new Set(hashes).size, hashes.length);
});
