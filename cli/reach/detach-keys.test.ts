import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DetachKeys, parseDetachKeys } from './detach-keys.ts';

const text = (bytes: Uint8Array) => Buffer.from(bytes).toString();

test('keys are letters and control keys', () => {
  assert.deepEqual(parseDetachKeys('ctrl-p,ctrl-q'), [16, 17]);
  assert.deepEqual(parseDetachKeys('a,ctrl-@,ctrl-\\'), [97, 0, 28]);
  assert.throws(() => parseDetachKeys('ctrl-p,shift-q'), /"shift-q" is none/);
});

test('the keys leave, alone or among others, in one piece or in several', () => {
  const keys = new DetachKeys([16, 17]);

  assert.deepEqual(keys.filter(Buffer.from('ab\x10')), {
    data: Uint8Array.from([97, 98]),
    isDetached: false,
  });
  assert.equal(keys.filter(Buffer.from('\x11')).isDetached, true);
  assert.equal(new DetachKeys([16, 17]).filter(Buffer.from('x\x10\x11y')).isDetached, true);
});

test('keys that only begin like them go on to the command', () => {
  const keys = new DetachKeys([16, 17]);

  assert.equal(text(keys.filter(Buffer.from('\x10')).data), '');
  assert.equal(text(keys.filter(Buffer.from('\x10')).data), '\x10');
  assert.equal(text(keys.filter(Buffer.from('z')).data), '\x10z');
});
