import assert from 'node:assert/strict';
import { mkdtemp, rm, stat } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { type TestContext, test } from 'node:test';
import { hasCode } from '../../core/errors.ts';
import { setLogLevel } from '../../rpc/logger.ts';
import {
  aDisk,
  aMark,
  anEntry,
  aState,
  createLog,
  logOptions,
  MEMBER,
  openLog,
  recordsOf,
  textOf,
} from '../../test/support/raft-log.ts';
import { LogOnDisk, type OpenSnapshot } from './log-on-disk.ts';
import { RealDisk } from './real-disk.ts';

setLogLevel('silent');

const range = (from: number, to: number, term = 1) =>
  Array.from({ length: to - from + 1 }, (_, offset) => anEntry(from + offset, term));

async function realDisk(t: TestContext): Promise<{ disk: RealDisk; directory: string }> {
  const parent = await mkdtemp(path.join(os.tmpdir(), 'tsw-raft-log-'));
  t.after(() => rm(parent, { recursive: true }));
  const directory = path.join(parent, 'log');
  return { disk: await RealDisk.open(directory), directory };
}

test('an empty directory has no log', async () => {
  assert.equal(await LogOnDisk.open(logOptions(aDisk())), undefined);
});

test('a real directory keeps ten thousand entries in many segments, for nobody else to read', async (t) => {
  const { disk, directory } = await realDisk(t);
  const log = await createLog(disk);
  for (let first = 1; first <= 10_000; first += 50)
    await Promise.all(
      range(first, first + 49).map((entry) => log.append({ hardState: aState(1), entries: [entry] })),
    );
  await log[Symbol.asyncDispose]();
  const names = await disk.list();

  const { log: again, recovered } = await openLog(disk);

  assert.ok(names.filter((name) => name.endsWith('.seg')).length > 10);
  assert.deepEqual(recovered.member, MEMBER);
  assert.deepEqual(recovered.hardState, aState(1));
  assert.deepEqual(textOf(recovered.entries), textOf(range(1, 10_000)));
  assert.equal((await stat(directory)).mode & 0o777, 0o700);
  for (const name of await disk.list())
    assert.equal((await stat(path.join(directory, name))).mode & 0o777, 0o600);
  await again[Symbol.asyncDispose]();
});

test('appends of one moment are one write, and acknowledged together', async () => {
  const disk = aDisk();
  const log = await createLog(disk);
  let writes = 0;
  disk.fault = ({ kind, name }) => {
    if (kind === 'write-at' && name.startsWith('spare')) writes++;
    return undefined;
  };

  const promises = range(1, 20).map((entry) => log.append({ entries: [entry] }));

  assert.ok(promises.every((promise) => promise === promises[0]));
  await promises[0];
  assert.equal(writes, 1);
});

test('an entry that comes again replaces what was behind it', async () => {
  const disk = aDisk();
  const log = await createLog(disk);
  await log.append({ entries: range(1, 10) });
  await log.append({ hardState: aState(3, 2, 9), entries: [anEntry(5, 3), anEntry(6, 3)] });
  await log[Symbol.asyncDispose]();

  const { recovered } = await openLog(disk);

  assert.deepEqual(textOf(recovered.entries), textOf([...range(1, 4), anEntry(5, 3), anEntry(6, 3)]));
  assert.deepEqual(recovered.hardState, aState(3, 2, 9));
});

test('a segment that is full while older ones are looked for is not deleted with them', async () => {
  const disk = aDisk();
  const log = await createLog(disk);
  for (const entry of range(1, 10)) await log.append({ entries: [entry] });
  await log.writeSnapshot(aMark(10), [Buffer.from('state')]);
  const list = disk.list.bind(disk);
  disk.list = async () => {
    const names = await list();
    for (const entry of range(11, 300)) await log.append({ entries: [entry] });
    return names;
  };

  await log.compact(5);

  disk.list = list;
  assert.ok(disk.names.filter((name) => name.endsWith('.seg')).length > 1);
  await log[Symbol.asyncDispose]();
  const { recovered } = await openLog(disk);
  assert.deepEqual(textOf(recovered.entries), textOf(range(11, 300)));
});

test('what a snapshot covers is deleted with it, and the hard state is not', async () => {
  const disk = aDisk();
  const log = await createLog(disk);
  await log.append({ hardState: aState(4, 0, 2), entries: [] });
  for (const entry of range(1, 300)) await log.append({ entries: [entry] });
  const before = disk.usedBytes;
  await log.writeSnapshot(aMark(100), [Buffer.from('old')]);
  await log.writeSnapshot(aMark(290), [Buffer.from('state')]);

  await log.compact(250);

  assert.ok(disk.usedBytes < before);
  assert.ok(!disk.names.includes('state-0000000000000100.snap'));
  await log[Symbol.asyncDispose]();
  const { log: again, recovered } = await openLog(disk);
  assert.deepEqual(recovered.hardState, aState(4, 290, 2));
  assert.deepEqual(recovered.snapshot, aMark(290));
  assert.deepEqual(textOf(recovered.entries), textOf(range(291, 300)));
  assert.deepEqual(await recordsOf(await again.openSnapshot()), ['state']);
});

test('restarts of a short log do not pile up segments', async () => {
  const disk = aDisk();
  await (await createLog(disk))[Symbol.asyncDispose]();

  for (let index = 1; index <= 20; index++) {
    const { log } = await openLog(disk);
    await log.append({ entries: [anEntry(index)] });
    await log[Symbol.asyncDispose]();
  }

  assert.equal(disk.names.filter((name) => name.endsWith('.seg')).length, 1);
  assert.equal((await openLog(disk)).recovered.entries.length, 20);
});

