// Images and registries that want to do harm: layers that reach out of their root, that grow without end, sizes and
// digests that lie, answers that never end, and registries that send us to where we must not go.

import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, afterEach, before, describe, test } from 'node:test';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import { type Header, pack } from 'tar-stream';
import { collect } from '../../agent/engine/images/blob-store.ts';
import { diskOf, usualUnpackLimits } from '../../agent/engine/images/image-disk.ts';
import { plainRegistrySettings } from '../../agent/engine/images/registry-settings.ts';
import { hasCode } from '../../core/errors.ts';
import { buildDemoImage, type DemoImage, tarOf } from '../../deploy/demo-image.ts';
import { missingForEngine, openTestEngine, runToEnd, type TestEngine } from '../support/engine.ts';
import { FakeRegistry, type FakeRegistryOptions } from '../support/fake-registry.ts';

const MIB = 2 ** 20;
const GZIP = 'application/vnd.oci.image.layer.v1.tar+gzip';
const ZSTD = 'application/vnd.oci.image.layer.v1.tar+zstd';
const PLAIN = 'application/vnd.oci.image.layer.v1.tar';
const digestOf = (bytes: Uint8Array) => `sha256:${createHash('sha256').update(bytes).digest('hex')}`;

type Entry = Partial<Header> & { readonly name: string };
type Hostile = Pick<DemoImage, 'manifest' | 'blobs'>;

async function tarOfEntries(entries: readonly (readonly [Entry, string?])[]): Promise<Buffer> {
  const tar = pack();
  for (const [header, contents] of entries) tar.entry({ mtime: new Date(0), ...header }, contents ?? '');
  tar.finalize();
  return collect(tar as AsyncIterable<Uint8Array>, 2 ** 30);
}

/** busybox, and one more layer that is as it is told. */
async function imageWith(
  layer: Buffer,
  type: string,
  change: (manifest: { config: object; layers: object[] }) => object = (manifest) => manifest,
): Promise<Hostile> {
  const base = await buildDemoImage({ name: 'x' });
  const [configDigest] = JSON.parse(base.manifest.toString()).config.digest.split(' ');
  const config = JSON.parse((base.blobs.get(configDigest) as Buffer).toString());
  const packed = type === GZIP ? gzipSync(layer) : type === ZSTD ? zstdCompressSync(layer) : layer;
  config.rootfs.diff_ids.push(digestOf(layer));
  const configBytes = Buffer.from(JSON.stringify(config));
  const manifest = JSON.parse(base.manifest.toString());
  manifest.config = { ...manifest.config, digest: digestOf(configBytes), size: configBytes.length };
  manifest.layers.push({ mediaType: type, digest: digestOf(packed), size: packed.length });
  return {
    manifest: Buffer.from(JSON.stringify(change(manifest))),
    blobs: new Map([...base.blobs, [digestOf(packed), packed], [digestOf(configBytes), configBytes]]),
  };
}

