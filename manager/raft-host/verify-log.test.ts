import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setLogLevel } from '../../rpc/logger.ts';
import type { SimDisk } from '../../test/sim/sim-disk.ts';
import { aDisk, aMark, anEntry, aState, createLog, MEMBER } from '../../test/support/raft-log.ts';
import { type DumpLine, dumpLog, verifyLog } from './verify-log.ts';

setLogLevel('silent');

const RECORDS = ['one', 'three'].map((word) => Buffer.from(word.padEnd(200)));

async function aLog(): Promise<SimDisk> {
  const disk = aDisk();
  const log = await createLog(disk);
  for (let index = 1; index <= 30; index++)
    await log.append({ entries: [anEntry(index, 1, 'x'.repeat(300))] });
  await log.append({ hardState: aState(2, 20, 3), entries: [anEntry(30, 2)] });
  await log.writeSnapshot(aMark(20), RECORDS);
  await log[Symbol.asyncDispose]();
  return disk;
}

test('a whole log is reported as it is, and left as it is', async () => {
  const disk = await aLog();
  const before = disk.names.map((name) => disk.content(name).toString('base64'));

  const report = await verifyLog(disk);

  assert.deepEqual(report.problems, []);
  assert.deepEqual(report.member, MEMBER);
  assert.deepEqual(report.hardState, aState(2, 20, 3));
  assert.deepEqual(report.entries, { first: 21, last: 30 });
  assert.ok(report.segments.length > 1 && report.segments.every(({ blocks }) => blocks > 0));
  assert.deepEqual(report.segments[0]?.terms, { first: 1, last: 1 });
  assert.equal(report.segments.at(-1)?.entries?.last, 30);
  assert.deepEqual(report.segments.at(-1)?.terms, { first: 1, last: 2 });
  assert.deepEqual(report.snapshots, [{ name: 'state-0000000000000020.snap', records: 2, bytes: 400 }]);
  assert.deepEqual(
    disk.names.map((name) => disk.content(name).toString('base64')),
    before,
  );
});

test('every damage is named with its file and offset', async () => {
  const disk = await aLog();
  disk.content('log-0000000000000001.seg').fill(0xff, 2000, 2001);
  const snapshot = disk.content('state-0000000000000020.snap');
  snapshot.fill(0xff, snapshot.length - 150, snapshot.length - 140);

  const report = await verifyLog(disk);

  assert.equal(report.problems.length, 2);
  assert.match(report.problems[0]?.message ?? '', /log-0+1\.seg is damaged at byte \d+/);
  assert.match(report.problems[0]?.hint ?? '', /backup/);
  assert.match(report.problems[1]?.message ?? '', /state-0+20\.snap is damaged at byte \d+/);
});

test('a dump lists every record with its place', async () => {
  const disk = await aLog();
  const lines: DumpLine[] = [];

  await dumpLog(disk, (line) => lines.push(line));

  const entries = lines.flatMap(({ record }) => (record.kind === 'entry' ? [record.entry] : []));
  assert.deepEqual(
    entries.map(({ index, term }) => `${index}/${term}`),
    [...Array.from({ length: 30 }, (_, at) => `${at + 1}/1`), '30/2'],
  );
  assert.ok(lines.some(({ record }) => record.kind === 'hard-state'));
});

test('what is before a damage is reported', async () => {
  const disk = await aLog();
  const last = disk.names.filter((name) => name.endsWith('.seg')).at(-1) ?? '';
  disk.content(last).fill(0xff, 600, 601);

  const report = await verifyLog(disk);

  assert.equal(report.problems.length, 1);
  assert.ok(report.segments.length > 0);
  assert.equal(report.segments[0]?.entries?.first, 1);
});

test('a directory without a log is not a damaged one', async () => {
  await assert.rejects(verifyLog(aDisk()), { code: 'not-found' });
});
