// Volumes and image mounts of real containers, also hostile ones, and what a killed process leaves of them.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { containerdPlaces } from '../../agent/engine/containerd/configuration.ts';
import { connectContainerd, SNAPSHOTTER } from '../../agent/engine/containerd/connection.ts';
import type { ContainerConfig } from '../../agent/engine/engine.ts';
import { type OpenEngineOptions, openEngine } from '../../agent/engine/open.ts';
import { hasCode } from '../../core/errors.ts';
import { emptyMount, type Mount } from '../../core/generated/objects.ts';
import {
  aContainer,
  endEngine,
  engineOptions,
  hasCrun,
  importDemoImage,
  missingForEngine,
  openTestEngine,
  runToEnd,
  type TestEngine,
} from '../support/engine.ts';

const mount = (change: Partial<Mount>): Mount => ({ ...emptyMount, target: '/data', ...change });
const tmpfsVolume = (source: string): Mount =>
  mount({
    source,
    volumeDriver: { name: 'local', options: { type: 'tmpfs', device: 'tmpfs', o: 'size=1m,noexec' } },
  });
const runtime = hasCrun ? 'crun' : 'runc';

/** What is mounted below a directory of the engine, but for what it mounts for itself. */
function mountsBelow(runDir: string): string[] {
  return readFileSync('/proc/self/mounts', 'utf8')
    .split('\n')
    .map((line) => line.split(' ')[1] ?? '')
    .filter((place) => ['mounts', 'volumes'].some((name) => place.startsWith(path.join(runDir, name))));
}

async function viewIsThere(options: OpenEngineOptions, key: string): Promise<boolean> {
  const { socketPath } = containerdPlaces(options.dataRoot, options.runDir);
  const containerd = connectContainerd(socketPath, `tsswarm-${options.engineId}`);
  try {
    await containerd.snapshots.stat({ snapshotter: SNAPSHOTTER, key });
    return true;
  } catch (error) {
    if (!hasCode(error, 'not-found')) throw error;
    return false;
  } finally {
    containerd.close();
  }
}