test('a long log is not copied when it is opened', async () => {
  const disk = aDisk();
  const log = await createLog(disk, { segmentBytes: { first: 2 ** 20, max: 2 ** 20 } });
  for (let index = 1; index <= 30; index++)
    await log.append({ entries: [anEntry(index, 1, 'x'.repeat(100_000))] });
  await log[Symbol.asyncDispose]();
  const before = disk.names.filter((name) => name.endsWith('.seg')).length;

  const { log: again, recovered } = await openLog(disk);
  await again.append({ entries: [anEntry(31)] });
  await again[Symbol.asyncDispose]();

  assert.equal(recovered.entries.length, 30);
  assert.equal(disk.names.filter((name) => name.endsWith('.seg')).length, before + 1);
  assert.equal((await openLog(disk)).recovered.entries.length, 31);
});

test("a peer's snapshot becomes the state of a member, and the log goes on after it", async () => {
  const source = await createLog(aDisk());
  await source.append({ entries: range(1, 50, 3) });
  const records = Array.from({ length: 3000 }, (_, at) => Buffer.from(`record ${at} ${'r'.repeat(400)}`));
  await source.writeSnapshot(aMark(50, 3), records);
  const snapshot = (await source.openSnapshot()) as OpenSnapshot;
  const disk = aDisk();
  const log = await createLog(disk);
  await log.append({ hardState: aState(3, 0, 1), entries: range(1, 60) });

  const receiver = await log.receiveSnapshot(snapshot.mark, snapshot.rootHash);
  for await (const chunk of snapshot.records()) {
    assert.ok(chunk.reduce((sum, record) => sum + record.length, 0) <= 256 * 1024);
    await receiver.write(chunk);
  }
  assert.equal(log.snapshotMark, undefined);
  await receiver.finish();

  assert.equal(log.lastIndex, 50);
  await log.append({ entries: [anEntry(51, 4)] });
  await log[Symbol.asyncDispose]();
  const { log: again, recovered } = await openLog(disk);
  assert.deepEqual(recovered.snapshot, aMark(50, 3));
  assert.deepEqual(recovered.hardState, aState(3, 50, 1));
  assert.deepEqual(textOf(recovered.entries), textOf([anEntry(51, 4)]));
  assert.deepEqual(await recordsOf(await again.openSnapshot()), records.map(String));
});

test("a peer's snapshot that arrived otherwise than it was sent changes nothing", async () => {
  const disk = aDisk();
  const log = await createLog(disk);
  await log.append({ entries: range(1, 5) });

  const receiver = await log.receiveSnapshot(aMark(9), Buffer.alloc(32, 7));
  await receiver.write([Buffer.from('not what was sent')]);
  await assert.rejects(
    receiver.finish(),
    (error) => hasCode(error, 'internal') && /was sent/.test(error.message),
  );

  assert.equal(log.lastIndex, 5);
  assert.ok(!disk.names.some((name) => /snap/.test(name)));
  await log.append({ entries: [anEntry(6)] });
});

test("a peer's snapshot that is older than the own one is refused", async () => {
  const log = await createLog(aDisk());
  await log.append({ entries: range(1, 20) });
  const receiver = await log.receiveSnapshot(aMark(10), Buffer.from(EMPTY_HASH, 'hex'));
  await log.writeSnapshot(aMark(15), []);

  await assert.rejects(receiver.finish(), (error) => hasCode(error, 'failed-precondition'));
  assert.equal(log.snapshotMark?.index, 15);
});

// sha256 of nothing
const EMPTY_HASH = 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855';

test('an open snapshot stays readable when a newer one replaces it', async (t) => {
  for (const disk of [aDisk(), (await realDisk(t)).disk]) {
    const log = await createLog(disk);
    await log.append({ entries: range(1, 20) });
    await log.writeSnapshot(aMark(10), [Buffer.from('ten')]);
    const snapshot = await log.openSnapshot();
    await log.writeSnapshot(aMark(20), [Buffer.from('twenty')]);
    await log.compact(20);

    assert.deepEqual(await recordsOf(snapshot), ['ten']);
    assert.deepEqual(await recordsOf(await log.openSnapshot()), ['twenty']);
    await log[Symbol.asyncDispose]();
  }
});

test('an entry larger than a segment gets one of its own', async () => {
  const disk = aDisk();
  const log = await createLog(disk);
  const large = anEntry(1, 1, 'l'.repeat(500_000));

  await log.append({ entries: [large, anEntry(2)] });
  await log.append({ entries: [anEntry(3)] });

  await log[Symbol.asyncDispose]();
  assert.deepEqual(textOf((await openLog(disk)).recovered.entries), textOf([large, anEntry(2), anEntry(3)]));
});

test('a log of a newer format is refused by name', async () => {
  const disk = aDisk();
  await (await createLog(disk))[Symbol.asyncDispose]();
  const name = disk.names.find((other) => other.endsWith('.seg')) ?? '';
  const { crc32 } = await import('node:zlib');
  const header = disk.content(name);
  header.writeUInt32LE(2, 8);
  header.writeUInt32LE(crc32(header.subarray(0, 492)), 492);

  await assert.rejects(
    openLog(disk),
    (error) => hasCode(error, 'failed-precondition') && /format 2/.test(error.message),
  );
});

test('an idle log asks nothing of the disk', async () => {
  const disk = aDisk();
  const log = await createLog(disk);
  await log.append({ entries: range(1, 3) });
  await log.reviewSpace();
  const { calls } = disk;

  for (let turn = 0; turn < 50; turn++) await new Promise((resolve) => setImmediate(resolve));

  assert.equal(disk.calls, calls);
});
