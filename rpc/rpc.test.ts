// Clients and servers over grpc-js: what happens when either side ends, throws or stalls, in each shape of call.

import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { hasCode, SwarmError } from '../core/errors.ts';
import { ControlService } from '../proto/generated/control.ts';
import { DispatcherService, emptyLogBatch } from '../proto/generated/dispatcher.ts';
import { createClient, openChannel } from './client.ts';
import { type Handlers, RpcServer } from './server.ts';

type AllHandlers = Handlers<typeof ControlService> & Handlers<typeof DispatcherService>;

async function serve(handlers: Partial<AllHandlers>) {
  const directory = await mkdtemp(path.join(os.tmpdir(), 'tsw-rpc-'));
  const socket = path.join(directory, 'a.sock');
  const server = new RpcServer();
  server.add(ControlService, handlers as Handlers<typeof ControlService>);
  server.add(DispatcherService, handlers as Handlers<typeof DispatcherService>);
  await server.listen(socket, 0o600);
  const channel = openChannel(`unix://${socket}`);
  return {
    server,
    control: createClient(ControlService, channel),
    dispatcher: createClient(DispatcherService, channel),
    [Symbol.asyncDispose]: async () => {
      channel.close();
      server.stop();
      await rm(directory, { recursive: true });
    },
  };
}

async function drain(messages: AsyncIterable<unknown>): Promise<number> {
  let count = 0;
  for await (const _ of messages) count++;
  return count;
}

/** Long enough for it. */
async function afterAllThatIsNotHeldBack(): Promise<void> {
  for (let turn = 0; turn < 2_000; turn++) await new Promise((resolve) => setImmediate(resolve));
}

const refusal = () => new SwarmError('not-found', 'nothing here', { hint: 'look elsewhere' });
const isRefusal = (error: unknown) =>
  hasCode(error, 'not-found') && error.message === 'nothing here' && error.hint === 'look elsewhere';
const never = new Promise<never>(() => {});

for (const timing of ['at once', 'later'] as const) {
  const fail = (): never => {
    throw refusal();
  };
  const failLater = async (): Promise<never> => {
    await new Promise((resolve) => setImmediate(resolve));
    throw refusal();
  };
  const answer = timing === 'at once' ? fail : failLater;
  const stream: () => AsyncIterable<never> =
    timing === 'at once'
      ? fail
      : async function* () {
          yield await failLater();
        };

  test(`a handler that throws ${timing} gives its error to the client, in every shape`, async () => {
    await using rpc = await serve({
      listNodes: answer,
      listTasks: stream,
      publishLogs: answer,
      session: stream,
    });

    await assert.rejects(rpc.control.listNodes({}, { timeoutMs: 5_000 }), isRefusal);
    await assert.rejects(
      drain(rpc.control.listTasks({ serviceIds: [], nodeIds: [] }, { timeoutMs: 5_000 })),
      isRefusal,
    );
    await assert.rejects(rpc.dispatcher.publishLogs({ timeoutMs: 5_000 }).response, isRefusal);
    await assert.rejects(drain(rpc.dispatcher.session({ timeoutMs: 5_000 })), isRefusal);
  });
}

test('a client that aborts ends the call on both sides, in every shape', async () => {
  const aborted: Promise<void>[] = [];
  const untilGone = (signal: AbortSignal) =>
    aborted.push(new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve())));
  const begun = [0, 1, 2, 3].map(() => Promise.withResolvers<void>());
  const begin = (call: number, signal: AbortSignal) => {
    untilGone(signal);
    begun[call]?.resolve();
  };
  await using rpc = await serve({
    listNodes: (_request, { signal }) => {
      begin(0, signal);
      return never;
    },
    async *listTasks(_request, { signal }) {
      begin(1, signal);
      yield await never;
    },
    publishLogs: (_requests, { signal }) => {
      begin(2, signal);
      return never;
    },
    async *session(requests, { signal }) {
      begin(3, signal);
      for await (const _ of requests) yield {};
    },
  });
  const abort = new AbortController();
  const options = { signal: abort.signal };

  const ends = [
    rpc.control.listNodes({}, options),
    drain(rpc.control.listTasks({ serviceIds: [], nodeIds: [] }, options)),
    rpc.dispatcher.publishLogs(options).response,
    drain(rpc.dispatcher.session(options)),
  ].map((end) => assert.rejects(end, { code: 'cancelled' }));
  await Promise.all(begun.map(({ promise }) => promise));
  abort.abort();

  await Promise.all([...ends, ...aborted]);
  assert.equal(aborted.length, 4);
});