describe('volumes', { skip: missingForEngine }, () => {
  let own: TestEngine;
  const inside = async (
    script: string,
    mounts: readonly Mount[],
    overrides: Partial<ContainerConfig> = {},
  ) => {
    const result = await runToEnd(own.engine, { args: ['sh', '-c', script], mounts, ...overrides });
    return `${result.stdout}${result.stderr}`;
  };
  const refused = (mounts: readonly Mount[], message: RegExp) =>
    assert.rejects(own.engine.containers.create(aContainer({ mounts })), { message });
  const volume = async (name: string) =>
    (await own.engine.volumes.list()).find((candidate) => candidate.name === name);
  const dataOf = (name: string) => path.join(own.options.dataRoot, 'volumes', name, '_data');

  before(async () => {
    own = await openTestEngine({ runtime });
    await importDemoImage(own.engine);
    await importDemoImage(own.engine, {
      name: 'tools:1',
      layers: [{ 'opt/tool': 'of the image\n', 'opt/deep/file': 'deep\n' }],
      config: { Volumes: { '/cache': {} } },
    });
  });
  after(async () => {
    await own?.[Symbol.asyncDispose]();
  });

  test('a named volume keeps its data and its labels, an anonymous one goes with its container', async () => {
    const mounts = [mount({ source: 'keep', volumeLabels: { tier: 'db' } }), mount({ target: '/scratch' })];
    const config = aContainer({ mounts, image: 'tools:1' });
    await own.engine.containers.create(config);

    const all = await own.engine.volumes.list();
    assert.equal(all.length, 3);
    assert.deepEqual(all.map(({ isAnonymous }) => isAnonymous).sort(), [false, true, true]);
    for (const { usedBy } of all) assert.deepEqual(usedBy, [config.id]);
    await own.engine.containers.remove(config.id);

    assert.deepEqual(
      (await own.engine.volumes.list()).map(({ name }) => name),
      ['keep'],
    );
    assert.deepEqual((await volume('keep'))?.labels, { tier: 'db' });
    await inside('echo 1 > /data/a', mounts);
    assert.equal(await inside('ls /data /scratch', mounts), '/data:\na\n\n/scratch:\n');
  });

  test('volumes are listed, made with a name or without, and not removed while somebody has them', async () => {
    const { volumes, containers } = own.engine;
    const nameless = await volumes.create({ name: '', labels: {}, options: {} });
    assert.match(nameless.name, /^[0-9a-f]{64}$/);
    assert.equal(nameless.isAnonymous, true);
    await volumes.create({ name: 'made', labels: { a: 'b' }, options: {} });
    const config = aContainer({ mounts: [mount({ source: 'made' })] });
    await containers.create(config);

    await assert.rejects(volumes.remove('made'), {
      code: 'failed-precondition',
      message: `remove made: volume is in use by container ${config.id}`,
    });
    await containers.remove(config.id);
    await volumes.remove('made');
    await volumes.remove(nameless.name);
    await assert.rejects(volumes.remove('made'), { code: 'not-found' });
    assert.equal(existsSync(path.dirname(dataOf('made'))), false);
    await assert.rejects(volumes.create({ name: '../up', labels: {}, options: {} }), {
      code: 'invalid-argument',
    });
  });

  test('an empty volume gets what the image has there, unless told not to', async () => {
    const files = async (change: Partial<Mount>) =>
      (await inside('ls /opt', [mount({ target: '/opt', ...change })], { image: 'tools:1' })).trim();

    assert.equal(await files({ source: 'filled' }), 'deep\ntool');
    assert.equal(await files({ source: 'bare', volumeNoCopy: true }), '');
    assert.equal(await files({ source: 'bare', volumeNoCopy: true }), '');
  });

  test('a volume that a killed process has half filled is filled anew', async () => {
    const mounts = [mount({ source: 'half', target: '/opt' })];
    const image = { image: 'tools:1' };
    assert.equal(await inside('rm /opt/tool; touch /opt/own; ls /opt', mounts, image), 'deep\nown\n');
    assert.equal(await inside('ls /opt', mounts, image), 'deep\nown\n');
    const file = path.join(path.dirname(dataOf('half')), 'volume.json');
    writeFileSync(file, JSON.stringify({ ...JSON.parse(readFileSync(file, 'utf8')), isFilling: true }));
    await own.reopen();

    assert.equal(await inside('ls /opt', mounts, image), 'deep\ntool\n');
  });

  test('a part of a volume is mounted by its path, a file too', async () => {
    await own.engine.volumes.create({ name: 'parts', labels: {}, options: {} });
    mkdirSync(path.join(dataOf('parts'), 'a/b'), { recursive: true });
    writeFileSync(path.join(dataOf('parts'), 'a/b/note'), 'of a part\n');
    symlinkSync('a/b', path.join(dataOf('parts'), 'inner'));

    const read = (subpath: string, script: string) => inside(script, [mount({ source: 'parts', subpath })]);

    assert.equal(await read('a', 'cat /data/b/note'), 'of a part\n');
    assert.equal(await read('inner', 'cat /data/note'), 'of a part\n');
    assert.equal(await read('a/b/note', 'cat /data; echo more >> /data; wc -l < /data'), 'of a part\n2\n');
    assert.deepEqual(mountsBelow(own.options.runDir), []);
  });

  test('a path that leads out of its volume or image is refused', async () => {
    await own.engine.volumes.create({ name: 'hostile', labels: {}, options: {} });
    const root = dataOf('hostile');
    symlinkSync('/etc', path.join(root, 'absolute'));
    symlinkSync('../../../../../../../../etc', path.join(root, 'relative'));
    symlinkSync('/proc/self/root/etc', path.join(root, 'magic'));
    symlinkSync('loop', path.join(root, 'loop'));
    mkdirSync(path.join(root, 'plain'));

    for (const subpath of [
      'absolute',
      'relative',
      'magic',
      'loop',
      '../..',
      'plain/../../..',
      'absolute/ssh',
    ])
      await refused([mount({ source: 'hostile', subpath })], /leads out of it$/);
    await refused([mount({ source: 'hostile', subpath: 'absent' })], /cannot be opened: ENOENT$/);
    await refused([mount({ type: 'image', source: 'tools:1', subpath: '../..' })], /leads out of it$/);
    assert.deepEqual(mountsBelow(own.options.runDir), []);
    assert.deepEqual((await volume('hostile'))?.usedBy, []);
  });

  test('a volume with options is mounted for its first container and unmounted after its last', async () => {
    const [first, second] = [1, 2].map(() => aContainer({ mounts: [tmpfsVolume('fast')] }));
    assert.ok(first && second);
    const { containers } = own.engine;
    const place = path.join(own.options.runDir, 'volumes/fast');

    await containers.create(first);
    assert.deepEqual(mountsBelow(own.options.runDir), [place]);
    await containers.create(second);
    await containers.start(first.id);
    await containers.start(second.id);
    const command = (script: string) => ({ command: ['sh', '-c', script], timeoutMs: 10_000 });
    await containers.exec(first.id, command('echo shared > /data/x'));
    const seen = await containers.exec(second.id, command('cat /data/x; grep " /data " /proc/mounts'));
    assert.match(seen.output, /^shared\ntmpfs \/data tmpfs rw,noexec,relatime,size=1024k/);
    await containers.remove(first.id);
    assert.deepEqual(mountsBelow(own.options.runDir), [place]);
    await containers.remove(second.id);

    assert.deepEqual(mountsBelow(own.options.runDir), []);
    assert.deepEqual((await volume('fast'))?.options, {
      type: 'tmpfs',
      device: 'tmpfs',
      o: 'size=1m,noexec',
    });
  });

  test('a directory of the node becomes a volume by o=bind, and a mount that fails says why', async () => {
    const directory = path.join(path.dirname(own.options.dataRoot), 'outside');
    mkdirSync(directory);
    writeFileSync(path.join(directory, 'note'), 'from outside\n');
    const bound = (source: string, options: Record<string, string>) =>
      mount({ source, volumeDriver: { name: 'local', options } });

    const readOnly = bound('outside', { type: 'none', device: directory, o: 'bind,ro' });
    assert.match(await inside('cat /data/note; echo 1 > /data/x', [readOnly]), /^from outside\n.*Read-only/s);
    await refused(
      [bound('absent', { type: 'none', device: '/nowhere', o: 'bind' })],
      /^volume absent: cannot mount type "none", device "\/nowhere", o "bind": ENOENT$/,
    );
    await refused([bound('odd', { type: 'oddfs', device: 'x' })], /^volume odd: cannot mount .* ENODEV$/);
    await refused(
      [bound('outside', { type: 'tmpfs', device: 'tmpfs' })],
      /^volume outside exists with other options$/,
    );
    assert.deepEqual(mountsBelow(own.options.runDir), []);
  });

  test('another image is mounted read-only, whole or in part, and stays while it is', async () => {
    const whole = mount({ type: 'image', source: 'tools:1' });
    const part = mount({ type: 'image', source: 'tools:1', subpath: 'opt/deep', target: '/part' });
    const config = aContainer({ mounts: [whole, part] });
    const { containers, images } = own.engine;

    const text = await inside('cat /data/opt/tool /part/file; touch /data/x; touch /part/y', [whole, part]);
    assert.match(text, /^of the image\ndeep\n.*Read-only file system\n.*Read-only file system\n$/s);
    await containers.create(config);
    await assert.rejects(images.remove('tools:1'), /is used by container/);
    assert.equal(await viewIsThere(own.options, `${config.id}-view-0`), true);
    await containers.remove(config.id);

    assert.equal(await viewIsThere(own.options, `${config.id}-view-0`), false);
    assert.deepEqual(mountsBelow(own.options.runDir), []);
    await refused([mount({ type: 'image', source: 'absent:1' })], /No such image: absent:1/);
  });

  for (const killAfterMs of [0, 15, 40, 80, 160, 'when all are made'] as const)
    test(`a daemon killed while it creates containers (${killAfterMs}) leaves nothing of them`, async () => {
      const options = engineOptions({ runtime });
      let engine = await openEngine(options);
      try {
        await importDemoImage(engine);
        await importDemoImage(engine, { name: 'tools:1', layers: [{ 'opt/tool': 'of the image\n' }] });
        await engine.volumes.create({ name: 'keep', labels: {}, options: {} });
        mkdirSync(path.join(options.dataRoot, 'volumes/keep/_data/sub'));
        await engine[Symbol.asyncDispose]();
        const configs = Array.from({ length: 6 }, () =>
          aContainer({
            args: ['sh', '-c', 'cat /image/opt/tool; echo 1 > /fast/x; echo 1 > /sub/x; sleep 100'],
            mounts: [
              mount({ target: '/own' }),
              { ...tmpfsVolume('fast'), target: '/fast' },
              mount({ source: 'keep', subpath: 'sub', target: '/sub' }),
              mount({ type: 'image', source: 'tools:1', target: '/image' }),
            ],
          }),
        );

        await killWhileCreating(options, configs, killAfterMs);
        engine = await openEngine(options);
        const left = await engine.containers.list();
        for (const { id, status } of left) {
          assert.equal(status.state, 'created');
          assert.ok((await engine.containers.start(id)) > 0);
        }
        if (killAfterMs === 'when all are made') assert.equal(left.length, configs.length);
        for (const { id } of left) await engine.containers.remove(id);

        assert.deepEqual(mountsBelow(options.runDir), []);
        assert.deepEqual(readdirSync(path.join(options.runDir, 'mounts')), []);
        const names = (await engine.volumes.list()).map(({ name }) => name);
        assert.deepEqual(
          names.filter((name) => name !== 'fast'),
          ['keep'],
        );
        for (const { usedBy } of await engine.volumes.list()) assert.deepEqual(usedBy, []);
        for (const { id } of configs) assert.equal(await viewIsThere(options, `${id}-view-3`), false);
      } finally {
        await endEngine(engine, options);
      }
    });
});

async function killWhileCreating(
  options: OpenEngineOptions,
  configs: readonly ContainerConfig[],
  afterMs: number | 'when all are made',
): Promise<void> {
  const { log: _, ...plain } = options;
  const file = path.join(import.meta.dirname, '../support/engine-child.ts');
  const args = [file, JSON.stringify(plain), JSON.stringify(configs), '[]', 'create-only'];
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  const exited = once(child, 'exit');
  await once(child.stdout, 'data');
  if (afterMs === 'when all are made') await once(child.stdout, 'data');
  else await delay(afterMs);
  child.kill('SIGKILL');
  await exited;
}
