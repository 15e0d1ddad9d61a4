import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import {
  parseProgramMappings,
  parseUnwrittenMappings,
  releaseOwnProgram,
  releaseProgramPages,
} from './memory.ts';

test('only read-only mappings of files are found', () => {
  const maps = `00400000-00500000 r-xp 00000000 fe:00 1234                       /usr/bin/x
00500000-00600000 rw-p 00100000 fe:00 1234                       /usr/bin/x
00600000-00700000 r--p 00200000 fe:00 1234                       /usr/bin/x
7f0000000000-7f0000001000 r--p 00000000 00:00 0                  [vvar]
`;

  assert.deepEqual(parseProgramMappings(maps), [
    { start: 0x400000n, end: 0x500000n },
    { start: 0x600000n, end: 0x700000n },
  ]);
});

test('a mapping that was written to is left alone when a process unmaps its own program', () => {
  const entry = (range: string, anonymous: number) =>
    `${range} r--p 00000000 fe:00 1234  /usr/bin/x\nSize: 4 kB\nAnonymous:      ${anonymous} kB\n`;
  const smaps = entry('00400000-00500000', 0) + entry('00500000-00600000', 8) + entry('00600000-00700000', 0);

  assert.deepEqual(
    parseUnwrittenMappings(smaps).map(({ start }) => start),
    [0x400000n, 0x600000n],
  );
});

test('a process gives back its program text and goes on', {
  skip: process.getuid?.() !== 0 && 'needs root',
}, async () => {
  const script = 'process.stdin.on("data", () => process.stdout.write("alive")); process.stdout.write("up")';
  const child = spawn(process.execPath, ['-e', script], { stdio: ['pipe', 'pipe', 'inherit'] });
  await once(child.stdout, 'data');

  assert.ok(releaseProgramPages(child.pid as number) > 0);

  assert.match(readFileSync(`/proc/${child.pid}/status`, 'utf8'), /^State:/m);
  child.stdin.write('x');
  assert.equal(String((await once(child.stdout, 'data'))[0]), 'alive');
  const exited = once(child, 'exit');
  child.kill();
  await exited;
});

test('a process that unmaps its own machine code goes on running, with less of it resident', () => {
  const residentKb = () => Number(/^RssFile:\s+(\d+)/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1]);
  const before = residentKb();

  releaseOwnProgram();

  assert.ok(residentKb() < before);
  assert.equal(JSON.parse(JSON.stringify({ still: 'running' })).still, 'running');
});
