// Backup files: what comes back, and what is refused.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { newUnlockKey } from '../../core/unlock-key.ts';
import { type BackupHead, emptyBackupHead } from '../../proto/generated/raft.ts';
import { readBackup, writeBackup } from './backup.ts';

const HEAD: Omit<BackupHead, 'salt'> = {
  ...emptyBackupHead,
  clusterId: 'c1',
  index: 7,
  term: 2,
  members: [3],
};
const SECRET = 'the planted value';

async function* chunks(): AsyncIterable<Uint8Array[]> {
  yield [Buffer.from(SECRET), Buffer.from('b')];
  yield [Buffer.alloc(100_000, 1)];
}

async function written(unlockKey?: string): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  for await (const part of writeBackup(HEAD, chunks(), { unlockKey, randomBytes })) parts.push(part);
  return Buffer.concat(parts);
}

async function* inPieces(file: Uint8Array, size: number): AsyncIterable<Uint8Array> {
  for (let start = 0; start < file.length; start += size) yield file.subarray(start, start + size);
}

async function read(file: Uint8Array, unlockKey?: string, size = 1000): Promise<Uint8Array[]> {
  const { head, records } = await readBackup(inPieces(file, size), unlockKey);
  assert.deepEqual([head.clusterId, head.index, head.term, head.members], ['c1', 7, 2, [3]]);
  const all: Uint8Array[] = [];
  for await (const chunk of records) all.push(...chunk);
  return all;
}

for (const unlockKey of [undefined, newUnlockKey(randomBytes)])
  test(`a backup ${unlockKey ? 'that is encrypted' : 'in the clear'} comes back whole`, async () => {
    const file = await written(unlockKey);

    for (const size of [1, 13, 1_000_000]) {
      const records = await read(file, unlockKey, size);
      assert.deepEqual(
        records.map((record) => record.length),
        [SECRET.length, 1, 100_000],
      );
      assert.equal(Buffer.from(records[0] ?? []).toString(), SECRET);
    }
    assert.equal(file.includes(SECRET), unlockKey === undefined);
  });

test('a backup that is cut short or changed anywhere is refused', async () => {
  const unlockKey = newUnlockKey(randomBytes);
  for (const key of [undefined, unlockKey]) {
    const file = await written(key);
    for (const length of [0, 5, 20, 60, file.length - 9, file.length - 1])
      await assert.rejects(read(file.subarray(0, length), key), { name: 'SwarmError' }, `length ${length}`);
    for (const at of [3, 18, 30, 80, 200, 60_000, file.length - 2]) {
      const changed = Buffer.from(file);
      changed[at] = (changed[at] ?? 0) ^ 1;
      await assert.rejects(read(changed, key), { name: 'SwarmError' }, `byte ${at}`);
    }
  }
});

test('an encrypted backup asks for its key, and takes no other', async () => {
  const file = await written(newUnlockKey(randomBytes));

  await assert.rejects(read(file), { code: 'failed-precondition', message: /encrypted/ });
  await assert.rejects(read(file, newUnlockKey(randomBytes)), { code: 'permission-denied' });
});
