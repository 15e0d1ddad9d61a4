import assert from 'node:assert/strict';
import { test } from 'node:test';
import { hasCode } from '../../core/errors.ts';
import { newUnlockKey } from '../../core/unlock-key.ts';
import { setLogLevel } from '../../rpc/logger.ts';
import type { SimDisk } from '../../test/sim/sim-disk.ts';
import {
  aDisk,
  aMark,
  anEntry,
  aState,
  createLog,
  openLog,
  recordsOf,
  recover,
  textOf,
} from '../../test/support/raft-log.ts';
import { KEY_FILE } from './key-file.ts';
import type { LogOnDisk } from './log-on-disk.ts';

setLogLevel('silent');

const SECRET = 'the planted payload';
const KEY = newUnlockKey((size) => Buffer.alloc(size, 1));
const OTHER_KEY = newUnlockKey((size) => Buffer.alloc(size, 2));
const RECORDS = [Buffer.from(`${SECRET} in a snapshot`), Buffer.from('more')];

const entries = (from: number, to: number) =>
  Array.from({ length: to - from + 1 }, (_, offset) =>
    anEntry(from + offset, 1, `${SECRET} ${from + offset}`),
  );

function keyIds(disk: SimDisk): number[] {
  return JSON.parse(disk.content(KEY_FILE).toString()).keys.map(({ id }: { id: number }) => id);
}

test('no file of the directory shows a payload', async () => {
  const disk = aDisk();
  const log = await createLog(disk);
  await log.append({ hardState: aState(1), entries: entries(1, 20) });
  await log.writeSnapshot(aMark(20), RECORDS);
  await log.append({ entries: entries(21, 40) });

  assert.ok(disk.names.length >= 4);
  for (const name of disk.names) assert.ok(!disk.content(name).includes(SECRET.slice(0, 8)), name);
  await log[Symbol.asyncDispose]();
});

test('a locked log opens with its unlock key only', async () => {
  const disk = aDisk();
  const log = await createLog(disk, { unlockKey: KEY });
  await log.append({ entries: entries(1, 3) });
  await log[Symbol.asyncDispose]();

  await assert.rejects(
    recover(disk),
    (error) => hasCode(error, 'failed-precondition') && /locked/.test(error.message),
  );
  await assert.rejects(
    recover(disk, { unlockKey: OTHER_KEY }),
    (error) => hasCode(error, 'permission-denied') && error.hint !== undefined,
  );
  await assert.rejects(recover(disk, { unlockKey: 'nonsense' }), (error) =>
    hasCode(error, 'permission-denied'),
  );
  assert.equal((await recover(disk, { unlockKey: KEY })).entries.length, 3);
});

test('a log that is not locked opens whatever unlock key is given', async () => {
  const disk = aDisk();
  const log = await createLog(disk);
  await log.append({ entries: entries(1, 3) });
  await log[Symbol.asyncDispose]();

  assert.equal((await recover(disk, { unlockKey: KEY })).entries.length, 3);
});

test('another unlock key wraps the same data key, and the one before opens nothing any more', async () => {
  const disk = aDisk();
  const log = await createLog(disk, { unlockKey: KEY });
  await log.append({ entries: entries(1, 3) });

  await log.setUnlockKey(OTHER_KEY);

  assert.deepEqual(keyIds(disk), [1]);
  assert.ok(!log.isSnapshotWanted);
  await log[Symbol.asyncDispose]();
  await assert.rejects(recover(disk, { unlockKey: KEY }), (error) => hasCode(error, 'permission-denied'));
  assert.equal((await recover(disk, { unlockKey: OTHER_KEY })).entries.length, 3);
});

test('locking rotates the data key, and a snapshot removes what the readable one protected', async () => {
  const disk = aDisk();
  let wanted = 0;
  const log = await createLog(disk, { onSnapshotWanted: () => wanted++ });
  await log.append({ entries: entries(1, 30) });
  await log.writeSnapshot(aMark(10), RECORDS);
  const readable = disk.content(KEY_FILE).toString();

  await log.setUnlockKey(KEY);

  assert.equal(wanted, 1);
  assert.deepEqual(keyIds(disk), [1, 2]);
  assert.ok(!disk.content(KEY_FILE).includes(JSON.parse(readable).keys[0].key));
  await log.append({ entries: entries(31, 35) });
  await log.writeSnapshot(aMark(35), RECORDS);
  assert.deepEqual(keyIds(disk), [2]);
  assert.ok(!log.isSnapshotWanted);
  assert.equal(disk.names.filter((name) => /seg|snap/.test(name)).length, 2);
  await log[Symbol.asyncDispose]();
  const { log: again, recovered } = await openLog(disk, { unlockKey: KEY });
  assert.equal(recovered.snapshot?.index, 35);
  assert.deepEqual(await recordsOf(await again.openSnapshot()), RECORDS.map(String));
});

