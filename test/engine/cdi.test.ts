// Devices that vendors describe in files of the machine.

import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, test } from 'node:test';
import { CDI_DIRECTORIES } from '../../agent/engine/containers/cdi.ts';
import { onEachRuntime, runToEnd } from '../support/engine.ts';

const root = mkdtempSync(path.join(tmpdir(), 'er-cdi-'));
const lasting = path.join(root, 'etc');
const running = path.join(root, 'run');
for (const directory of [lasting, running]) mkdirSync(directory);
after(() => rmSync(root, { recursive: true }));

writeFileSync(path.join(root, 'library.so'), 'of the vendor\n');
writeFileSync(
  path.join(lasting, 'vendor.json'),
  JSON.stringify({
    cdiVersion: '0.6.0',
    kind: 'vendor.com/gpu',
    containerEdits: {
      env: ['VENDOR=all'],
      mounts: [
        { hostPath: path.join(root, 'library.so'), containerPath: '/usr/lib/library.so', options: ['ro'] },
      ],
      hooks: [
        {
          hookName: 'createRuntime',
          path: '/bin/sh',
          args: ['sh', '-c', `cat > ${path.join(root, 'state')}; echo $WHO > ${path.join(root, 'hooked')}`],
          env: ['WHO=hook', 'PATH=/usr/bin:/bin'],
        },
      ],
    },
    devices: [
      {
        name: '0',
        containerEdits: {
          env: ['GPU=0'],
          deviceNodes: [{ path: '/dev/vendor0', hostPath: '/dev/null', permissions: 'rw', fileMode: 0o660 }],
        },
      },
      { name: 'gone', containerEdits: { deviceNodes: [{ path: '/dev/no-such-device' }] } },
      { name: 'twice', containerEdits: { env: ['FROM=etc'] } },
      { name: 'strange', containerEdits: { intelRdt: { closID: 'x' } } },
    ],
  }),
);
writeFileSync(path.join(lasting, 'broken.json'), '{');
writeFileSync(
  path.join(running, 'vendor.yaml'),
  `cdiVersion: "0.6.0"
kind: vendor.com/gpu
devices:
  - name: twice
    containerEdits:
      env: ["FROM=run"]
`,
);

const device = (name: string) => ({ pathOnHost: name, pathInContainer: name, permissions: '' });

onEachRuntime(
  'devices of vendors',
  (own) => {
    const run = (names: readonly string[], script: string) =>
      runToEnd(own().engine, { devices: names.map(device), args: ['sh', '-c', script], user: '1000:1000' });

    test('a container gets what is written of a device: files, variables, mounts and hooks', async () => {
      const { exitCode, stdout, stderr } = await run(
        ['vendor.com/gpu=0'],
        `echo $VENDOR $GPU; stat -c '%t:%T %a %u:%g' /dev/vendor0; cat /usr/lib/library.so
         echo x > /dev/vendor0 && echo written; echo x 2>/dev/null > /usr/lib/library.so || echo read-only
         [ -e /dev/vendor1 ] || echo no other`,
      );

      assert.equal(stderr, '');
      assert.equal(stdout, 'all 0\n1:3 660 1000:1000\nof the vendor\nwritten\nread-only\nno other\n');
      assert.equal(exitCode, 0);
      assert.equal(readFileSync(path.join(root, 'hooked'), 'utf8'), 'hook\n');
      rmSync(path.join(root, 'hooked'));
    });

    test('what the machine describes while it runs counts more than what it keeps', async () => {
      const { stdout } = await run(['vendor.com/gpu=twice'], 'echo $FROM $VENDOR');

      assert.equal(stdout, 'run\n');
    });

    for (const [name, message] of [
      [
        'vendor.com/gpu=9',
        /has no vendor\.com\/gpu=9: .*vendor\.json has 0, gone, twice, strange; .*vendor\.yaml has twice; .*broken\.json cannot be read/,
      ],
      ['other.org/nic=0', /no file in .*etc or .*run describes other\.org\/nic/],
      ['vendor.com/gpu=gone', /vendor\.json of node \S+: device node \/dev\/no-such-device does not exist/],
      ['vendor.com/gpu=strange', /vendor\.json of node \S+: containerEdits\.intelRdt is not supported/],
    ] as const)
      test(`${name} is refused with the file that is in the way`, async () => {
        await assert.rejects(run([name], 'true'), { code: 'failed-precondition', message });
      });
  },
  { cdiDirectories: [lasting, running] },
);

test('the files of the machine are where vendors put them', () => {
  assert.deepEqual(CDI_DIRECTORIES, ['/etc/cdi', '/var/run/cdi']);
});
