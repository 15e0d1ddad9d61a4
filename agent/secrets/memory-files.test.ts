// The files of tasks on real mounts. How containers see them is in test/cluster/secrets.test.ts.

import assert from 'node:assert/strict';
import { closeSync, mkdtempSync, openSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { setLogLevel } from '../../rpc/logger.ts';
import { destroyMemoryFiles, MemoryFiles } from './memory-files.ts';

setLogLevel('silent');

const skip = process.getuid?.() === 0 ? false : 'needs root';
const file = (text: string, mode = 0o444) => ({ data: Buffer.from(text), uid: 1, gid: 2, mode });
const text = (bytes: Uint8Array | undefined) => Buffer.from(bytes ?? []).toString();

class Place {
  readonly root = path.join(mkdtempSync(path.join(os.tmpdir(), 'tsw-files-')), 'secrets');

  mounts(): string[] {
    return readFileSync('/proc/self/mountinfo', 'utf8')
      .split('\n')
      .filter((line) => line.includes(this.root));
  }

  [Symbol.dispose](): void {
    destroyMemoryFiles(this.root);
    rmSync(path.dirname(this.root), { recursive: true });
  }
}

test('files have owner and mode, below what only root may enter, and cannot be written to', { skip }, () => {
  using place = new Place();
  const files = new MemoryFiles(place.root);
  const [first = '', second = ''] = files.write('t1', [file('one', 0o4750), file('two')]);
  const { uid, gid, mode } = statSync(first);
  assert.deepEqual([uid, gid, mode & 0o7777], [1, 2, 0o4750]);
  assert.equal(readFileSync(second, 'utf8'), 'two');
  assert.equal(statSync(place.root).mode & 0o777, 0o700);
  assert.throws(() => openSync(first, 'r+'), /EROFS/);
  assert.ok(place.mounts().every((line) => / tmpfs tmpfs .*size=/.test(line)));
});

test('a replaced file is another one at the same place; who has it open reads on', { skip }, () => {
  using place = new Place();
  const files = new MemoryFiles(place.root);
  const [shown = ''] = files.write('t1', [file('version 0'), file('other')]);
  for (let version = 1; version <= 9; version++) {
    const opened = openSync(shown, 'r');
    files.replace('t1', 0, file(`version ${version}`));
    assert.equal(readFileSync(opened, 'utf8'), `version ${version - 1}`);
    closeSync(opened);
    assert.equal(text(files.read('t1', 0)), `version ${version}`);
    assert.throws(() => openSync(shown, 'r+'), /EROFS/);
  }
  assert.equal(text(files.read('t1', 1)), 'other');
  const store = path.join(place.root, 't1', 'store');
  const lengths = readdirSync(store).map((name) => statSync(path.join(store, name)).size);
  assert.equal(
    lengths.filter((length) => length > 0).length,
    4 + 1,
    'four contents of the first, one of the other',
  );
});

test('the next daemon goes on with what is there, or begins anew', { skip }, () => {
  using place = new Place();
  new MemoryFiles(place.root).write('t1', [file('one')]);
  const files = new MemoryFiles(place.root);
  assert.deepEqual([files.list(), text(files.read('t1', 0))], [['t1'], 'one']);
  files.replace('t1', 0, file('two'));
  assert.equal(text(files.read('t1', 0)), 'two');
  const mountCount = place.mounts().length;
  files.write('t1', [file('three')]);
  assert.equal(text(files.read('t1', 0)), 'three');
  assert.equal(place.mounts().length, mountCount - 1, 'nothing of the old ones is left');
});

test('nothing is left of removed files', { skip }, () => {
  using place = new Place();
  const files = new MemoryFiles(place.root);
  for (const task of ['t1', 't2']) files.write(task, [file('one')]);
  files.replace('t1', 0, file('two'));
  files.remove('t1');
  files.remove('t1');
  files.remove('unknown');
  assert.equal(files.read('t1', 0), undefined);
  assert.deepEqual(files.list(), ['t2']);
  destroyMemoryFiles(place.root);
  assert.deepEqual([files.list(), place.mounts()], [[], []]);
});
