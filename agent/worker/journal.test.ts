import assert from 'node:assert/strict';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { emptyMeta, type TaskState } from '../../core/generated/objects.ts';
import { setLogLevel } from '../../rpc/logger.ts';
import { aTask } from '../../test/support/builders.ts';
import { aService } from '../../test/support/cluster-in-process.ts';
import { Journal, type JournalEntry } from './journal.ts';

setLogLevel('silent');

function entryOf(id: string, state: TaskState): JournalEntry {
  const task = { ...aTask('s'), id };
  const revision = {
    id: 's.1',
    meta: emptyMeta,
    serviceId: 's',
    specVersion: 1,
    spec: aService('s'),
    registryAuth: false,
  };
  return { task, revision, status: { ...task.status, state } };
}

test('the last whole line of a task counts, whatever an interrupted write has left behind it', async () => {
  const directory = await mkdtemp(path.join(os.tmpdir(), 'tsw-journal-'));
  const states = async () =>
    (await new Journal(directory).load()).map(({ task, status }) => `${task.id} ${status.state}`).sort();
  try {
    const journal = new Journal(directory);
    await Promise.all((['accepted', 'starting'] as const).map((state) => journal.save(entryOf('t1', state))));
    await journal.save(entryOf('t2', 'accepted'));
    await journal.save(entryOf('t3', 'accepted'));
    await journal.delete('t3');
    assert.deepEqual(await states(), ['t1 starting', 't2 accepted']);

    const file = path.join(directory, 't1.json');
    const text = await readFile(file, 'utf8');
    await writeFile(file, text.slice(0, -10));
    await writeFile(path.join(directory, 't2.json'), text);
    assert.deepEqual(await states(), ['t1 accepted']);
    assert.deepEqual(await readdir(directory), ['t1.json']);

    await new Journal(directory).save(entryOf('t1', 'failed'));
    assert.deepEqual(await states(), ['t1 failed']);
  } finally {
    await rm(directory, { recursive: true });
  }
});
