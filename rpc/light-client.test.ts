// The light client against the real server: each shape of call, each way that a call can end.

import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { hasCode, SwarmError } from '../core/errors.ts';
import { emptyInfoResponse, NodeControlService } from '../proto/generated/node.ts';
import { createLightClient, openLightChannel } from './light-client.ts';
import { type Handlers, RpcServer } from './server.ts';

const BIG = 3 * 2 ** 20;

async function serve(handlers: Partial<Handlers<typeof NodeControlService>>) {
  const directory = await mkdtemp(path.join(os.tmpdir(), 'tsw-light-'));
  const socket = path.join(directory, 'a.sock');
  const server = new RpcServer();
  server.add(NodeControlService, handlers as Handlers<typeof NodeControlService>);
  await server.listen(socket, 0o600);
  const channel = openLightChannel(socket);
  return {
    server,
    client: createLightClient(NodeControlService, channel),
    [Symbol.asyncDispose]: async () => {
      channel.close();
      server.stop();
      await rm(directory, { recursive: true });
    },
  };
}

test('a unary call brings its answer, and calls share a connection', async () => {
  await using rpc = await serve({ info: () => ({ ...emptyInfoResponse, version: 'ü', images: 2 ** 40 }) });

  const answers = await Promise.all([rpc.client.info({}), rpc.client.info({})]);

  assert.deepEqual(
    answers.map(({ version, images }) => [version, images]),
    [
      ['ü', 2 ** 40],
      ['ü', 2 ** 40],
    ],
  );
});

test('an error keeps its code, message and hint', async () => {
  await using rpc = await serve({
    info: () => {
      throw new SwarmError('failed-precondition', 'größer als 100%\nnext line', { hint: 'try → that' });
    },
  });

  await assert.rejects(
    () => rpc.client.info({}),
    (error) =>
      hasCode(error, 'failed-precondition') &&
      error.message === 'größer als 100%\nnext line' &&
      error.hint === 'try → that',
  );
});

test('a server stream brings all messages, large ones too, then its error', async () => {
  await using rpc = await serve({
    async *exportImages({ references }) {
      yield { data: Buffer.alloc(BIG, 1) };
      yield { data: Buffer.from('small') };
      if (references.length > 0) throw new SwarmError('not-found', 'no such image');
    },
  });
  const sizes: number[] = [];

  for await (const { data } of rpc.client.exportImages({ references: [], platform: '' }))
    sizes.push(data.length);
  const failing = async () => {
    for await (const { data } of rpc.client.exportImages({ references: ['a'], platform: '' }))
      sizes.push(data.length);
  };

  await assert.rejects(failing, (error) => hasCode(error, 'not-found'));
  assert.deepEqual(sizes, [BIG, 5, BIG, 5]);
});

test('leaving a server stream ends the call on the server', async () => {
  const ended = Promise.withResolvers<void>();
  await using rpc = await serve({
    async *pullImage(_request, { signal }) {
      signal.addEventListener('abort', () => ended.resolve());
      for (;;) {
        yield { id: 'a', status: 's', currentBytes: 0, totalBytes: 0, digest: '' };
        await new Promise((resolve) => setImmediate(resolve));
      }
    },
  });

  for await (const _ of rpc.client.pullImage({ reference: 'a', platform: '' })) break;

  await ended.promise;
});

test('a client stream sends everything and brings the answer', async () => {
  await using rpc = await serve({
    importImages: async (requests) => {
      let size = 0;
      for await (const { data } of requests) size += data.length;
      return { names: [String(size)] };
    },
  });

  const call = rpc.client.importImages();
  for (let count = 0; count < 20; count++)
    await call.send({ reference: '', platform: '', data: Buffer.alloc(2 ** 20) });
  call.end();

  assert.deepEqual(await call.response, { names: [String(20 * 2 ** 20)] });
});

test('a client stream that the server refuses ends the sending', async () => {
  await using rpc = await serve({
    importImages: async () => {
      throw new SwarmError('invalid-argument', 'no archive');
    },
  });
  const call = rpc.client.importImages();

  const sending = (async () => {
    for (;;) await call.send({ reference: '', platform: '', data: Buffer.alloc(2 ** 20) });
  })();

  await Promise.all([
    assert.rejects(sending, SwarmError),
    assert.rejects(call.response, (error) => hasCode(error, 'invalid-argument')),
  ]);
});

test('time limits and signals end a call', async () => {
  await using rpc = await serve({ info: () => new Promise(() => {}) });
  const stopped = new AbortController();

  const late = rpc.client.info({}, { timeoutMs: 20 });
  const cancelled = rpc.client.info({}, { signal: stopped.signal });
  stopped.abort();

  await Promise.all([
    assert.rejects(late, (error) => hasCode(error, 'deadline-exceeded')),
    assert.rejects(cancelled, (error) => hasCode(error, 'cancelled')),
  ]);
});

test('no server, or one that goes away, is unavailable', async () => {
  await using rpc = await serve({ info: () => new Promise(() => {}) });
  const channel = openLightChannel('/nonexistent/a.sock');

  const waiting = rpc.client.info({});
  setTimeout(() => rpc.server.stop(), 30);

  await assert.rejects(createLightClient(NodeControlService, channel).info({}), (error) =>
    hasCode(error, 'unavailable'),
  );
  await assert.rejects(waiting, (error) => hasCode(error, 'unavailable'));
});
