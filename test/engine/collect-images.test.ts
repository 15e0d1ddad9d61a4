// Which images are removed, by hand, by age and when the disk fills up, and which never are.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, afterEach, before, describe, test } from 'node:test';
import { gunzipSync, gzipSync, zstdCompressSync } from 'node:zlib';
import type { ImageSelection } from '../../agent/engine/engine.ts';
import type { RemovalReason } from '../../agent/engine/images/collector.ts';
import { DAY_MS } from '../../agent/engine/images/collector.ts';
import { type DiskUse, usualUnpackLimits } from '../../agent/engine/images/image-disk.ts';
import type { EngineImages } from '../../agent/engine/images/images.ts';
import { hasCode } from '../../core/errors.ts';
import { buildDemoImage, tarOf } from '../../deploy/demo-image.ts';
import {
  aContainer,
  missingForEngine,
  oneChunk,
  openTestEngine,
  runToEnd,
  type TestEngine,
} from '../support/engine.ts';
import { FakeRegistry } from '../support/fake-registry.ts';

const GIB = 2 ** 30;
const all: ImageSelection = { all: true, untilMs: 0, labels: [], withoutLabels: [] };

describe('images that nobody needs', { skip: missingForEngine }, () => {
  let own: TestEngine;
  let registry: FakeRegistry;
  let wanted: string[] | undefined = [];
  let disk: DiskUse = { totalBytes: 100 * GIB, freeBytes: 90 * GIB };
  const removed: RemovalReason[] = [];
  const images = () => own.engine.images as EngineImages;
  const names = async () =>
    (await images().list()).flatMap(({ tags, digests }) => (tags.length > 0 ? tags : digests)).sort();
  const nameOf = (tag: string) => `${registry.host}/app:${tag}`;

  before(async () => {
    registry = await FakeRegistry.start();
    own = await openTestEngine({
      wantedImages: () => wanted,
      onImageRemoved: (reason) => {
        removed.push(reason);
        // Each image frees some of it.
        disk = { ...disk, freeBytes: disk.freeBytes + 4 * GIB };
      },
      imageDisk: { limits: usualUnpackLimits, measure: async () => disk },
      imagePolicy: { keepMs: 30 * DAY_MS, highPercent: 85, lowPercent: 80 },
    });
  });
  after(async () => {
    await own?.[Symbol.asyncDispose]();
    await registry?.[Symbol.asyncDispose]();
  });
  afterEach(async () => {
    wanted = [];
    disk = { totalBytes: 100 * GIB, freeBytes: 90 * GIB };
    removed.length = 0;
    for (const { id } of await own.engine.containers.list()) await own.engine.containers.remove(id);
    for (const { id } of await images().list()) await images().remove(id, { force: true });
  });

  const pull = async (tag: string, labels: Record<string, string> = {}) => {
    registry.add(
      tag,
      await buildDemoImage({
        name: 'x',
        config: { Labels: labels },
        layers: [{ tag, noise: randomBytes(100) }],
      }),
    );
    await images().pull(nameOf(tag));
  };
  const sweepIn = (ms: number) => images().collector.sweep(Date.now() + ms);

  test('by hand all go but those of containers and services, and those that filters spare', async () => {
    for (const tag of ['container', 'service', 'old', 'kept'])
      await pull(tag, tag === 'kept' ? { keep: 'yes' } : {});
    await images().pull(
      `${registry.host}/app@${registry.add('d', await buildDemoImage({ name: 'x', layers: [{ d: '1' }] }))}`,
    );
    await own.engine.containers.create(aContainer({ image: nameOf('container') }));
    wanted = [nameOf('service')];

    const dangling = await images().prune({ ...all, all: false });
    const young = await images().prune({ ...all, untilMs: -1 });
    const pruned = await images().prune({ ...all, withoutLabels: ['keep'] });

    assert.equal(dangling.deleted.length, 1, 'what has no tag');
    assert.deepEqual(young.deleted, [], 'made before 1970');
    assert.deepEqual(pruned.untagged, [nameOf('old')]);
    assert.ok(pruned.reclaimedBytes > 100, String(pruned.reclaimedBytes));
    assert.deepEqual(await names(), [nameOf('container'), nameOf('kept'), nameOf('service')].sort());
    assert.deepEqual((await images().prune({ ...all, labels: ['keep=no'] })).deleted, []);
    assert.deepEqual((await images().prune({ ...all, labels: ['keep=yes'] })).untagged, [nameOf('kept')]);
  });

  test('what was not used for long goes by itself, unless somebody brought it here by hand', async () => {
    for (const tag of ['unused', 'wanted', 'used']) await pull(tag);
    await images().import(oneChunk((await buildDemoImage({ name: 'loaded:1' })).archive));
    await own.engine.containers.create(aContainer({ image: nameOf('used') }));
    wanted = [nameOf('wanted')];

    await sweepIn(29 * DAY_MS);
    assert.deepEqual(removed, []);
    await sweepIn(31 * DAY_MS);
    assert.deepEqual(removed, ['not used']);
    assert.deepEqual(await names(), ['loaded:1', nameOf('used'), nameOf('wanted')].sort());
  });

  test('on a full disk the longest unused go first, until there is room, and no image in use', async () => {
    for (const tag of ['a', 'b', 'c', 'service']) await pull(tag);
    wanted = [nameOf('service')];
    disk = { ...disk, freeBytes: 14 * GIB };

    await sweepIn(0);
    assert.deepEqual(removed, [], 'whoever brought it is about to use it');
    await sweepIn(DAY_MS);

    assert.deepEqual(removed, ['disk pressure', 'disk pressure']);
    assert.deepEqual(await names(), [nameOf('c'), nameOf('service')]);
    disk = { ...disk, freeBytes: 0 };
    await sweepIn(DAY_MS);
    assert.deepEqual(await names(), [nameOf('service')]);
  });

  test('nothing goes while it is not known what services need', async () => {
    await pull('a');
    wanted = undefined;
    disk = { ...disk, freeBytes: 0 };

    await sweepIn(365 * DAY_MS);

    assert.deepEqual(await names(), [nameOf('a')]);
  });

  test('a pull under way loses none of its layers to a removal', async () => {
    await pull('first');
    const shared = await buildDemoImage({ name: 'x', layers: [{ noise: randomBytes(100) }] });
    registry.add('second', shared);

    const pulling = images().pull(nameOf('second'), {
      onProgress: ({ status }) => {
        if (status === 'Already exists' || status === 'Extracting') void images().prune(all);
      },
    });

    await pulling;
    await own.engine.containers.create(aContainer({ image: nameOf('second') }));
    assert.ok((await names()).includes(nameOf('second')));
  });

  test('when an image was used last is known after a restart', async () => {
    await pull('old');
    await sweepIn(0);
    await own.reopen();

    await sweepIn(29 * DAY_MS);
    assert.deepEqual(await names(), [nameOf('old')]);
    await sweepIn(31 * DAY_MS);
    assert.deepEqual(await names(), []);
  });

  test('a root file system becomes an image, whatever it is compressed with', async () => {
    const busybox = await buildDemoImage({ name: 'x' });
    const base = [...busybox.blobs.values()].at(-1) as Buffer;
    const files = gunzipSync(base);
    for (const [name, archive] of [
      ['plain', files],
      ['gzip', base],
      ['zstd', zstdCompressSync(files)],
    ] as const) {
      const id = await images().create(oneChunk(archive), {
        reference: `root:${name}`,
        message: 'made by hand',
        changes: ['CMD ["cat", "/etc/group"]', 'ENV A=b', 'WORKDIR /tmp'],
      });
      const details = await images().inspect(`root:${name}`);
      const configuration = JSON.parse(Buffer.from(details.configuration).toString('utf8'));
      assert.equal(details.summary.id, id);
      assert.deepEqual(configuration.config, {
        Cmd: ['cat', '/etc/group'],
        Env: ['A=b'],
        WorkingDir: '/tmp',
      });
      assert.equal(configuration.history[0].comment, 'made by hand');
      assert.ok((details.layers[0]?.unpackedBytes ?? 0) > 500_000);
      const { stdout } = await runToEnd(own.engine, { image: `root:${name}`, args: [] });
      assert.match(stdout, /^root:x:0:\n/);
    }
    await images().create(oneChunk(await tarOf([['file', 'x']])), {});
    assert.match((await names()).join(' '), /unnamed@sha256:/);
    for (const archive of [
      randomBytes(5000),
      gzipSync(randomBytes(5000)),
      Buffer.from([0x1f, 0x8b, 0, 0, 1]),
    ])
      await assert.rejects(images().create(oneChunk(archive), { reference: 'bad:1' }), (error) =>
        hasCode(error, 'invalid-argument'),
      );
    assert.equal(await images().find('bad:1'), undefined);
  });
});
