import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { pooled } from './random-pool.ts';

test('portions share no byte, whatever their sizes', () => {
  const random = pooled(randomBytes);
  const sizes = Array.from({ length: 1_000 }, (_, position) => 1 + (position % 40));
  const portions = [...sizes, 5_000].map((size) => random(size));
  for (const [position, portion] of portions.entries()) portion.fill(position % 251);

  for (const [position, portion] of portions.entries()) {
    assert.equal(portion.length, sizes[position] ?? 5_000);
    assert.ok(portion.every((byte) => byte === position % 251));
  }
});
