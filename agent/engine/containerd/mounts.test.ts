import assert from 'node:assert/strict';
import {
  existsSync,
  mkdtempSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  statfsSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { bindReadOnly, shareDirectory, unshareDirectory } from './mounts.ts';

const skip = process.getuid?.() === 0 ? false : 'needs root';
const TMPFS_MAGIC = 0x01021994;

test('a file bound read-only is the present one, cannot be written to, and goes with its directory', {
  skip,
}, () => {
  const directory = realpathSync(mkdtempSync(path.join(tmpdir(), 'tsw-')));
  const [file, run] = [path.join(directory, 'program'), path.join(directory, 'run')];
  const place = path.join(run, 'program');
  const mounts = () => readFileSync('/proc/self/mountinfo', 'utf8').split(` ${place} `).length - 1;
  try {
    shareDirectory(run);
    writeFileSync(file, 'old');

    bindReadOnly(file, place);
    bindReadOnly(file, place);

    assert.equal(readFileSync(place, 'utf8'), 'old');
    assert.throws(() => writeFileSync(place, 'mine'), { code: 'EROFS' });
    assert.equal(mounts(), 1);

    // As a package manager replaces a program.
    writeFileSync(`${file}.new`, 'new');
    renameSync(`${file}.new`, file);
    bindReadOnly(file, place);

    assert.equal(readFileSync(place, 'utf8'), 'new');
    assert.throws(() => writeFileSync(place, 'mine'), { code: 'EROFS' });
    assert.equal(mounts(), 1);
  } finally {
    unshareDirectory(run);
    assert.equal(mounts(), 0);
    rmSync(directory, { recursive: true });
  }
});

test('the run directory lies in memory, whatever it is made on', { skip }, () => {
  for (const base of [tmpdir(), '/dev/shm']) {
    const directory = realpathSync(mkdtempSync(path.join(base, 'tsw-')));
    const kept = path.join(directory, 'kept');
    try {
      shareDirectory(directory);
      writeFileSync(kept, '');

      shareDirectory(directory);

      assert.equal(statfsSync(directory).type, TMPFS_MAGIC);
      assert.ok(existsSync(kept));
    } finally {
      unshareDirectory(directory);
      rmSync(directory, { recursive: true });
    }
  }
});
