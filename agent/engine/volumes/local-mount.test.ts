import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseMountWords } from './local-mount.ts';

const RDONLY = 1;
const NOEXEC = 8;
const BIND = 0x1000;
const REC = 0x4000;

test('words of mount(8) are flags, what they take back, or for the file system', () => {
  assert.deepEqual(parseMountWords(''), { flags: 0, data: '' });
  assert.deepEqual(parseMountWords('defaults,ro,noexec'), { flags: RDONLY | NOEXEC, data: '' });
  assert.deepEqual(parseMountWords('ro,rw,noexec,exec'), { flags: 0, data: '' });
  assert.deepEqual(parseMountWords('rbind'), { flags: BIND | REC, data: '' });
  assert.deepEqual(parseMountWords('addr=10.0.0.1,vers=4,soft,ro'), {
    flags: RDONLY,
    data: 'addr=10.0.0.1,vers=4,soft',
  });
});
