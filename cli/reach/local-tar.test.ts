import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { localTar } from './local-tar.ts';

// A small archive fits into the pipe: its tar has ended before anybody reads.
const ENDED_MS = 300;

test('an archive is whole also when it is read after its tar has ended', async (t) => {
  const directory = mkdtempSync(path.join(tmpdir(), 'local-tar-'));
  t.after(() => rmSync(directory, { recursive: true }));
  writeFileSync(path.join(directory, 'small'), 'hello');
  const tar = localTar(directory, ['-c', '-f', '-', 'small']);
  await delay(ENDED_MS);

  const parts: Uint8Array[] = [];
  for await (const part of tar.output) parts.push(part);

  const content = execFileSync('tar', ['-x', '-O', '-f', '-'], { input: Buffer.concat(parts) });
  assert.equal(content.toString(), 'hello');
  await tar.whole(Promise.resolve());
});
