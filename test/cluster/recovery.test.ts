// When a cluster is lost: backup and restore, and going on alone.

import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { after, test } from 'node:test';
import { buildDemoImage } from '../../deploy/demo-image.ts';
import { eventually } from '../support/eventually.ts';
import { RealNode, whyNoRealNode } from '../support/real-node.ts';

const skip = whyNoRealNode() ?? false;
const IMAGE = 'recovery:1';
const directory = await mkdtemp(path.join(os.tmpdir(), 'tsw-backup-'));
after(() => rm(directory, { recursive: true }));

test('a cluster comes back from a backup on another machine, and runs its services', { skip }, async () => {
  const file = await makeBackup();
  await using node = await RealNode.start();
  await importImage(node);

  const restored = await node.cli('cluster', 'restore', '--advertise-addr', '127.0.0.1', file.path);

  assert.deepEqual([restored.code, restored.stderr], [0, '']);
  assert.match(restored.stdout, /^Cluster restored: current node \(\w{25}\) is now its manager\.\n$/);
  const { clusterId } = await node.node.info({});
  assert.equal(clusterId, file.clusterId);
  const services = await node.cli('service', 'ls', '--format', '{{.Name}} {{.Replicas}}');
  assert.match(services.stdout, /^kept \d\/2\n$/);
  // The machine that ran its tasks is gone: they are replaced here.
  await eventually(async () => {
    const { stdout } = await node.cli('service', 'ls', '--format', '{{.Replicas}}');
    return stdout === '2/2\n';
  }, 60_000);

  const again = await node.cli('cluster', 'restore', file.path);
  assert.equal(again.code, 1);
  assert.match(again.stderr, /already part of a cluster/);
});

test('a damaged backup is refused, and leaves the node as it was', { skip }, async () => {
  const { path: good } = await makeBackup();
  const bytes = await readFile(good);
  bytes[bytes.length - 30] = (bytes.at(-30) ?? 0) ^ 1;
  const bad = `${good}.bad`;
  await writeFile(bad, bytes);
  await using node = await RealNode.start();

  for (const [file, problem] of [
    [bad, /the backup is damaged/],
    [path.join(import.meta.dirname, 'recovery.test.ts'), /not a backup/],
    [`${good}.absent`, /FILE: .*ENOENT/],
  ] as const) {
    const { code, stderr } = await node.cli('cluster', 'restore', file);
    assert.equal(code, 1);
    assert.match(stderr, problem);
    assert.equal((await node.node.info({})).state, 'inactive');
  }
  await node.init();
});

test('a forced new cluster keeps its services and does not touch their containers', { skip }, async () => {
  await using node = await RealNode.start();
  await node.init();
  await importImage(node);
  await node.cli(
    'service',
    'create',
    '--update-monitor',
    '100ms',
    '--name',
    'kept',
    '--replicas',
    '2',
    IMAGE,
    'sleep',
    '1000',
  );
  const before = await node.cli('service', 'ps', 'kept', '-q', '--no-trunc');

  const forced = await node.cli('init', '--force-new-cluster');

  assert.deepEqual([forced.code, forced.stderr], [0, '']);
  const after = await node.cli(
    'service',
    'ps',
    'kept',
    '-q',
    '--no-trunc',
    '--filter',
    'desired-state=running',
  );
  assert.deepEqual(after.stdout.split('\n').toSorted(), before.stdout.split('\n').toSorted());
  const info = await node.node.info({});
  assert.deepEqual([info.state, info.error], ['active', '']);
});

test('a forced new cluster may be at another address', { skip }, async () => {
  await using node = await RealNode.start();
  await node.init();

  const flags = ['--advertise-addr', '127.0.0.1:4100', '--listen-addr', '127.0.0.1:4100'];
  const forced = await node.cli('init', '--force-new-cluster', ...flags);

  assert.deepEqual([forced.code, forced.stderr], [0, '']);
  assert.equal((await node.node.info({})).advertiseAddress, '127.0.0.1:4100');
  const { nodes } = await node.control.listNodes({});
  assert.equal(nodes[0]?.managerStatus?.address, '127.0.0.1:4100');
  assert.deepEqual((await node.control.getJoinTokens({})).addresses, ['127.0.0.1:4100']);
});

test('there is nothing to force on a node without a cluster', { skip }, async () => {
  await using node = await RealNode.start();

  const { code, stderr } = await node.cli('init', '--force-new-cluster');

  assert.equal(code, 1);
  assert.match(stderr, /not part of a cluster/);
});

let backups = 0;

async function importImage(node: RealNode): Promise<void> {
  await node.importImage((await buildDemoImage({ name: IMAGE })).archive);
}

async function makeBackup(): Promise<{ path: string; clusterId: string }> {
  await using node = await RealNode.start();
  await node.init();
  await importImage(node);
  await node.cli('service', 'create', '-d', '--name', 'kept', '--replicas', '2', IMAGE, 'sleep', '1000');
  const file = path.join(directory, `${++backups}.backup`);

  const { code, stderr } = await node.cli('cluster', 'backup', file);

  assert.deepEqual([code, stderr], [0, '']);
  assert.equal((await stat(file)).mode & 0o777, 0o600);
  const twice = await node.cli('cluster', 'backup', file);
  assert.match(twice.stderr, /is there already/);
  return { path: file, clusterId: (await node.node.info({})).clusterId };
}
