import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import fc from 'fast-check';
import { newUnlockKey, parseUnlockKey } from './unlock-key.ts';

test('every unlock key is read back as the bytes it was made of', () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 32, maxLength: 32 }), (bytes) => {
      const key = newUnlockKey(() => bytes);
      assert.match(key, /^SWMKEY-1-[A-Za-z0-9+/]{43}$/);
      assert.deepEqual(parseUnlockKey(key), bytes);
      assert.deepEqual(parseUnlockKey(`${key}=`), bytes, 'with padding too');
    }),
  );
});

test('what is no unlock key is refused without being repeated', () => {
  const key = newUnlockKey(randomBytes);
  for (const text of ['', 'secret', key.slice(0, -1), `${key}A`, key.replace('1', '2'), `${key}\n`])
    assert.throws(
      () => parseUnlockKey(text),
      (error: Error & { code?: string }) =>
        error.code === 'permission-denied' && (text === '' || !error.message.includes(text)),
    );
});
