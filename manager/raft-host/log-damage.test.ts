import assert from 'node:assert/strict';
import { test } from 'node:test';
import { hasCode, SwarmError } from '../../core/errors.ts';
import { setLogLevel } from '../../rpc/logger.ts';
import type { SimDisk } from '../../test/sim/sim-disk.ts';
import {
  aDisk,
  aMark,
  anEntry,
  aState,
  createLog,
  logOptions,
  MEMBER,
  openLog,
  recover,
  textOf,
} from '../../test/support/raft-log.ts';
import { readBlockHeader } from './block.ts';
import { KEY_FILE } from './key-file.ts';
import { LogOnDisk } from './log-on-disk.ts';
import { segmentName } from './segment-header.ts';
import { snapshotName } from './snapshot-file.ts';

setLogLevel('silent');

const FIRST = segmentName(1);
const ENTRIES = [1, 2, 3, 4, 5, 6].map((index) => anEntry(index));

/** A log whose only segment has a block for each of `entries`. */
async function aLog(entries = ENTRIES): Promise<SimDisk> {
  const disk = aDisk();
  const log = await createLog(disk);
  await log.append({ hardState: aState(1, 0, 5), entries: [] });
  for (const entry of entries) await log.append({ entries: [entry] });
  await log[Symbol.asyncDispose]();
  return disk;
}

/** What a start finds on a disk that was spoilt: the entries, or why it refuses. */
async function outcome(disk: SimDisk): Promise<string[] | SwarmError> {
  try {
    return textOf((await recover(disk)).entries);
  } catch (error) {
    assert.ok(error instanceof SwarmError, String(error));
    return error;
  }
}

/** Offsets at which the blocks of the first segment begin, and where the last ends. */
function blockOffsets(disk: SimDisk): number[] {
  const bytes = disk.content(FIRST);
  const salt = bytes.subarray(16, 24);
  const offsets = [];
  let end = 0;
  for (let offset = 512; offset < bytes.length; offset += 8) {
    const header = readBlockHeader(bytes.subarray(offset), salt);
    if (header === undefined) continue;
    offsets.push(offset);
    end = offset + 48 + header.length;
  }
  return [...offsets, end];
}

test('a log that is cut off anywhere is refused: a segment never gets shorter', async () => {
  const disk = await aLog();
  const whole = Buffer.from(disk.content(FIRST));

  for (let length = 0; length < whole.length; length++) {
    const cut = disk.copy();
    cut.replace(FIRST, whole.subarray(0, length));
    const found = await outcome(cut);
    assert.ok(found instanceof SwarmError, `${length} bytes`);
    assert.match(found.message, /log-0+1\.seg is damaged at byte \d+/);
    assert.match(found.hint ?? '', /backup.*join the cluster again/);
  }
});

test('a log whose end was never written loses nothing that was acknowledged before', async () => {
  const disk = await aLog();
  const whole = Buffer.from(disk.content(FIRST));
  const offsets = blockOffsets(disk);
  // The first two blocks are the log's beginning and the hard state.
  assert.equal(offsets.length, ENTRIES.length + 3);

  for (let length = offsets[1] as number; length <= whole.length; length++) {
    const torn = disk.copy();
    // From here on the disk has the zeros that were there before.
    torn.replace(FIRST, Buffer.concat([whole.subarray(0, length), Buffer.alloc(whole.length - length)]));
    const found = await outcome(torn);
    const wholeBlocks = offsets.filter((offset) => offset <= length).length - 1;
    const expected = textOf(ENTRIES.slice(0, Math.max(0, wholeBlocks - 2)));
    if (found instanceof SwarmError)
      assert.ok(!offsets.includes(length), `refused at ${length}: ${found.message}`);
    else assert.deepEqual(found, expected, `${length} bytes`);
    // A block ends at a sector that is all there or all missing: everything else is not a torn write.
    if (length % 512 === 0) assert.ok(!(found instanceof SwarmError), `refused at ${length}`);
  }
});

test('any flipped bit of a log is found', async () => {
  const disk = await aLog();
  const offsets = blockOffsets(disk);
  const end = offsets.at(-1) as number;
  const expected = textOf(ENTRIES);

  for (let at = 0; at < end + 64; at++) {
    const spoilt = disk.copy();
    spoilt.content(FIRST).writeUInt8(spoilt.content(FIRST).readUInt8(at) ^ (1 << (at % 8)), at);
    const found = await outcome(spoilt);
    if (at < end) assert.ok(found instanceof SwarmError, `bit of byte ${at} was believed`);
    // Behind the last block there is nothing to lose.
    else if (!(found instanceof SwarmError)) assert.deepEqual(found, expected);
  }
});

test('a block that cannot be read is not torn when there is a good one behind it', async () => {
  const disk = await aLog();
  const offsets = blockOffsets(disk);
  const third = offsets[3] as number;
  disk.content(FIRST).fill(0, third, offsets[4]);

  const found = await outcome(disk);

  assert.ok(found instanceof SwarmError);
  assert.match(found.message, new RegExp(`damaged at byte ${third}: .*good one behind it, at ${offsets[4]}`));
});

test('a torn write of many sectors is dropped, whichever of them are missing', async () => {
  const disk = await aLog([...ENTRIES, anEntry(7, 1, 'x'.repeat(2000))]);
  const offsets = blockOffsets(disk);
  const [start, end] = offsets.slice(-2) as [number, number];
  const sectors = [
    ...new Set(Array.from({ length: end - start }, (_, at) => Math.floor((start + at) / 512))),
  ];

  for (let kept = 0; kept < 2 ** sectors.length - 1; kept++) {
    const torn = disk.copy();
    for (const [position, sector] of sectors.entries())
      if (!(kept & (1 << position)))
        torn.content(FIRST).fill(0, Math.max(start, sector * 512), Math.min(end, (sector + 1) * 512));
    assert.deepEqual(await outcome(torn), textOf(ENTRIES), `sectors ${kept.toString(2)}`);
  }
});

