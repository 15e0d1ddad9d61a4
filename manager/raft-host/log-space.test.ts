import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { hasCode } from '../../core/errors.ts';
import { setLogLevel } from '../../rpc/logger.ts';
import { ioError } from '../../test/sim/sim-disk.ts';
import { aDisk, aMark, anEntry, aState, createLog, openLog, recover } from '../../test/support/raft-log.ts';
import type { LogOnDisk } from './log-on-disk.ts';
import { RealDisk } from './real-disk.ts';

setLogLevel('silent');

const big = (index: number) => anEntry(index, 1, 'x'.repeat(700));

/** Appends one at a time until the disk is full; returns the last acknowledged index. */
async function fill(log: LogOnDisk, from: number): Promise<number> {
  for (let index = from; ; index++) {
    try {
      await log.append({ entries: [big(index)] });
    } catch (error) {
      assert.ok(hasCode(error, 'resource-exhausted'), String(error));
      return index - 1;
    }
  }
}

test('a full disk is told before an append is refused, and nothing refused is ever seen', async () => {
  const disk = aDisk();
  const told: [string, number][] = [];
  const log = await createLog(disk, { onSpace: (state) => told.push([state, log.lastIndex]) });
  disk.capacityBytes = 60_000;

  const last = await fill(log, 1);

  assert.ok(last > 20, `${last} entries in 60 KB`);
  assert.deepEqual(
    told.map(([state]) => state),
    ['low', 'full'],
  );
  const [lowAt = 0, fullAt = 0] = told.map(([, index]) => index);
  assert.ok(lowAt < fullAt && fullAt === last);
  assert.equal(log.space, 'full');
  assert.ok(!disk.names.includes('ballast'), 'the ballast was kept');
  assert.deepEqual(
    (await recover(disk)).entries.map(({ index }) => index),
    Array.from({ length: last }, (_, at) => at + 1),
  );
  await log[Symbol.asyncDispose]();
});

test('everything queued behind a refused append is refused with it, and may be tried again', async () => {
  const disk = aDisk();
  const log = await createLog(disk);
  disk.capacityBytes = 40_000;
  const last = await fill(log, 1);

  const results = await Promise.allSettled([
    log.append({ entries: [big(last + 1)] }),
    log.append({ entries: [big(last + 2)] }),
  ]);
  const late = await Promise.allSettled([log.append({ entries: [big(last + 3)] })]);
  disk.capacityBytes = 200_000;
  for (let index = last + 1; index <= last + 5; index++) await log.append({ entries: [big(index)] });

  for (const result of [...results, ...late])
    assert.ok(result.status === 'rejected' && hasCode(result.reason, 'resource-exhausted'));
  assert.equal(await log.reviewSpace(), 'ok');
  assert.ok(disk.names.includes('ballast'));
  await log[Symbol.asyncDispose]();
  assert.equal((await recover(disk)).entries.length, last + 5);
});

test('a block that would find room is refused when the one before it was', async () => {
  const disk = aDisk();
  const log = await createLog(disk);
  disk.capacityBytes = disk.usedBytes;

  // More than a megabyte: the next append has a block of its own.
  const results = await Promise.allSettled([
    log.append({ entries: [anEntry(1, 1, 'x'.repeat(1_100_000))] }),
    log.append({ entries: [anEntry(2)] }),
  ]);

  assert.deepEqual(
    results.map(({ status }) => status),
    ['rejected', 'rejected'],
  );
  await log[Symbol.asyncDispose]();
  assert.deepEqual((await recover(disk)).entries, []);
});

test('what builds on a refused replacement is refused, until the replacement comes again', async () => {
  const disk = aDisk();
  const log = await createLog(disk);
  for (let index = 1; index <= 4; index++) await log.append({ entries: [anEntry(index)] });
  disk.capacityBytes = disk.usedBytes;
  const replacement = [3, 4].map((index) => anEntry(index, 2, 'x'.repeat(6000)));

  await assert.rejects(log.append({ entries: replacement }), (error) => hasCode(error, 'resource-exhausted'));
  await assert.rejects(log.append({ entries: [anEntry(5, 2)] }), (error) =>
    hasCode(error, 'resource-exhausted'),
  );
  disk.capacityBytes = Number.POSITIVE_INFINITY;
  await log.append({ entries: replacement });
  await log.append({ entries: [anEntry(5, 2)] });

  await log[Symbol.asyncDispose]();
  assert.deepEqual(
    (await recover(disk)).entries.map(({ term }) => term),
    [1, 1, 2, 2, 2],
  );
});

test('what is small still finds room in the segment when a large entry does not', async () => {
  const disk = aDisk();
  const log = await createLog(disk);
  disk.capacityBytes = disk.usedBytes;

  await assert.rejects(log.append({ entries: [anEntry(1, 1, 'x'.repeat(10_000))] }), (error) =>
    hasCode(error, 'resource-exhausted'),
  );
  await log.append({ hardState: aState(4, 0, 9), entries: [] });

  await log[Symbol.asyncDispose]();
  assert.deepEqual((await recover(disk)).hardState, aState(4, 0, 9));
});

