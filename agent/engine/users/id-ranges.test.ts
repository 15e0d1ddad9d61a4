import assert from 'node:assert/strict';
import { test } from 'node:test';
import { IDS_PER_NAMESPACE } from '../../linux/user-namespace.ts';
import { freeRange, POOL_END_ID, POOL_FIRST_ID, parseSubordinateIds } from './id-ranges.ts';

test('each container gets the lowest ids that nobody has', () => {
  const second = POOL_FIRST_ID + IDS_PER_NAMESPACE;

  assert.equal(freeRange(new Set(), []), POOL_FIRST_ID);
  assert.equal(freeRange(new Set([POOL_FIRST_ID]), []), second);
  assert.equal(freeRange(new Set([second]), []), POOL_FIRST_ID);
});

test('ids that the machine has given to its users are left alone, also by a part of a range', () => {
  const text = `# given\nalice:100000:65536\nbob:${POOL_FIRST_ID + 65_535}:2\n1000:${POOL_FIRST_ID - 5}:5\n`;
  const foreign = parseSubordinateIds(text);

  assert.deepEqual(
    foreign.map(({ first, end }) => end - first),
    [65_536, 2, 5],
  );
  assert.equal(freeRange(new Set(), foreign), POOL_FIRST_ID + 2 * IDS_PER_NAMESPACE);
});

test('when no ids are left, the refusal says where they are', () => {
  const all = [{ first: POOL_FIRST_ID, end: POOL_END_ID }];

  assert.throws(() => freeRange(new Set(), all), {
    code: 'resource-exhausted',
    message: /^userns: .*subuid/,
  });
});
