import assert from 'node:assert/strict';
import { test } from 'node:test';
import { seededChance } from '../../test/support/faults.ts';
import type { NodeInfo } from './node-info.ts';
import { TaskCounts } from './task-counts.ts';

const node = (index: number) => ({ index }) as NodeInfo;

test('tasks are counted by node, few or many of them, as they come and go (seeded)', () => {
  for (const [seed, nodes] of [
    [1, 5],
    [2, 40],
    [3, 3_000],
  ] as const) {
    const chance = seededChance(seed);
    const counts = new TaskCounts();
    const expected = new Map<number, number>();
    for (let step = 0; step < 20_000; step++) {
      const index = Math.floor(chance() * nodes);
      const before = expected.get(index) ?? 0;
      if (chance() < 0.55) {
        counts.add(node(index));
        expected.set(index, before + 1);
      } else {
        counts.remove(node(index));
        if (before > 1) expected.set(index, before - 1);
        else expected.delete(index);
      }
      assert.equal(counts.on(node(index)), expected.get(index) ?? 0, `seed ${seed}, step ${step}`);
    }
    const seen = new Map<number, number>();
    counts.forEach((index, count) => {
      seen.set(index, (seen.get(index) ?? 0) + count);
    });
    assert.deepEqual(new Map([...seen].sort()), new Map([...expected].sort()));
  }
});