test('a full disk can be opened again, and goes on when there is room', async () => {
  const disk = aDisk();
  const first = await createLog(disk);
  disk.capacityBytes = 50_000;
  const last = await fill(first, 1);
  await first[Symbol.asyncDispose]();

  const after = disk.crash('power');
  const { log, recovered } = await openLog(after);
  after.capacityBytes = 500_000;
  await log.append({ entries: [big(last + 1)] });

  assert.equal(recovered.entries.length, last);
  assert.equal(await log.reviewSpace(), 'ok');
  await log[Symbol.asyncDispose]();
});

test('a low watermark is told while there is still room', async () => {
  const disk = aDisk();
  disk.capacityBytes = 200_000;
  const states: string[] = [];
  const log = await createLog(disk, { lowWatermarkBytes: 120_000, onSpace: (state) => states.push(state) });

  for (let index = 1; index <= 150; index++) await log.append({ entries: [big(index)] });

  assert.deepEqual(states, ['low']);
  await log[Symbol.asyncDispose]();
});

test('no room for a snapshot leaves the log as it is', async () => {
  const disk = aDisk();
  const log = await createLog(disk);
  await log.append({ entries: [big(1)] });
  disk.capacityBytes = disk.usedBytes + 2000;

  const records = Array.from({ length: 50 }, () => Buffer.alloc(1000));
  await assert.rejects(log.writeSnapshot(aMark(1), records), (error) => hasCode(error, 'resource-exhausted'));

  assert.ok(!disk.names.some((name) => name.startsWith('snapshot')));
  await log.append({ entries: [big(2)] });
  await log[Symbol.asyncDispose]();
  assert.equal((await recover(disk)).entries.length, 2);
});

test('a write that fails ends the log for ever, and what follows may be lost but not believed', async () => {
  const disk = aDisk();
  const fatal: unknown[] = [];
  const log = await createLog(disk, { onFatal: (error) => fatal.push(error) });
  await log.append({ entries: [big(1)] });
  disk.fault = ({ kind }) => (kind === 'write-at' ? ioError('EIO') : undefined);

  await assert.rejects(log.append({ entries: [big(2)] }), /cannot be written/);
  disk.fault = () => undefined;
  await assert.rejects(log.append({ entries: [big(2)] }), /cannot be written/);

  assert.equal(fatal.length, 1);
  // The page cache shows the entry that failed. Whoever recovers it has to write it again.
  const cached = disk.crash('process');
  const opened = await openLog(cached);
  const recovered = opened.recovered.entries.length;
  assert.equal((await recover(cached.crash('power'))).entries.length, recovered);
});

test('a file system where room is not kept by zeros refuses the append and goes on in a new segment', async () => {
  const disk = aDisk();
  const log = await createLog(disk);
  await log.append({ entries: [big(1)] });
  disk.fault = ({ kind, name }) =>
    kind === 'write-at' && name.includes('spare-1') ? ioError('ENOSPC') : undefined;

  await assert.rejects(log.append({ entries: [big(2)] }), (error) => hasCode(error, 'resource-exhausted'));
  disk.fault = () => undefined;
  await log.append({ entries: [anEntry(2, 2, 'another')] });

  await log[Symbol.asyncDispose]();
  assert.deepEqual(
    (await recover(disk)).entries.map(({ term }) => term),
    [1, 2],
  );
});

test('a real disk of eight megabytes fills up, is told, and recovers', {
  skip: process.getuid?.() === 0 ? false : 'needs root to mount a tmpfs',
}, async (t) => {
  const directory = mkdtempSync(path.join(os.tmpdir(), 'tsw-full-'));
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=8m', 'tmpfs', directory]);
  t.after(() => {
    // A test that failed has files open.
    execFileSync('umount', ['--lazy', directory]);
    rmSync(directory, { recursive: true });
  });
  const states: string[] = [];
  const change = {
    segmentBytes: { first: 2 ** 20, max: 2 ** 22 },
    ballastBytes: 2 ** 20,
    lowWatermarkBytes: 0,
    onSpace: (state: string) => states.push(state),
  };
  const disk = await RealDisk.open(path.join(directory, 'log'));
  const log = await createLog(disk, change);
  const payload = 'z'.repeat(20_000);
  let last = 0;
  try {
    for (;;) {
      await log.append({ entries: [anEntry(last + 1, 1, payload)] });
      last++;
    }
  } catch (error) {
    assert.ok(hasCode(error, 'resource-exhausted'), String(error));
  }

  assert.deepEqual(states, ['low', 'full']);
  assert.ok(last * payload.length > 5e6, `${last} entries`);
  await log.writeSnapshot(aMark(last), []).catch((error) => assert.ok(hasCode(error, 'resource-exhausted')));
  execFileSync('mount', ['-o', 'remount,size=64m', directory]);
  await log.append({ entries: [anEntry(last + 1)] });
  await log.writeSnapshot(aMark(last + 1), []);
  await log.compact(last + 1);
  assert.equal(await log.reviewSpace(), 'ok');
  await log[Symbol.asyncDispose]();
  const again = await openLog(disk, change);
  assert.equal(again.recovered.snapshot?.index, last + 1);
  await again.log[Symbol.asyncDispose]();
});
