import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { inspectMachine } from '../machine.ts';
import { findExecutable } from './runtime.ts';
import { testCrun } from './self-test.ts';

const crun = findExecutable('crun');
const skip = process.getuid?.() !== 0 ? 'needs root' : crun === undefined ? 'needs crun' : false;

/** Tests a script that may refuse, and otherwise becomes the real crun. */
async function testWith(script: string) {
  const directory = mkdtempSync(path.join(tmpdir(), 'tsw-'));
  const program = path.join(directory, 'crun');
  writeFileSync(program, `#!/bin/sh\n${script}\nexec ${crun} "$@"\n`, { mode: 0o755 });
  const engineId = `self-test-${process.pid}`;
  try {
    const findings = await testCrun({ crun: program, directory, engineId, machine: inspectMachine() });
    assert.deepEqual(readdirSync(directory), ['crun']);
    return findings;
  } finally {
    rmSync(directory, { recursive: true });
  }
}

test('a crun that works gives the compiled seccomp profile', { skip }, async () => {
  const { failure, seccompFilter } = await testWith('');

  assert.equal(failure, undefined);
  const filter = Buffer.from(seccompFilter ?? '', 'base64');
  // struct sock_filter has 8 bytes; the first instruction of libseccomp loads the architecture.
  assert.equal(filter.length % 8, 0);
  assert.equal(filter.readUInt16LE(0), 0x20);
  assert.equal(filter.readUInt32LE(4), 4);
});

test('a crun that does not take a compiled profile is used without', { skip }, async () => {
  const refusesFilter = 'for bundle; do ! grep -qs seccomp_bpf_data "$bundle/config.json" || exit 1; done';

  assert.deepEqual(await testWith(refusesFilter), {});
  assert.deepEqual(await testWith('[ "$3" != create ] || exit 1'), {});
});

test('a crun that cannot run a container says why', { skip }, async () => {
  assert.deepEqual(await testWith('echo "no way" >&2; exit 1'), { failure: 'no way' });
});
