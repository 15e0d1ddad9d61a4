import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { after, before, describe, test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { collect } from '../../agent/engine/images/blob-store.ts';
import { machinePlatform } from '../../agent/engine/images/manifest.ts';
import { hasCode } from '../../core/errors.ts';
import { buildDemoImage, type DemoImage, tarOf } from '../../deploy/demo-image.ts';
import {
  aContainer,
  missingForEngine,
  oneChunk,
  openTestEngine,
  runToEnd,
  type TestEngine,
} from '../support/engine.ts';
import { eventually } from '../support/eventually.ts';
import { FakeRegistry } from '../support/fake-registry.ts';
import { missingForRegistry, type RealRegistry, startRegistry } from '../support/real-registry.ts';

const digestOf = (bytes: Uint8Array) => `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
const ARCHIVE_BYTES_MAX = 2 ** 30;

describe('images', { skip: missingForEngine || missingForRegistry }, () => {
  let own: TestEngine;
  let registry: RealRegistry;
  let image: DemoImage;
  const images = () => own.engine.images;

  before(async () => {
    own = await openTestEngine({ registryStallTimeoutMs: 500 });
    registry = await startRegistry();
    image = await buildDemoImage({ name: 'demo:1', layers: [{ motd: 'hello\n' }, { motd: 'again\n' }] });
  });
  after(async () => {
    await own?.[Symbol.asyncDispose]();
    await registry?.[Symbol.asyncDispose]();
  });

  const removeAll = async () => {
    for (const { id } of await images().list()) await images().remove(id);
  };

  test('an image is pulled by tag and by digest, found by any of its names, and runs', async () => {
    const digest = await registry.push('team/app', 'one', image);
    const name = `${registry.host}/team/app:one`;

    assert.deepEqual(await images().resolve(name), {
      digest,
      platforms: [{ os: 'linux', architecture: machinePlatform().architecture }],
    });
    assert.equal(await images().pull(name), digest);
    const found = await images().find(name);
    assert.deepEqual(found?.tags, [name]);
    assert.deepEqual(found?.digests, [`${registry.host}/team/app@${digest}`]);
    for (const other of [
      `${name}@${digest}`,
      `${registry.host}/team/app@${digest}`,
      found?.id ?? '',
      found?.id.slice(7, 19) ?? '',
    ])
      assert.deepEqual(await images().find(other), found, other);
    assert.equal(await images().find(`${registry.host}/team/app:two`), undefined);
    assert.equal((await runToEnd(own.engine, { image: name, args: ['cat', '/motd'] })).stdout, 'again\n');
    assert.deepEqual(await images().remove(name), { untagged: [name], deleted: [found?.id] });
    assert.equal(await images().pull(`${registry.host}/team/app@${digest}`), digest);
    assert.deepEqual((await images().list())[0]?.tags, []);
    await removeAll();
  });

  test('of an index the entry for the platform is taken', async () => {
    const other = await buildDemoImage({
      name: 'x',
      architecture: 'riscv64',
      config: { Labels: { made: 'elsewhere' } },
    });
    const entry = (bytes: Buffer, os: string, architecture: string) => ({
      mediaType: 'application/vnd.oci.image.manifest.v1+json',
      digest: digestOf(bytes),
      size: bytes.length,
      platform: { os, architecture },
    });
    await registry.push('multi', 'a', image);
    await registry.push('multi', 'b', other);
    const { architecture } = machinePlatform();
    const manifests = [
      entry(other.manifest, 'linux', 'riscv64'),
      entry(image.manifest, 'linux', architecture),
      entry(other.manifest, 'unknown', 'unknown'),
    ];
    const index = Buffer.from(JSON.stringify({ schemaVersion: 2, manifests }));
    const digest = await registry.pushManifest(
      'multi',
      'all',
      index,
      'application/vnd.oci.image.index.v1+json',
    );
    const name = `${registry.host}/multi:all`;

    assert.equal(await images().pull(name), digest);
    assert.equal((await images().find(name))?.labels['made'], undefined);
    const { platforms } = await images().resolve(name);
    assert.deepEqual(
      platforms.map((item) => item.architecture),
      ['riscv64', architecture],
    );
    assert.equal(await images().pull(name, { platform: 'linux/riscv64' }), digest);
    assert.equal((await images().find(name))?.labels['made'], 'elsewhere');
    await assert.rejects(
      images().pull(name, { platform: 'linux/s390x' }),
      (error) => hasCode(error, 'not-found') && /no matching manifest for linux\/s390x/.test(error.message),
    );

    const platform = 'linux/riscv64';
    const refused = {
      code: 'not-found',
      message: /was found but does not provide the specified platform \(linux\/s390x\)/,
    };
    for (const call of [
      () => images().inspect(name, { platform: 'linux/s390x' }),
      () => images().remove(name, { platform: 'linux/s390x' }),
      () => images().push(name, { platform: 'linux/s390x' }),
      () => collect(images().export([name], { platform: 'linux/s390x' }), ARCHIVE_BYTES_MAX),
    ])
      await assert.rejects(call, refused);
    assert.equal((await images().inspect(name, { platform })).summary.labels['made'], 'elsewhere');
    const archive = await collect(images().export([name], { platform }), ARCHIVE_BYTES_MAX);
    await images().remove(name, { platform });
    // It has the one that was asked for, of all that its index names; the other is there until containerd has collected it.
    await eventually(async () => {
      const [imported] = await images()
        .import(oneChunk(archive), { platform: `linux/${architecture}` })
        .catch(() => []);
      if (imported !== undefined) await images().remove(imported);
      return imported === undefined;
    });
    assert.deepEqual(await images().import(oneChunk(archive), { platform }), [name]);
    assert.equal((await images().find(name))?.labels['made'], 'elsewhere');
    await removeAll();
    await assert.rejects(images().import(oneChunk(image.archive), { platform }), { code: 'not-found' });
    assert.deepEqual(await images().list(), []);
  });

  test('a missing image is not found', async () => {
    await assert.rejects(images().pull(`${registry.host}/team/none:1`), (error) =>
      hasCode(error, 'not-found'),
    );
  });

  test('two pulls at once share the work, and progress is told', async () => {
    await using fake = await FakeRegistry.start();
    const digest = fake.add('1', await buildDemoImage({ name: 'x', layers: [{ noise: randomBytes(1000) }] }));
    const statuses = new Set<string>();

    const both = await Promise.all([
      images().pull(`${fake.host}/app:1`, { onProgress: ({ status }) => statuses.add(status) }),
      images().pull(`${fake.host}/app:1`),
    ]);

    assert.deepEqual(both, [digest, digest]);
    assert.equal(fake.exchanges.filter(({ path }) => path === '/v2/app/manifests/1').length, 1);
    for (const status of ['Download complete', 'Extracting', 'Pull complete'])
      assert.ok(statuses.has(status), status);
    await removeAll();
  });

  test('broken and stalled downloads go on where they stopped', async () => {
    const offsets: number[] = [];
    await using fake = await FakeRegistry.start({
      onBlob(answer, bytes, offset) {
        if (bytes.length < 3_000_000 || offsets.length >= 3) return false;
        offsets.push(offset);
        answer.writeHead(offset > 0 ? 206 : 200, { 'content-length': bytes.length - offset });
        const part = bytes.subarray(offset, offset + 1_200_000);
        // Breaks off, then stalls.
        if (offsets.length % 2 === 1) answer.write(part, () => answer.destroy());
        else answer.write(part);
        return true;
      },
    });
    const big = await buildDemoImage({ name: 'x', layers: [{ noise: randomBytes(4_000_000) }] });
    const digest = fake.add('1', big);

    assert.equal(await images().pull(`${fake.host}/app:1`), digest);
    assert.equal(offsets[0], 0);
    assert.ok((offsets[1] as number) >= 2 ** 20, `resumed at ${offsets}`);
    assert.ok((offsets[2] as number) > (offsets[1] as number), `resumed at ${offsets}`);
    await removeAll();
  });

  for (const size of [600_000, 3_000_000])
    test(`a blob of ${size} other bytes than its digest says is refused, and the right one is taken later`, async () => {
      let isLying = true;
      await using fake = await FakeRegistry.start({
        onBlob(answer, bytes) {
          if (!isLying || bytes.length < 500_000) return false;
          answer.end(Buffer.alloc(bytes.length));
          return true;
        },
      });
      const noise = await buildDemoImage({ name: 'x', layers: [{ noise: randomBytes(size) }] });
      const digest = fake.add('1', noise);

      await assert.rejects(images().pull(`${fake.host}/app:1`), (error) =>
        hasCode(error, 'failed-precondition'),
      );
      isLying = false;
      assert.equal(await images().pull(`${fake.host}/app:1`), digest);
      await removeAll();
    });

  test('a pull that is given up ends at once', async () => {
    await using fake = await FakeRegistry.start({ onBlob: () => true });
    fake.add('1', await buildDemoImage({ name: 'x', layers: [{ noise: randomBytes(1000) }] }));
    const stop = new AbortController();
    const pulling = images().pull(`${fake.host}/app:1`, { signal: stop.signal });
    setImmediate(() => stop.abort());

    await assert.rejects(pulling, { name: 'AbortError' });
  });

  test('an archive comes back as it was exported, plain and gzipped', async () => {
    await images().import(oneChunk(image.archive));
    const before = await images().find('demo:1');
    const archive = await collect(images().export(['demo:1']), ARCHIVE_BYTES_MAX);
    await images().remove('demo:1');
    assert.deepEqual(await images().list(), []);

    for (const bytes of [archive, gzipSync(archive)]) {
      assert.deepEqual(await images().import(oneChunk(bytes)), ['demo:1']);
      assert.deepEqual(await images().find('demo:1'), before);
      assert.equal((await runToEnd(own.engine, { args: ['cat', '/motd'] })).stdout, 'again\n');
      await images().remove('demo:1');
    }
  });

  test("an archive in Docker's older layout is taken", async () => {
    const layer = await tarOf([['motd', 'from docker save\n']]);
    const config = Buffer.from(
      JSON.stringify({
        os: 'linux',
        architecture: 'amd64',
        rootfs: { type: 'layers', diff_ids: [digestOf(layer), digestOf(layer)] },
      }),
    );
    const { default: tar } = { default: await import('tar-stream') };
    const pack = tar.pack();
    pack.entry({ name: 'abc/layer.tar' }, layer);
    pack.entry({ name: 'def/layer.tar', type: 'symlink', linkname: '../abc/layer.tar' });
    pack.entry({ name: 'cfg.json' }, config);
    pack.entry(
      { name: 'manifest.json' },
      JSON.stringify([
        { Config: 'cfg.json', RepoTags: ['old:1', 'old:2'], Layers: ['abc/layer.tar', 'def/layer.tar'] },
      ]),
    );
    pack.finalize();

    const names = await images().import(pack as AsyncIterable<Uint8Array>);

    assert.deepEqual(names, ['old:1', 'old:2']);
    assert.equal((await images().find('old:2'))?.id, digestOf(config));
    assert.deepEqual(await images().remove('old:1'), { untagged: ['old:1'], deleted: [] });
    await removeAll();
  });

  test('what is no image archive, or a hostile one, is refused and leaves nothing', async () => {
    const claimed = digestOf(Buffer.from('something else')).slice(7);
    const lying = await tarOf([[`blobs/sha256/${claimed}`, 'not it']]);
    const endless = await tarOf([['manifest.json', `["${'x'.repeat(5_000_000)}"]`]]);
    const table: [what: string, bytes: Buffer][] = [
      ['noise', randomBytes(5000)],
      ['empty', Buffer.alloc(0)],
      ['no manifest', await tarOf([['hello', 'x']])],
      ['huge document', endless],
      [
        'missing layer',
        await tarOf([
          ['manifest.json', '[{"Config":"c.json","Layers":["l.tar"]}]'],
          ['c.json', '{}'],
        ]),
      ],
      [
        'not JSON',
        await tarOf([
          ['index.json', '{'],
          ['oci-layout', '{}'],
        ]),
      ],
    ];
    for (const [what, bytes] of table)
      await assert.rejects(
        images().import(oneChunk(bytes)),
        (error) => hasCode(error, 'invalid-argument'),
        what,
      );
    await assert.rejects(images().import(oneChunk(lying)), (error) => hasCode(error, 'failed-precondition'));
    assert.deepEqual(await images().list(), []);
  });

  test('an image that a container uses is removed only by force', async () => {
    await images().import(oneChunk(image.archive));
    const config = aContainer();
    await own.engine.containers.create(config);

    await assert.rejects(
      images().remove('demo:1'),
      (error) => hasCode(error, 'failed-precondition') && error.message.includes(config.id),
    );
    await images().remove('demo:1', { force: true });
    await own.engine.containers.start(config.id);
    await own.engine.containers.remove(config.id);
    await assert.rejects(images().remove('demo:1'), (error) => hasCode(error, 'not-found'));
  });
});
