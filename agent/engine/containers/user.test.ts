import assert from 'node:assert/strict';
import { test } from 'node:test';
import { hasCode } from '../../../core/errors.ts';
import { resolveUser } from './user.ts';

const files = {
  passwd:
    '# comment\nroot:x:0:0:root:/root:/bin/sh\n\nweb:x:1000:1001::/home/web:/bin/sh\n4711:x:12:13::/:/bin/sh\n',
  group: 'root:x:0:\nweb:x:1001:\nadmins:x:2000:web,root\nvideo:x:44:\n',
};

test('users and groups are resolved as Docker resolves them', () => {
  const table: [user: string, extra: string[], uid: number, gid: number, additional: number[]][] = [
    ['', [], 0, 0, [0, 2000]],
    ['root', [], 0, 0, [0, 2000]],
    ['0', [], 0, 0, [0, 2000]],
    ['web', [], 1000, 1001, [1001, 2000]],
    ['1000', [], 1000, 1001, [1001, 2000]],
    ['web:video', [], 1000, 44, [44]],
    ['web:99', [], 1000, 99, [99]],
    ['77', [], 77, 0, [0]],
    ['77:88', ['video', '5', 'video'], 77, 88, [88, 44, 5]],
    ['4711', [], 12, 13, [13]],
  ];
  for (const [user, extra, uid, gid, additionalGids] of table)
    assert.deepEqual(resolveUser(user, extra, files), { uid, gid, additionalGids }, user);
});

test('an image without account files knows numbers only', () => {
  const none = { passwd: '', group: '' };

  assert.deepEqual(resolveUser('', [], none), { uid: 0, gid: 0, additionalGids: [0] });
  assert.deepEqual(resolveUser('5:6', [], none), { uid: 5, gid: 6, additionalGids: [6] });
});

test('who is unknown is named', () => {
  const table: [user: string, extra: string[], message: RegExp][] = [
    ['ghost', [], /unable to find user ghost: no matching entries in passwd file/],
    ['web:ghosts', [], /unable to find group ghosts/],
    ['web', ['ghosts'], /unable to find group ghosts/],
    ['-1', [], /user -1 is not between/],
    ['web:4294967295', [], /group 4294967295 is not between/],
  ];
  for (const [user, extra, message] of table)
    assert.throws(
      () => resolveUser(user, extra, files),
      (error) => hasCode(error, 'invalid-argument') && message.test(error.message),
    );
});
