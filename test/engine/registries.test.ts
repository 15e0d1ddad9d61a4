// Pushing to, and credentials for, real registries: Debian's docker-registry with passwords, tokens and TLS.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { plainRegistrySettings } from '../../agent/engine/images/registry-settings.ts';
import { findExecutable } from '../../agent/engine/runtime/runtime.ts';
import { hasCode } from '../../core/errors.ts';
import { buildDemoImage } from '../../deploy/demo-image.ts';
import { missingForEngine, oneChunk, openTestEngine, runToEnd, type TestEngine } from '../support/engine.ts';
import { missingForRegistry, type RealRegistry, startRegistry } from '../support/real-registry.ts';
import { TcpProxy } from '../support/tcp-proxy.ts';
import { IDENTITY_TOKEN, PASSWORD, selfSigned, TokenServer, USERNAME } from '../support/token-server.ts';

const missingOpenssl = findExecutable('openssl') === undefined ? 'needs openssl' : false;
const credentials = { username: USERNAME, password: PASSWORD };
const wrong = { username: USERNAME, password: 'guessed' };
// More than a blob in one piece has.
const LARGE_BYTES = 40_000_000;

describe('registries', { skip: missingForEngine || missingForRegistry || missingOpenssl }, () => {
  let own: TestEngine;
  let registry: RealRegistry;
  const images = () => own.engine.images;

  before(async () => {
    own = await openTestEngine();
    registry = await startRegistry();
  });
  after(async () => {
    await own?.[Symbol.asyncDispose]();
    await registry?.[Symbol.asyncDispose]();
  });

  const removeAll = async () => {
    for (const { id } of await images().list()) await images().remove(id, { force: true });
  };
  const load = async (name: string, noise = randomBytes(1000)) => {
    const { archive } = await buildDemoImage({ name, layers: [{ noise, motd: 'pushed\n' }] });
    await images().import(oneChunk(archive));
  };
  /** Returns what became of each blob, without progress on the way. */
  const push = async (name: string, options: Parameters<TestEngine['engine']['images']['push']>[1] = {}) => {
    const statuses = new Map<string, string>();
    await images().push(name, { ...options, onProgress: ({ id, status }) => statuses.set(id, status) });
    return [...statuses.values()].sort();
  };

  test('an image is pushed, comes back as it was, and what is there is not sent again', async () => {
    const name = `${registry.host}/team/app:1`;
    await load(name);
    const before = await images().find(name);

    assert.deepEqual(await push(name), ['Pushed', 'Pushed', 'Pushed']);
    const there = Array(3).fill('Layer already exists');
    assert.deepEqual(await push(name), there);
    await images().remove(name);
    assert.deepEqual(await images().list(), []);
    await images().pull(name);
    assert.deepEqual(await images().find(name), before);
    assert.equal((await runToEnd(own.engine, { image: name, args: ['cat', '/motd'] })).stdout, 'pushed\n');
    await removeAll();
  });

  test('another repository of the registry gets the layers from the first one', async () => {
    const first = `${registry.host}/mount/one:1`;
    const second = `${registry.host}/mount/two:1`;
    await load(first);
    await push(first);
    await images().tag(first, second);

    assert.deepEqual(await push(second), ['Mounted from mount/one', 'Mounted from mount/one', 'Pushed']);
    await removeAll();
    await images().pull(second);
    await removeAll();
  });

  test('the tags of a repository are all told, page by page', async () => {
    const image = await buildDemoImage({ name: 'x' });
    await registry.push('many', 'first', image);
    const type = 'application/vnd.oci.image.manifest.v1+json';
    const tags = Array.from({ length: 230 }, (_, n) => `t-${n}`);
    for (const tag of tags) await registry.pushManifest('many', tag, image.manifest, type);

    const told = await images().tags(`${registry.host}/many`);

    assert.deepEqual([...told].sort(), ['first', ...tags].sort());
    await assert.rejects(images().tags(`${registry.host}/none`), (error) => hasCode(error, 'not-found'));
  });

  test('a large blob goes in pieces, and on where a broken connection stopped it', async () => {
    await using proxy = await TcpProxy.open(Number(registry.host.split(':')[1]));
    const name = `127.0.0.1:${proxy.port}/large:1`;
    await load(name, randomBytes(LARGE_BYTES));
    const offsets: number[] = [];
    let isBroken = false;

    await images().push(name, {
      onProgress: ({ status, currentBytes, totalBytes }) => {
        if (status !== 'Pushing' || totalBytes < LARGE_BYTES) return;
        offsets.push(currentBytes);
        if (currentBytes === 0 || isBroken) return;
        isBroken = true;
        proxy.cut();
        proxy.heal();
      },
    });

    assert.ok(isBroken);
    const after = offsets.slice(offsets.findIndex((offset) => offset > 0) + 1);
    assert.ok(after.length > 0 && after.every((offset) => offset > 0), `began anew: ${offsets}`);
    const before = await images().find(name);
    await removeAll();
    await images().pull(name);
    assert.deepEqual(await images().find(name), before);
    await removeAll();
  });

  for (const kind of ['basic', 'token'] as const)
    test(`with ${kind} authorization only who has the password may pull and push`, async () => {
      await using tokens = await TokenServer.start();
      await using guarded = await startRegistry({ auth: kind === 'basic' ? 'basic' : tokens });
      const name = `${guarded.host}/team/private:1`;
      const isDenied = (error: unknown) =>
        hasCode(error, 'permission-denied') && error.message.includes(guarded.host);
      await load(name);

      await images().check(guarded.host, credentials);
      await assert.rejects(images().check(guarded.host, wrong), isDenied);
      await assert.rejects(images().push(name), isDenied);
      await assert.rejects(images().push(name, { credentials: wrong }), isDenied);
      assert.deepEqual(await push(name, { credentials }), ['Pushed', 'Pushed', 'Pushed']);
      await images().tag(name, `${guarded.host}/team/other:1`);
      const mounted = await push(`${guarded.host}/team/other:1`, { credentials });
      assert.equal(mounted.filter((status) => status === 'Mounted from team/private').length, 2);
      await removeAll();
      await assert.rejects(images().pull(name), isDenied);
      await assert.rejects(images().pull(name, { credentials: wrong }), isDenied);
      const digest = await images().pull(name, { credentials });
      assert.equal((await images().resolve(name, { credentials })).digest, digest);
      await removeAll();
      if (kind === 'token') {
        await images().pull(name, {
          credentials: { username: '', password: '', identityToken: IDENTITY_TOKEN },
        });
        await removeAll();
        const forPush = /^repository:team\/private:(push,pull|pull,push)$/;
        assert.ok(
          tokens.scopes.some((scope) => forPush.test(scope)),
          String(tokens.scopes),
        );
      }
    });

  test('a registry with TLS is believed by its authority, or not at all', async () => {
    const directory = mkdtempSync(path.join(os.tmpdir(), 'img-tls-'));
    const tls = selfSigned(directory, 'registry');
    const other = selfSigned(directory, 'another');
    await using secure = await startRegistry({ tls });
    const engineWith = (file: string) =>
      openTestEngine({
        registries: {
          ...plainRegistrySettings,
          authorities: { [secure.host]: readFileSync(file, 'utf8') },
        },
      });
    const name = `${secure.host}/app:1`;
    await using believing = await engineWith(tls.certFile);
    await using doubting = await engineWith(other.certFile);
    const { archive } = await buildDemoImage({ name });
    for (const { engine } of [believing, doubting]) await engine.images.import(oneChunk(archive));

    await believing.engine.images.push(name);
    await assert.rejects(
      doubting.engine.images.push(name),
      (error) =>
        hasCode(error, 'unavailable') &&
        /certificate/.test(error.message) &&
        error.message.includes(secure.host),
    );
    await assert.rejects(doubting.engine.images.pull(name), (error) => hasCode(error, 'unavailable'));
    rmSync(directory, { recursive: true });
  });

  test('a mirror is asked first, and left for the registry when it has nothing or is gone', async () => {
    const mirror = await startRegistry();
    await using mirrored = await openTestEngine({
      registries: {
        ...plainRegistrySettings,
        mirrors: { [registry.host]: [`http://${mirror.host}`] },
      },
    });
    const build = (motd: string) => buildDemoImage({ name: 'x', layers: [{ motd }] });
    await registry.push('mirrored', '1', await build('from the registry\n'));
    const digest = await mirror.push('mirrored', '1', await build('from the mirror\n'));
    const only = await registry.push('mirrored', 'only', await build('only there\n'));
    const pull = (tag: string) => mirrored.engine.images.pull(`${registry.host}/mirrored:${tag}`);

    assert.equal(await pull('1'), digest);
    assert.equal(await pull('only'), only);
    await mirror[Symbol.asyncDispose]();
    assert.notEqual(await pull('1'), digest);
    await assert.rejects(pull('none'), (error) => {
      assert.ok(hasCode(error, 'not-found'));
      return (
        error.message.includes(`mirror http://${mirror.host}: `) && error.message.includes(':none not found')
      );
    });
  });
});
