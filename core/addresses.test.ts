import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatHostPort, parseHostPort } from './addresses.ts';
import { hasCode } from './errors.ts';

for (const [text, host, port] of [
  ['10.0.0.1', '10.0.0.1', 2377],
  ['10.0.0.1:7000', '10.0.0.1', 7000],
  ['node-1.example:1', 'node-1.example', 1],
  ['eth0', 'eth0', 2377],
  ['::1', '::1', 2377],
  ['[fd00::1]', 'fd00::1', 2377],
  ['[fd00::1]:7000', 'fd00::1', 7000],
] as const)
  test(`${text} is ${host}, port ${port}`, () => {
    const parsed = parseHostPort(text, '--advertise-addr');
    assert.deepEqual(parsed, { host, port });
    assert.deepEqual(parseHostPort(formatHostPort(parsed), 'again', 1), parsed);
  });

for (const text of [
  '',
  ':2377',
  '10.0.0.1:',
  '10.0.0.1:0',
  '10.0.0.1:65536',
  '10.0.0.1:http',
  '[fd00::1',
  'a b:c',
])
  test(`${JSON.stringify(text)} is refused by the name of its field`, () => {
    assert.throws(
      () => parseHostPort(text, '--advertise-addr'),
      (error) => hasCode(error, 'invalid-argument') && error.message.startsWith('--advertise-addr: '),
    );
  });
