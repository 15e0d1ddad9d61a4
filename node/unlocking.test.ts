// A node's own key is locked like its log, and after it.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { newUnlockKey } from '../core/unlock-key.ts';
import { type KeyRing, newDataKey, storeKeyFile } from '../manager/raft-host/key-file.ts';
import { RealDisk } from '../manager/raft-host/real-disk.ts';
import { NodeLock } from './unlocking.ts';

const NEVER = new AbortController().signal;

describe('the lock of a node', () => {
  const [first, second, third] = [1, 2, 3].map(() => newUnlockKey(randomBytes)) as [string, string, string];
  let directory: string;
  let wrapLog: (unlockKey: string) => Promise<void>;
  let lock: NodeLock;

  beforeEach(async () => {
    directory = mkdtempSync(path.join(os.tmpdir(), 'tsw-lock-'));
    const disk = await RealDisk.open(directory);
    const ring: KeyRing = { keys: [newDataKey(undefined, randomBytes)] };
    wrapLog = (unlockKey) => storeKeyFile(disk, ring, { unlockKey, randomBytes });
    await wrapLog(first);
    lock = new NodeLock(directory, first);
  });

  afterEach(() => rmSync(directory, { recursive: true }));

  test('changes when the log opens with the new key; until then the log may have either', async () => {
    const changed = lock.change(second, () => true, NEVER);
    assert.deepEqual([lock.key, lock.logKeys], [first, [second, first]]);
    await wrapLog(second);
    assert.equal(await changed, true);
    assert.deepEqual([lock.key, lock.logKeys], [second, [second]]);
    assert.equal(await lock.change(second, () => true, NEVER), false, 'it is that one already');
  });

  test('does not change to a key that is not wanted any more, and forgets none that the log may have', async () => {
    assert.equal(await lock.change(second, () => false, NEVER), false);
    assert.equal(lock.key, first);
    assert.equal(await lock.change(third, () => false, NEVER), false);
    assert.deepEqual([lock.key, lock.logKeys], [first, [third, second, first]]);
    await wrapLog(third);
    assert.equal(await lock.change(third, () => true, NEVER), true);
    assert.deepEqual([lock.key, lock.logKeys], [third, [third]]);
  });

  test('stays when the cluster has thought better of it', async () => {
    await lock.change(second, () => false, NEVER);
    assert.equal(await lock.change(first, () => true, NEVER), false);
    assert.deepEqual([lock.key, lock.logKeys], [first, [first]]);
  });
});