describe('hostile images', { skip: missingForEngine }, () => {
  let own: TestEngine;
  const outside = mkdtempSync(path.join(os.tmpdir(), 'img-outside-'));
  const images = () => own.engine.images;

  before(async () => {
    const limits = { ...usualUnpackLimits, ratioMax: 20, freelyBytes: 64 * MIB, periodMs: 20 };
    own = await openTestEngine({ registryStallTimeoutMs: 300, imageDisk: diskOf(os.tmpdir(), limits) });
  });
  after(async () => {
    await own?.[Symbol.asyncDispose]();
    rmSync(outside, { recursive: true });
  });
  afterEach(async () => {
    for (const { id } of await images().list()) await images().remove(id, { force: true });
  });

  /** Pulls it from a registry that does nothing wrong itself, unless told. */
  const pull = async (image: Hostile, options: FakeRegistryOptions = {}) => {
    await using registry = await FakeRegistry.start(options);
    registry.add('1', image);
    const name = `${registry.host}/app:1`;
    await images().pull(name);
    return name;
  };
  const refused = (pulling: Promise<unknown>, code: Parameters<typeof hasCode>[1], text: RegExp) =>
    assert.rejects(pulling, (error) => {
      assert.match((error as Error).message, text);
      assert.ok(hasCode(error, code), String((error as { code?: string }).code));
      return true;
    });

  test('no name in a layer leads out of the root', async () => {
    const victim = path.join(outside, 'victim');
    writeFileSync(victim, 'untouched');
    const upwards = `${'../'.repeat(30)}${victim.slice(1)}`;
    const tricks: [what: string, entries: (readonly [Entry, string?])[]][] = [
      ['..', [[{ name: upwards }, 'overwritten']]],
      ['an absolute path', [[{ name: victim }, 'overwritten']]],
      [
        'a file through a symlink',
        [[{ name: 'way', type: 'symlink', linkname: outside }], [{ name: 'way/victim' }, 'overwritten']],
      ],
      [
        'a file through a relative symlink',
        [
          [{ name: 'way', type: 'symlink', linkname: `${'../'.repeat(30)}${outside.slice(1)}` }],
          [{ name: 'way/new' }, 'written'],
        ],
      ],
      [
        'a symlink in place of its parent',
        [
          [{ name: 'd/', type: 'directory' }],
          [{ name: 'd', type: 'symlink', linkname: outside }],
          [{ name: 'd/new' }, 'written'],
        ],
      ],
      [
        'a hard link to the outside',
        [[{ name: 'hard', type: 'link', linkname: upwards }], [{ name: 'hard' }, 'overwritten']],
      ],
      [
        'a hard link through a symlink',
        [
          [{ name: 'way', type: 'symlink', linkname: outside }],
          [{ name: 'hard', type: 'link', linkname: 'way/victim' }],
        ],
      ],
      ['a whiteout of the outside', [[{ name: `${path.dirname(upwards)}/.wh.victim` }, '']]],
      [
        'a whiteout through a symlink',
        [[{ name: 'way', type: 'symlink', linkname: outside }], [{ name: 'way/.wh.victim' }, '']],
      ],
      ['a whiteout of the parent', [[{ name: 'd/.wh...' }, '']]],
      [
        'an opaque directory through a symlink',
        [[{ name: 'way', type: 'symlink', linkname: outside }], [{ name: 'way/.wh..wh..opq' }, '']],
      ],
    ];
    const snapshots = path.join(own.options.dataRoot, 'containerd');
    for (const [what, entries] of tricks) {
      const image = await imageWith(await tarOfEntries(entries), GZIP);
      const outcome = await pull(image).then(
        (name) =>
          runToEnd(own.engine, { image: name, args: ['cat', victim] }).then(
            ({ exitCode }) => `ran ${exitCode}`,
          ),
        (error: unknown) => (hasCode(error, 'invalid-argument') ? 'refused' : String(error)),
      );

      assert.match(outcome, /^(ran \d+|refused)$/, what);
      assert.equal(readFileSync(victim, 'utf8'), 'untouched', what);
      assert.deepEqual(readdirSync(outside), ['victim'], what);
      assert.ok(existsSync(snapshots), what);
    }
  });

  test('a device of an image opens nothing', async () => {
    const layer = await tarOfEntries([
      [{ name: 'dev/disk', type: 'block-device', devmajor: 8, devminor: 0, mode: 0o666 }],
      [{ name: 'memory', type: 'character-device', devmajor: 1, devminor: 1, mode: 0o666 }],
    ]);
    const name = await pull(await imageWith(layer, GZIP));

    for (const device of ['/memory', '/dev/disk'])
      assert.notEqual(
        (await runToEnd(own.engine, { image: name, args: ['head', '-c', '1', device] })).exitCode,
        0,
      );
  });

  for (const type of [GZIP, ZSTD])
    test(`a bomb of ${type.split('+')[1]} is stopped, and leaves nothing`, async () => {
      const bomb = await tarOf([['zeros', Buffer.alloc(900 * MIB)]]);
      const image = await imageWith(bomb, type);

      await refused(
        pull(image),
        'invalid-argument',
        /unpacks to more than 67108864: that is no image, but a bomb/,
      );
      assert.deepEqual(await images().list(), []);
    });

  test('a layer that the disk has no room for is not even fetched', async () => {
    const layer = await tarOf([['file', 'x']]);
    const image = await imageWith(layer, PLAIN, (manifest) => {
      const layers = manifest.layers.map((each, index) => (index === 1 ? { ...each, size: 2 ** 50 } : each));
      return { ...manifest, layers };
    });

    await refused(
      pull(image),
      'resource-exhausted',
      /layer sha256:\w+ has 1125899906842624 bytes, and there is room for \d+/,
    );
  });

  test('sizes and digests that lie are found out while the bytes come', async () => {
    const layers = await Promise.all(
      [0, 1, 2, 3, 4].map(() => tarOf([['file', randomBytes(500_000).toString('hex')]])),
    );
    const withSize = (layer: Buffer = Buffer.alloc(0), difference = 0) =>
      imageWith(layer, PLAIN, (manifest) => ({
        ...manifest,
        layers: manifest.layers.map((each, index) =>
          index === 1 ? { ...each, size: Math.max(0, layer.length + difference) } : each,
        ),
      }));
    const endless: FakeRegistryOptions['onBlob'] = (answer, bytes) => {
      if (digestOf(bytes) !== digestOf(layers[3] as Buffer)) return false;
      const send = () => {
        while (answer.writable && answer.write(bytes));
        if (answer.writable) answer.once('drain', send);
      };
      answer.writeHead(200);
      send();
      return true;
    };

    await refused(pull(await withSize(layers[0], -2 * MIB)), 'failed-precondition', /commit|digest|larger/);
    await refused(pull(await withSize(layers[1], -1)), 'failed-precondition', /larger than/);
    await refused(pull(await withSize(layers[2], 1)), 'unavailable', /broke off/);
    await refused(pull(await withSize(layers[3]), { onBlob: endless }), 'failed-precondition', /larger than/);
    const right = await pull(await withSize(layers[4]));
    assert.ok(await images().find(right));
    await refused(pull(await withSize(layers[4], 5)), 'failed-precondition', /its manifest says/);
  });

  test('a configuration that names other layers than the manifest is refused', async () => {
    const layer = await tarOf([['file', 'x']]);
    const twice = await imageWith(layer, PLAIN, ({ layers, ...rest }) => ({
      ...rest,
      layers: [...layers, ...layers],
    }));
    const wrong = await imageWith(layer, PLAIN, ({ layers, ...rest }) => ({
      ...rest,
      layers: [layers[1], layers[0]] as object[],
    }));

    await refused(pull(twice), 'invalid-argument', /differ in layers/);
    await refused(pull(wrong), 'invalid-argument', /unpacks to sha256/);
  });

  test('documents without bounds are refused', async () => {
    await using registry = await FakeRegistry.start();
    const add = (tag: string, document: unknown) =>
      registry.addManifest(
        tag,
        Buffer.from(JSON.stringify(document)),
        'application/vnd.oci.image.index.v1+json',
      );
    const entry = (digest: string, size: number) => ({
      mediaType: 'application/vnd.oci.image.index.v1+json',
      digest,
      size,
      platform: { os: 'linux', architecture: process.arch === 'arm64' ? 'arm64' : 'amd64' },
    });
    let inner = { digest: digestOf(Buffer.from('x')), size: 1 };
    for (let depth = 0; depth < 10; depth += 1) {
      const document = { schemaVersion: 2, manifests: [entry(inner.digest, inner.size)] };
      inner = { digest: add('deep', document), size: JSON.stringify(document).length };
    }
    add('huge', { schemaVersion: 2, manifests: [], annotations: { a: 'x'.repeat(5 * MIB) } });
    const descriptor = { mediaType: PLAIN, digest: inner.digest, size: 1 };
    add('layers', { schemaVersion: 2, config: descriptor, layers: Array(1000).fill(descriptor) });
    add('both', { schemaVersion: 2, manifests: [], config: descriptor, layers: [] });
    add('noise', 'x');

    const pullTag = (tag: string) => images().pull(`${registry.host}/app:${tag}`);
    await refused(pullTag('deep'), 'invalid-argument', /nested too deep/);
    await refused(pullTag('huge'), 'invalid-argument', /larger than 4194304 bytes/);
    await refused(pullTag('layers'), 'invalid-argument', /layers has more than \d+ members/);
    await refused(pullTag('both'), 'invalid-argument', /index and a manifest at once/);
    await refused(pullTag('noise'), 'invalid-argument', /no object/);
  });

  test('an archive that would fill memory or disk is refused before it does', async () => {
    const documents = pack();
    for (let n = 0; n < 30; n += 1) documents.entry({ name: `${n}.json` }, Buffer.alloc(4 * MIB, 0x20));
    documents.finalize();
    const huge = pack();
    const layer = huge.entry({ name: 'layer.tar', size: 2 ** 50 });
    layer.on('error', () => {});
    layer.write(Buffer.alloc(1000));

    await refused(
      images().import(documents as AsyncIterable<Uint8Array>),
      'invalid-argument',
      /larger than 67108864/,
    );
    await refused(
      images().import(huge as AsyncIterable<Uint8Array>),
      'resource-exhausted',
      /layer\.tar in the archive has/,
    );
  });

  test('a registry that stays silent is asked again a few times, then it is unavailable', async () => {
    const image = await imageWith(await tarOf([['file', randomBytes(100).toString('hex')]]), PLAIN);
    let asked = 0;
    const silent: FakeRegistryOptions['onBlob'] = (_, bytes) => {
      if (bytes.length < 2048 || digestOf(bytes) !== [...image.blobs.keys()].at(-2)) return false;
      asked += 1;
      return true;
    };

    await refused(pull(image, { onBlob: silent }), 'unavailable', /sent nothing for 0\.3 s/);
    assert.equal(asked, 5);
  });

  test('no registry sends us to plain HTTP elsewhere, to link-local addresses or to other protocols', async () => {
    const image = await imageWith(await tarOf([['file', 'x']]), PLAIN);
    const places: [string, RegExp][] = [
      ['http://registry.example/blob', /sends us to http:\/\/registry\.example, which is not listed/],
      ['http://169.254.169.254/latest/meta-data', /http:\/\/169\.254\.169\.254, which is not listed/],
      ['https://169.254.169.254/latest/meta-data', /169\.254\.169\.254 is link-local/],
      ['https://[fe80::1]/', /fe80::1 is link-local/],
      ['https://[::ffff:169.254.169.254]/', /link-local/],
      ['https://0.0.0.0/', /link-local/],
      ['file:///etc/shadow', /file: is not spoken here/],
      ['ftp://registry.example/', /ftp: is not spoken here/],
    ];
    for (const [place, text] of places)
      await refused(pull(image, { blobRedirect: () => place }), 'permission-denied', text);
    await refused(pull(image, { blobRedirect: () => 'http://[' }), 'failed-precondition', /no address/);
  });

  test('a mirror that lies is left, and the registry asked', async () => {
    const image = await imageWith(await tarOf([['file', randomBytes(3000).toString('hex')]]), PLAIN);
    await using registry = await FakeRegistry.start();
    await using liar = await FakeRegistry.start({
      onBlob(answer, bytes) {
        if (bytes.length < 3000) return false;
        answer.end(Buffer.alloc(bytes.length));
        return true;
      },
    });
    const digest = registry.add('1', image);
    liar.add('1', image);
    await using mirrored = await openTestEngine({
      registries: { ...plainRegistrySettings, mirrors: { [registry.host]: [`http://${liar.host}`] } },
    });

    assert.equal(await mirrored.engine.images.pull(`${registry.host}/app:1`), digest);
    assert.ok(liar.exchanges.some(({ path: asked }) => asked.includes('/blobs/')));
  });
});
