import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import type { Disk } from '../../manager/raft-host/disk.ts';
import { RealDisk } from '../../manager/raft-host/real-disk.ts';
import { seededChance } from '../support/faults.ts';
import { ioError, SimDisk } from './sim-disk.ts';

const aDisk = (seed = 1) => new SimDisk({ chance: seededChance(seed) });

/** What a file of one written sector may hold after a crash, over many seeds. */
async function outcomes(work: (disk: SimDisk) => Promise<unknown>): Promise<Set<string>> {
  const found = new Set<string>();
  for (let seed = 1; seed <= 60; seed++) {
    const disk = aDisk(seed);
    await Promise.race([work(disk), disk.stopped]);
    const after = disk.crash('power');
    found.add(
      after.names.map((name) => `${name}=${after.content(name).toString().replaceAll('\0', '.')}`).join(' '),
    );
  }
  return found;
}

async function behaviour(disk: Disk): Promise<unknown[]> {
  const file = await disk.open('one', { create: true, sync: true });
  await file.write(Buffer.from('hello'), 3);
  const seen: unknown[] = [await file.size(), (await file.read(0, 100)).toString('latin1')];
  await file.truncate(5);
  await file.write(Buffer.from('y'), 9);
  seen.push((await file.read(2, 20)).toString('latin1'), (await file.read(50, 5)).length);
  await disk.rename('one', 'two');
  await disk.syncDirectory();
  const other = await disk.open('two');
  await disk.unlink('two');
  seen.push((await other.read(3, 2)).toString(), await disk.list());
  await file.close();
  await file.close();
  await other.close();
  for (const fails of [() => disk.open('two'), () => disk.read('two'), () => disk.unlink('two')])
    await assert.rejects(fails, { code: 'ENOENT' });
  return seen;
}

test('the simulated disk behaves as the real one while nothing fails', async (t) => {
  const directory = await mkdtemp(path.join(os.tmpdir(), 'tsw-disk-'));
  t.after(() => rm(directory, { recursive: true }));

  assert.deepEqual(await behaviour(aDisk()), await behaviour(await RealDisk.open(directory)));
});

test('what was synced survives any loss of power, with its name', async () => {
  const found = await outcomes(async (disk) => {
    const file = await disk.open('a', { create: true });
    await file.write(Buffer.from('x'), 0);
    await file.sync();
    await disk.syncDirectory();
    const durable = await disk.open('b', { create: true, sync: true });
    await durable.write(Buffer.from('y'), 0);
    await disk.syncDirectory();
  });

  assert.deepEqual([...found], ['a=x b=y']);
});

test('what was not synced is there or not, and so is a name', async () => {
  const unsynced = await outcomes(async (disk) => {
    const file = await disk.open('a', { create: true });
    await disk.syncDirectory();
    await file.write(Buffer.from('x'), 0);
  });
  const renamed = await outcomes(async (disk) => {
    const file = await disk.open('a', { create: true, sync: true });
    await file.write(Buffer.from('x'), 0);
    await disk.syncDirectory();
    await disk.rename('a', 'b');
  });

  assert.ok(unsynced.has('a=x') && unsynced.has('a='));
  assert.deepEqual([...renamed].sort(), ['a=x', 'b=x']);
});

test('a durable write that was under way is torn by sectors', async () => {
  const found = new Set<string>();
  for (let seed = 1; seed <= 200; seed++) {
    const disk = aDisk(seed);
    const file = await disk.open('a', { create: true, sync: true });
    await file.write(Buffer.alloc(3 * 512), 0);
    await disk.syncDirectory();
    disk.stopAt = disk.calls + 1;
    await Promise.race([file.write(Buffer.alloc(3 * 512, 1), 0), disk.stopped]);
    const bytes = disk.crash('power').content('a');
    found.add(
      [0, 512, 1024].map((offset) => bytes.subarray(offset, offset + 512).every((byte) => byte === 1)).join(),
    );
    for (const offset of [0, 512, 1024]) assert.equal(new Set(bytes.subarray(offset, offset + 512)).size, 1);
  }

  assert.equal(found.size, 8);
});

test('a write that failed is seen by reads, and a later sync does not save it', async () => {
  const found = await outcomes(async (disk) => {
    const file = await disk.open('a', { create: true, sync: true });
    await disk.syncDirectory();
    disk.fault = ({ kind }) => (kind === 'write-at' ? ioError('EIO') : undefined);
    await assert.rejects(file.write(Buffer.from('x'), 0), { code: 'EIO' });
    assert.equal((await file.read(0, 1)).toString(), 'x');
    await file.sync();
  });

  assert.ok(found.size > 1);
});

test('a full disk writes what there is room for, and fails', async () => {
  const disk = aDisk();
  disk.capacityBytes = 10;
  const file = await disk.open('a', { create: true });

  await assert.rejects(file.write(Buffer.alloc(20), 0), { code: 'ENOSPC' });

  assert.equal(await file.size(), 10);
  assert.equal(await disk.freeBytes(), 0);
});