test('unlocking for good leaves the data key readable in the key file', async () => {
  const disk = aDisk();
  const log = await createLog(disk, { unlockKey: KEY });
  await log.append({ entries: entries(1, 3) });

  await log.setUnlockKey(undefined);

  await log[Symbol.asyncDispose]();
  assert.equal((await recover(disk)).entries.length, 3);
});

test('a rotation of an empty log needs no snapshot', async () => {
  const disk = aDisk();
  const log = await createLog(disk);

  await log.rotateKey();

  assert.deepEqual(keyIds(disk), [2]);
  await log[Symbol.asyncDispose]();
  assert.equal((await recover(disk)).entries.length, 0);
});

test('a snapshot that was begun with an old key does not end a rotation, nor outlive it', async () => {
  const disk = aDisk();
  const log = await createLog(disk);
  await log.append({ entries: entries(1, 10) });
  const gate = Promise.withResolvers<void>();
  const slow = log.writeSnapshot(aMark(10), RECORDS, { every: 1, pause: () => gate.promise });
  await log.rotateKey();
  await log.writeSnapshot(aMark(10), RECORDS);
  assert.deepEqual(keyIds(disk), [2]);

  gate.resolve();
  await slow;

  assert.equal(log.snapshotMark?.index, 10);
  await log[Symbol.asyncDispose]();
  assert.equal((await recover(disk)).snapshot?.index, 10);
});

test('the same snapshot again, with the new key, ends a rotation of an idle log', async () => {
  const disk = aDisk();
  const log = await createLog(disk);
  await log.append({ entries: entries(1, 10) });
  await log.writeSnapshot(aMark(10), RECORDS);
  await log.rotateKey();
  assert.deepEqual(keyIds(disk), [1, 2]);

  await log.writeSnapshot(aMark(10), RECORDS);

  assert.deepEqual(keyIds(disk), [2]);
  await log[Symbol.asyncDispose]();
  assert.equal((await recover(disk)).snapshot?.index, 10);
});

test('a crash at any call of locking, rotating and the snapshot after it leaves a log that opens', async () => {
  const work = async (log: LogOnDisk) => {
    await log.setUnlockKey(KEY);
    await log.append({ entries: entries(11, 12) });
    await log.writeSnapshot(aMark(12), RECORDS);
  };
  let stops = 0;
  for (let round = 0; round < 12; round++)
    for (let calls = 1; ; calls++) {
      const kind = round % 3 === 0 ? 'process' : 'power';
      const disk = aDisk(calls + 1000 * round);
      const log = await createLog(disk);
      await log.append({ entries: entries(1, 10) });
      await log.writeSnapshot(aMark(5), RECORDS);
      disk.stopAt = disk.calls + calls;
      await Promise.race([work(log), disk.stopped]);
      if (!disk.isDead) break;
      stops++;

      let after = disk.crash(kind);
      if (kind === 'process') {
        // The power fails as well, while the next start believes its page cache.
        after.stopAt = 1 + ((calls * 7 + round * 13) % 60);
        const unlockKey = after.content(KEY_FILE).includes('nonce') ? { unlockKey: KEY } : {};
        await Promise.race([openLog(after, unlockKey), after.stopped]);
        after = after.crash('power');
      }
      const isLocked = after.content(KEY_FILE).includes('nonce');
      const options = isLocked ? { unlockKey: KEY } : {};
      const { log: again, recovered } = await openLog(after, options);
      const known = (recovered.snapshot?.index ?? 0) + recovered.entries.length;
      assert.ok(known >= 10 && known <= 12, `call ${calls}: ${textOf(recovered.entries)}`);
      // Whatever was under way ends with the next attempt.
      await again.setUnlockKey(KEY);
      await again.writeSnapshot(aMark(again.lastIndex), RECORDS);
      if (again.isSnapshotWanted) await again.writeSnapshot(aMark(again.lastIndex), RECORDS);
      assert.equal(keyIds(after).length, 1, `call ${calls}`);
      await again[Symbol.asyncDispose]();
      assert.equal((await recover(after, { unlockKey: KEY })).snapshot?.index, known);
    }
  assert.ok(stops > 360, `${stops} crashes`);
});
