import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { readTunnelKey, renewTunnelKey } from './tunnel-keys.ts';

test('a key is kept for its owner alone, read again as it was, and renewed as another', (t) => {
  const directory = mkdtempSync(path.join(os.tmpdir(), 'tsw-key-'));
  t.after(() => rmSync(directory, { recursive: true }));
  const file = path.join(directory, 'tunnel.key');
  assert.equal(readTunnelKey(file), undefined);
  const key = renewTunnelKey(file);
  assert.deepEqual(readTunnelKey(file), key);
  assert.equal(statSync(file).mode & 0o777, 0o600);
  assert.notEqual(renewTunnelKey(file).publicKey, key.publicKey);
  writeFileSync(file, 'damaged');
  assert.equal(readTunnelKey(file), undefined);
});

const skip = existsSync('/usr/bin/wg') ? false : 'needs wg';

test('the public key is what WireGuard makes of the private one', { skip }, (t) => {
  const directory = mkdtempSync(path.join(os.tmpdir(), 'tsw-key-'));
  t.after(() => rmSync(directory, { recursive: true }));
  const { privateKey, publicKey } = renewTunnelKey(path.join(directory, 'tunnel.key'));
  const theirs = execFileSync('wg', ['pubkey'], { input: privateKey, encoding: 'utf8' }).trim();
  assert.equal(publicKey, theirs);
});
