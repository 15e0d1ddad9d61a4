import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, utimesSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { type TestContext, test } from 'node:test';
import { BlobFiles } from './blob-files.ts';
import { digestOf } from './manifest.ts';

const BYTES = randomBytes(3_000_000);
const BLOB = { digest: digestOf(BYTES), size: BYTES.length };

function aStore(context: TestContext): { files: BlobFiles; blob: string; partial: string } {
  const root = mkdtempSync(path.join(tmpdir(), 'blob-files-'));
  context.after(() => rmSync(root, { recursive: true }));
  const store = path.join(root, 'io.containerd.content.v1.content');
  return {
    files: new BlobFiles(root),
    blob: path.join(store, 'blobs/sha256', BLOB.digest.slice('sha256:'.length)),
    partial: path.join(store, 'partial'),
  };
}

function* broken(bytes: Uint8Array): Iterable<Uint8Array> {
  yield bytes;
  throw new Error('the line is dead');
}

test('a blob comes to lie where containerd keeps blobs, and nobody can change it', async (context) => {
  const { files, blob, partial } = aStore(context);
  await files.receive(BLOB, () => [BYTES]);
  assert.deepEqual(readFileSync(blob), BYTES);
  assert.equal(statSync(blob).mode & 0o777, 0o444);
  assert.deepEqual(readdirSync(partial), []);
});

test('an attempt goes on where the one before broke off', async (context) => {
  const { files, blob } = aStore(context);
  await assert.rejects(
    files.receive(BLOB, () => broken(BYTES.subarray(0, 100_000))),
    /line is dead/,
  );
  await assert.rejects(
    files.receive(BLOB, (offset) => [BYTES.subarray(offset, 2_000_000)]),
    {
      code: 'unavailable',
      message: `blob ${BLOB.digest} broke off at 2000000 bytes`,
    },
  );
  const offsets: number[] = [];
  await files.receive(BLOB, (offset) => {
    offsets.push(offset);
    return [BYTES.subarray(offset)];
  });
  assert.deepEqual(offsets, [2_000_000]);
  assert.deepEqual(readFileSync(blob), BYTES);
});

test('other contents are refused and forgotten, whoever sent them', async (context) => {
  const { files, blob } = aStore(context);
  await assert.rejects(
    files.receive(BLOB, () => broken(Buffer.alloc(100_000))),
    /line is dead/,
  );
  await assert.rejects(
    files.receive(BLOB, (offset) => [BYTES.subarray(offset)]),
    {
      code: 'failed-precondition',
    },
  );
  await assert.rejects(
    files.receive(BLOB, () => [BYTES, BYTES]),
    { message: /is larger than 3000000 bytes/ },
  );
  assert.ok(!existsSync(blob));
  await files.receive(BLOB, () => [BYTES]);
  assert.deepEqual(readFileSync(blob), BYTES);
});

test('what was given up is removed after a while', async (context) => {
  const { files, partial } = aStore(context);
  await assert.rejects(
    files.receive(BLOB, () => broken(BYTES.subarray(0, 100_000))),
    /line is dead/,
  );
  await files.removeForgotten();
  const [name = ''] = readdirSync(partial);
  const long = new Date(Date.now() - 7 * 3600_000);
  utimesSync(path.join(partial, name), long, long);
  await files.removeForgotten();
  assert.deepEqual(readdirSync(partial), []);
});
