import assert from 'node:assert/strict';
import { test } from 'node:test';
import { newId } from './ids.ts';

test('identifiers have 25 characters of base 36, whatever the chance', () => {
  for (const byte of [0, 1, 35, 127, 255]) {
    const id = newId((size) => new Uint8Array(size).fill(byte));
    assert.match(id, /^[0-9a-z]{25}$/);
  }
  assert.equal(
    newId((size) => new Uint8Array(size)),
    '0'.repeat(25),
  );
});
