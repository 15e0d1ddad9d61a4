import assert from 'node:assert/strict';
import { test } from 'node:test';
import { hasCode } from '../../../core/errors.ts';
import { signalNumber } from './signals.ts';

test('signals are read by name, short name and number', () => {
  const table: [string, number][] = [
    ['SIGTERM', 15],
    ['term', 15],
    ['9', 9],
    ['SIGRTMIN', 34],
    ['SIGRTMIN+3', 37],
    ['RTMAX-1', 63],
    ['SIGQUIT', 3],
  ];
  for (const [text, number] of table) assert.equal(signalNumber(text), number, text);
  for (const text of ['', 'SIGNOPE', '0', '65', '1.5', ' '])
    assert.throws(
      () => signalNumber(text),
      (error) => hasCode(error, 'invalid-argument'),
      text,
    );
});
