import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseMountInfo } from './containerd/mounts.ts';
import { parseProcessStat } from './containerd/supervisor.ts';
import {
  boundingCapabilities,
  hasCapability,
  machineWarnings,
  parseHardLimits,
  parseOpenFilesLimit,
} from './machine.ts';

test('a process is told by pid and start time, whatever its name is', () => {
  const fields = 'S 1 2 3 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 8 0 137905 3133440 407';

  assert.deepEqual(parseProcessStat(`4884 (a) b (c) ${fields}`), {
    pid: 4884,
    state: 'S',
    startTime: '137905',
  });
  for (const text of [undefined, '', 'x', '1 (short) S 1 2']) assert.equal(parseProcessStat(text), undefined);
});

test('mount points are read with their flags and propagation', () => {
  const text = `41 31 0:38 / /sys/fs/cgroup rw,relatime - cgroup2 cgroup2 rw
42 27 254:0 /run/x /run/with\\040blank rw shared:7 master:2 - ext4 /dev/vda rw
`;

  assert.deepEqual(parseMountInfo(text), [
    { path: '/sys/fs/cgroup', isShared: false, flags: ['rw', 'relatime'] },
    { path: '/run/with blank', isShared: true, flags: ['rw'] },
  ]);
});

test('the hard limit of open files and capabilities are read', () => {
  const limits = (hard: string) =>
    `Limit  Soft Limit  Hard Limit  Units\nMax open files            1024  ${hard}  files\n`;

  assert.equal(parseOpenFilesLimit(limits('20000')), 20_000);
  assert.equal(parseOpenFilesLimit(limits('unlimited')), Number.MAX_SAFE_INTEGER);
  assert.equal(hasCapability('CapEff:\t000001fffeffffff\n', 24n), false);
  assert.equal(hasCapability('CapEff:\t000001fffeffffff\n', 21n), true);
});

test('an operator is told what a machine lacks', () => {
  const good = {
    isHybrid: false,
    hasSwapAccounting: true,
    hasSysResource: true,
    openFilesMax: 1,
    kernel: '6.1.0',
  } as const;

  assert.deepEqual(machineWarnings(good), []);
  const poor = { ...good, isHybrid: true, hasSwapAccounting: false, hasSysResource: false, kernel: '5.10.0' };
  assert.equal(machineWarnings(poor).length, 4);
});

test('limits and the bounding set of a process are read from its status', () => {
  const limits =
    'Max processes             96365                96365                processes \nMax file locks            unlimited            unlimited            locks     \nMax nice priority         0                    3                    \n';

  assert.deepEqual(parseHardLimits(limits), { nproc: 96_365, nice: 3 });
  assert.deepEqual(boundingCapabilities('CapBnd:\t0000000000000005\n'), ['CAP_CHOWN', 'CAP_DAC_READ_SEARCH']);
});