test('something behind a torn write is damage', async () => {
  const disk = await aLog([...ENTRIES, anEntry(7, 1, 'x'.repeat(2000))]);
  const [start, end] = blockOffsets(disk).slice(-2) as [number, number];
  const bytes = disk.content(FIRST);
  bytes.fill(0, Math.ceil(start / 512) * 512 + 512, end);
  assert.deepEqual(await outcome(disk), textOf(ENTRIES));

  bytes.fill(1, end + 100, end + 110);

  const found = await outcome(disk);
  assert.ok(found instanceof SwarmError && /behind the last block/.test(found.message));
});

test('what a crash left beside the log is removed by the next start', async () => {
  const disk = await aLog();
  const first = Buffer.from(disk.content(FIRST));
  for (let start = 1; start <= 2; start++) await (await openLog(disk)).log[Symbol.asyncDispose]();
  assert.ok(disk.names.includes(segmentName(3)) && !disk.names.includes(segmentName(2)));
  disk.replace('snapshot-3.tmp', Buffer.alloc(10));
  // A power loss undid that it was deleted.
  disk.replace(FIRST, first);

  const { log, recovered } = await openLog(disk);

  assert.deepEqual(textOf(recovered.entries), textOf(ENTRIES));
  assert.ok(!disk.names.includes('snapshot-3.tmp') && !disk.names.includes(FIRST));
  await log[Symbol.asyncDispose]();
});

test('an older segment that misses its last block is refused', async () => {
  const disk = aDisk();
  const log = await createLog(disk);
  for (let index = 1; index <= 30; index++)
    await log.append({ entries: [anEntry(index, 1, 'y'.repeat(300))] });
  await log[Symbol.asyncDispose]();
  const bytes = disk.content(FIRST);
  const [start, end] = blockOffsets(disk).slice(-2) as [number, number];
  assert.ok(disk.names.includes(segmentName(2)));

  bytes.fill(0, start, end);

  const found = await outcome(disk);
  assert.ok(found instanceof SwarmError);
  assert.match(found.message, /log-0+1\.seg is damaged at byte \d+: its blocks end here/);
});

test('a segment that is missing in the middle or at the beginning is refused', async () => {
  const disk = aDisk();
  const log = await createLog(disk);
  for (let index = 1; index <= 60; index++)
    await log.append({ entries: [anEntry(index, 1, 'y'.repeat(300))] });
  await log[Symbol.asyncDispose]();
  const segments = disk.names.filter((name) => name.endsWith('.seg'));
  assert.ok(segments.length > 2);

  for (const name of segments.slice(0, -1)) {
    const gap = disk.copy();
    await gap.unlink(name);
    assert.ok((await outcome(gap)) instanceof SwarmError, name);
  }
});

test('blocks are refused in another place than their own', async () => {
  const disk = await aLog();
  const bytes = disk.content(FIRST);
  const offsets = blockOffsets(disk);
  const [third = 0, fourth = 0, fifth = 0] = offsets.slice(3, 6);
  assert.equal(fourth - third, fifth - fourth);
  const copy = Buffer.from(bytes.subarray(third, fourth));

  bytes.copyWithin(third, fourth, fifth);
  bytes.set(copy, fourth);

  assert.ok((await outcome(disk)) instanceof SwarmError);
});

test('a damaged snapshot is refused: at its ends when the log is opened, else when it is read', async () => {
  const disk = aDisk();
  const log = await createLog(disk);
  await log.append({ entries: ENTRIES });
  const records = Array.from({ length: 20 }, (_, at) => Buffer.from(`record ${at}`));
  await log.writeSnapshot(aMark(6), records);
  await log[Symbol.asyncDispose]();
  const name = snapshotName(6);

  for (let at = 0; at < disk.content(name).length; at++) {
    const spoilt = disk.copy();
    spoilt.content(name).writeUInt8(spoilt.content(name).readUInt8(at) ^ 1, at);
    await assert.rejects(
      async () => {
        const opened = await openLog(spoilt);
        const snapshot = await opened.log.openSnapshot();
        for await (const _ of snapshot?.records() ?? []);
      },
      (error) => error instanceof SwarmError && /state-0+6\.snap/.test(error.message),
      `byte ${at} was believed`,
    );
  }
});

test('a log without its key file, and a key file that is spoilt, are refused with words', async () => {
  const disk = await aLog();
  const spoilt = disk.copy();
  const text = spoilt.content(KEY_FILE).toString();
  spoilt.replace(KEY_FILE, Buffer.from(text.replace(/"key":"./, '"key":"#')));
  await disk.unlink(KEY_FILE);

  await assert.rejects(recover(disk), /keys\.json is damaged.*missing/);
  await assert.rejects(recover(spoilt), /keys\.json is damaged.*checksum/);
});

test('a snapshot of another member is refused', async () => {
  const disk = await aLog();
  const other = aDisk();
  const log = await LogOnDisk.create(logOptions(other), { ...MEMBER, memberId: 8 });
  await log.append({ entries: ENTRIES });
  await log.writeSnapshot(aMark(6), []);
  await log[Symbol.asyncDispose]();

  disk.replace(snapshotName(6), other.content(snapshotName(6)));

  await assert.rejects(recover(disk), (error) => hasCode(error, 'failed-precondition'));
});
