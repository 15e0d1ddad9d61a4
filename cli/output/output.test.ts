// Columns, durations and sizes as Docker prints them.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { compareNames } from '../names.ts';
import { formatBinarySize, formatDecimalSize, formatElapsed, formatGoDuration, truncate } from './human.ts';
import { withoutDigest } from './image-name.ts';
import { alignColumns } from './tabwriter.ts';

test('columns are at least ten wide, three apart, and the last one is not padded', () => {
  assert.deepEqual(alignColumns(['ID\tNAME\tX', 'abcdefghijkl\tb\tlast', 'é\t\t']), [
    'ID             NAME      X',
    'abcdefghijkl   b         last',
    'é                        ',
  ]);
});

test('a line with fewer cells ends the block of its column', () => {
  assert.deepEqual(alignColumns(['a\tb', 'alone', 'a-long-long-cell\tb']), [
    'a         b',
    'alone',
    'a-long-long-cell   b',
  ]);
});

test("durations are in Docker's words", () => {
  const cases: readonly (readonly [number, string])[] = [
    [0, 'Less than a second'],
    [1_000, '1 second'],
    [59_999, '59 seconds'],
    [60_000, 'About a minute'],
    [120_000, '2 minutes'],
    [3_600_000, 'About an hour'],
    [3 * 3_600_000, '3 hours'],
    [47 * 3_600_000, '47 hours'],
    [48 * 3_600_000, '2 days'],
    [14 * 24 * 3_600_000, '2 weeks'],
    [61 * 24 * 3_600_000, '2 months'],
    [800 * 24 * 3_600_000, '2 years'],
  ];
  for (const [ms, text] of cases) assert.equal(formatElapsed(ms), text);
});

test('sizes and durations are short', () => {
  assert.equal(formatDecimalSize(4_261_000), '4.26MB');
  assert.equal(formatDecimalSize(142_000_000), '142MB');
  assert.equal(formatDecimalSize(12), '12B');
  assert.equal(formatBinarySize(8_190_000_000), '7.628GiB');
  assert.deepEqual([0, 500, 5000, 90_000, 3_600_000].map(formatGoDuration), [
    '0s',
    '500ms',
    '5s',
    '1m30s',
    '1h0m0s',
  ]);
  assert.equal(truncate('x'.repeat(31), 30), `${'x'.repeat(29)}…`);
});

test('images are shown without their digest when they have a tag', () => {
  const digest = `@sha256:${'a'.repeat(64)}`;
  assert.equal(withoutDigest(`nginx:1${digest}`), 'nginx:1');
  assert.equal(withoutDigest(`reg:5000/nginx:1${digest}`), 'reg:5000/nginx:1');
  assert.equal(withoutDigest(`reg:5000/nginx${digest}`), `reg:5000/nginx${digest}`);
});

test('names are ordered by their numbers', () => {
  assert.deepEqual(['web10', 'web2', 'api', 'web', 'web2a'].sort(compareNames), [
    'api',
    'web',
    'web2',
    'web2a',
    'web10',
  ]);
});