test('a server that stops ends streams that are open and idle', async () => {
  await using rpc = await serve({
    async *listTasks() {
      yield { tasks: [], revisions: [] };
      yield await never;
    },
    async *session(requests) {
      yield {};
      for await (const _ of requests) yield {};
    },
  });
  const streams = [rpc.control.listTasks({ serviceIds: [], nodeIds: [] }), rpc.dispatcher.session()].map(
    (stream) => stream[Symbol.asyncIterator](),
  );
  for (const stream of streams) await stream.next();

  rpc.server.stop();

  for (const stream of streams) await assert.rejects(stream.next(), SwarmError);
});

test('a sender that waits for room is freed when the other side ends the call', async () => {
  for (const isRefused of [false, true]) {
    await using rpc = await serve({
      publishLogs: async (batches) => {
        for await (const _ of batches) break;
        if (isRefused) throw refusal();
        return {};
      },
    });
    const call = rpc.dispatcher.publishLogs();
    const line = {
      taskId: 't',
      stream: 'stdout' as const,
      time: '',
      data: Buffer.alloc(1 << 20),
      details: {},
    };

    const sendForEver = async () => {
      for (;;) await call.send({ ...emptyLogBatch, lines: [line] });
    };

    await assert.rejects(sendForEver(), SwarmError);
    await call.response.catch(() => {});
  }
});

test('a sender is held back by a reader that does not read', async () => {
  const read = Promise.withResolvers<void>();
  await using rpc = await serve({
    publishLogs: async (batches) => {
      await read.promise;
      await drain(batches);
      return {};
    },
  });
  const call = rpc.dispatcher.publishLogs();
  const line = { taskId: 't', stream: 'stdout' as const, time: '', data: Buffer.alloc(1 << 20), details: {} };
  let sent = 0;
  const sending = (async () => {
    for (; sent < 100; sent++) await call.send({ ...emptyLogBatch, lines: [line] });
    call.end();
  })();

  await afterAllThatIsNotHeldBack();
  assert.ok(sent < 20, `${sent} MiB were taken`);
  read.resolve();

  await sending;
  await call.response;
});

for (const shape of ['server-stream', 'bidi'] as const)
  test(`a ${shape} answer waits for who does not begin to read it`, async () => {
    const COUNT = 400;
    const page = Buffer.alloc(16 * 1024);
    let sent = 0;
    await using rpc = await serve({
      backup: async function* () {
        for (; sent < COUNT; sent++) yield { data: page };
      },
      session: async function* () {
        for (; sent < COUNT; sent++) yield { drained: { taskIds: [page.toString()] } };
      },
    });

    const answers = shape === 'bidi' ? rpc.dispatcher.session() : rpc.control.backup({});
    await afterAllThatIsNotHeldBack();
    assert.ok(sent > 0 && sent < COUNT / 2, `${sent} messages have been sent`);

    const reader = answers[Symbol.asyncIterator]();
    await reader.next();
    await afterAllThatIsNotHeldBack();
    assert.ok(sent < COUNT / 2, `${sent} messages have been sent after one was read`);
    let read = 1;
    while (!(await reader.next()).done) read++;
    assert.equal(read, COUNT);
  });

test('a handler can ask by which user of this machine it is called', async () => {
  const users: (number | undefined)[] = [];
  await using world = await serve({
    listNodes: (_request, { caller }) => {
      users.push(caller.userId);
      return { nodes: [] };
    },
  });

  await world.control.listNodes({});

  assert.deepEqual(users, [process.getuid?.()]);
});
