import assert from 'node:assert/strict';
import { test } from 'node:test';
import { hasCode } from '../../../core/errors.ts';
import { parseImageReference } from '../../../core/image-reference.ts';
import { testLog } from '../../../test/support/engine.ts';
import { FakeRegistry } from '../../../test/support/fake-registry.ts';
import { collect } from './blob-store.ts';
import { HttpConnections } from './http.ts';
import { digestOf } from './manifest.ts';
import { RegistryClient, type RegistryOptions } from './registry.ts';
import { plainRegistrySettings } from './registry-settings.ts';

const manifest = Buffer.from(JSON.stringify({ schemaVersion: 2, layers: [] }));
const blob = Buffer.from('0123456789'.repeat(10_000));
const image = { manifest, blobs: new Map([[digestOf(blob), blob]]) };

function clientOf(
  registry: FakeRegistry,
  connections: HttpConnections,
  overrides: Partial<RegistryOptions> = {},
): RegistryClient {
  const reference = parseImageReference(`${registry.host}/app:1`);
  return new RegistryClient({ connections, reference, log: testLog, ...overrides });
}

const credentials = { username: 'user', password: 'secret' };

for (const auth of ['basic', 'bearer'] as const) {
  test(`a registry with ${auth} authorization gets the credentials it asks for`, async () => {
    await using registry = await FakeRegistry.start({ auth });
    registry.add('1', image);
    using connections = new HttpConnections(plainRegistrySettings, 1000);

    const { digest } = await clientOf(registry, connections, { credentials }).manifest('1');

    assert.equal(digest, digestOf(manifest));
    const first = registry.exchanges.find(({ path }) => path.includes('manifests'));
    assert.equal(first?.headers.authorization, undefined, 'nothing is sent unasked');
  });

  test(`wrong credentials for ${auth} authorization are a refusal that names the image`, async () => {
    await using registry = await FakeRegistry.start({ auth });
    registry.add('1', image);
    using connections = new HttpConnections(plainRegistrySettings, 1000);
    const wrong = { username: 'user', password: 'wrong' };

    await assert.rejects(
      clientOf(registry, connections, { credentials: wrong }).manifest('1'),
      (error) =>
        hasCode(error, 'permission-denied') && /pull access denied for .*\/app:1/.test(error.message),
    );
  });
}

test('a redirected blob request does not take the authorization along', async () => {
  await using storage = await FakeRegistry.start();
  storage.add('1', image);
  await using registry = await FakeRegistry.start({
    auth: 'bearer',
    blobRedirect: (digest) => `http://${storage.host}/v2/app/blobs/${digest}`,
  });
  registry.add('1', image);
  using connections = new HttpConnections(plainRegistrySettings, 1000);
  const client = clientOf(registry, connections, { credentials });

  const bytes = await collect(client.blob(digestOf(blob), 0), 2 ** 20);

  assert.deepEqual(bytes, blob);
  assert.equal(storage.exchanges.length, 1);
  assert.equal(storage.exchanges[0]?.headers.authorization, undefined);
});

test('an unknown image is not found, with the words of the registry', async () => {
  await using registry = await FakeRegistry.start();
  using connections = new HttpConnections(plainRegistrySettings, 1000);

  await assert.rejects(
    clientOf(registry, connections).manifest('1'),
    (error) =>
      hasCode(error, 'not-found') && /manifest for .*\/app:1 not found: manifest unknown/.test(error.message),
  );
});

test('a manifest with another digest than the one asked for is refused', async () => {
  await using registry = await FakeRegistry.start();
  const wanted = digestOf('something else');
  registry.addManifest(wanted, manifest, 'application/vnd.oci.image.manifest.v1+json');
  using connections = new HttpConnections(plainRegistrySettings, 1000);

  await assert.rejects(clientOf(registry, connections).manifest(wanted), (error) =>
    hasCode(error, 'failed-precondition'),
  );
});

test('a registry that falls silent is unavailable, by name', async () => {
  await using registry = await FakeRegistry.start({
    onBlob(answer, bytes) {
      answer.writeHead(200, { 'content-length': bytes.length });
      answer.write(bytes.subarray(0, 1000));
      return true;
    },
  });
  registry.add('1', image);
  using connections = new HttpConnections(plainRegistrySettings, 100);

  await assert.rejects(
    collect(clientOf(registry, connections).blob(digestOf(blob), 0), 2 ** 20),
    (error) => hasCode(error, 'unavailable') && error.message.includes(registry.host),
  );
});

test('a registry that is not there is unavailable, by name', async () => {
  const registry = await FakeRegistry.start();
  const { host } = registry;
  await registry[Symbol.asyncDispose]();
  using connections = new HttpConnections(plainRegistrySettings, 1000);
  const reference = parseImageReference(`${host}/app:1`);

  await assert.rejects(
    new RegistryClient({ connections, log: testLog, reference }).manifest('1'),
    (error) => hasCode(error, 'unavailable') && error.message.includes(host),
  );
});

test('a download goes on from an offset, also at a server that knows no ranges', async () => {
  for (const ignoresRange of [false, true]) {
    await using registry = await FakeRegistry.start({ ignoresRange });
    registry.add('1', image);
    using connections = new HttpConnections(plainRegistrySettings, 1000);

    const bytes = await collect(clientOf(registry, connections).blob(digestOf(blob), 77_777), 2 ** 20);

    assert.deepEqual(bytes, blob.subarray(77_777));
  }
});
