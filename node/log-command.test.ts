import assert from 'node:assert/strict';
import { cp, mkdtemp, open, readdir, rm, stat } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { emptyTask } from '../core/generated/objects.ts';
import { Store } from '../manager/store/store.ts';
import { setLogLevel } from '../rpc/logger.ts';
import { newLoneRaft } from '../test/support/lone-raft.ts';
import { runLogCommand } from './log-command.ts';
import { systemClock } from './system-clock.ts';

setLogLevel('silent');

const TASKS = 20;
let root = '';
let directory = '';

before(async () => {
  root = await mkdtemp(path.join(os.tmpdir(), 'tsw-log-command-'));
  directory = path.join(root, 'log');
  await using log = await newLoneRaft(directory, 10_000);
  const store = new Store(log, systemClock);
  await store.open();
  for (let number = 1; number <= TASKS; number++)
    await store.update((tx) => tx.create('task', { ...emptyTask, id: `task-${number}` }));
  await log.takeSnapshot();
  await store.update((tx) => tx.delete('task', 'task-7'));
});
after(() => rm(root, { recursive: true }));

async function run(...argv: string[]): Promise<{ code: number; lines: string[] }> {
  const words = argv.filter((word) => !word.startsWith('--'));
  const flags = new Map(
    argv.filter((word) => word.startsWith('--')).map((word) => word.slice(2).split('=') as [string, string]),
  );
  const lines: string[] = [];
  return { code: await runLogCommand(words, flags, (line) => lines.push(line)), lines };
}

async function damaged(t: { after(work: () => Promise<unknown>): void }): Promise<string> {
  const copy = await mkdtemp(path.join(root, 'damaged-'));
  t.after(() => rm(copy, { recursive: true }));
  await cp(directory, copy, { recursive: true });
  const [segment = ''] = (await readdir(copy)).filter((name) => name.endsWith('.seg')).toSorted();
  const file = await open(path.join(copy, segment), 'r+');
  await file.write(Buffer.from([0xff, 0xff]), 0, 2, 1500);
  await file.close();
  return copy;
}

test('verify says what is in a whole log', async () => {
  const { code, lines } = await run('verify', directory);

  assert.equal(code, 0, lines.join('\n'));
  const text = lines.join('\n');
  assert.match(text, /^member \d+ of cluster cluster$/m);
  assert.match(text, /^state-\d+\.snap {2}20 records, \d+ bytes, whole$/m);
  assert.match(text, /^log-\d+\.seg {2}\d+ blocks, entries 1 to 23, terms 1 to 2$/m);
  assert.match(text, /^entries 23 after the snapshot of 22 \(term 2\)$/m);
  assert.equal(lines.at(-1), 'the log is whole');
});

test('verify names a damage, its place and the way out, and exits with 1', async (t) => {
  const { code, lines } = await run('verify', await damaged(t));

  assert.equal(code, 1);
  const at = lines.findIndex((line) => /^DAMAGED: log-\d+\.seg is damaged at byte \d+: /.test(line));
  assert.ok(at >= 0, lines.join('\n'));
  assert.match(lines[at + 1] ?? '', /backup/);
});

test('dump prints a line for each record, in words', async () => {
  const { code, lines } = await run('dump', directory);

  assert.equal(code, 0);
  assert.match(lines.join('\n'), /entry 1 term 1 \d+ bytes: add-voter 1 \(node n1, 127\.0\.0\.1:2377\)/);
  assert.match(lines.join('\n'), /entry 2 term 2 0 bytes: a term begins/);
  assert.match(lines.join('\n'), /entry 3 term 2 \d+ bytes: create task task-1$/m);
  assert.match(lines.join('\n'), /entry 23 term 2 \d+ bytes: delete task task-7 of version 9$/m);
  assert.match(lines.join('\n'), /hard state: term 2, vote 1/);
});

test('dump takes a range of indexes', async () => {
  const { lines } = await run('dump', directory, '--from=5', '--to=7');

  assert.deepEqual(
    lines.map((line) => /entry (\d+) /.exec(line)?.[1]),
    ['5', '6', '7'],
  );
});

test('dump prints what is before a damage, and fails with its place', async (t) => {
  const copy = await damaged(t);

  await assert.rejects(run('dump', copy), /log-\d+\.seg is damaged at byte \d+/);
});

test('what is not there, or not understood, is refused and changes nothing', async () => {
  await assert.rejects(run('verify', path.join(root, 'none')), { code: 'not-found' });
  await assert.rejects(stat(path.join(root, 'none')), { code: 'ENOENT' });
  await assert.rejects(run('verify', os.tmpdir()), { code: 'not-found' });
  await assert.rejects(run('repair', directory), { code: 'invalid-argument' });
  await assert.rejects(run('verify', directory, '--force=1'), { code: 'invalid-argument' });
  await assert.rejects(run('dump', directory, '--from=x'), { code: 'invalid-argument' });
});
