// Calls that a manager passes on to the leader, over real connections with real certificates.

import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { type TestContext, test } from 'node:test';
import { defined } from '../core/assert.ts';
import { hasCode, SwarmError } from '../core/errors.ts';
import { systemClock } from '../node/system-clock.ts';
import { ControlService } from '../proto/generated/control.ts';
import {
  type AgentMessage,
  DispatcherService,
  emptyAgentMessage,
  emptyLogBatch,
} from '../proto/generated/dispatcher.ts';
import { decode, encode } from '../proto/wire.ts';
import { newIdentities, TEST_CLUSTER } from '../test/support/test-authority.ts';
import type { Caller } from './caller.ts';
import { type Channel, createClient, createRelay, openChannel, openTlsChannel } from './client.ts';
import { onLeader } from './forward.ts';
import { type CallContext, type Handlers, RpcServer } from './server.ts';
import { clientCredentials } from './tls.ts';

type AllHandlers = Handlers<typeof ControlService> & Handlers<typeof DispatcherService>;

/** A leader with these handlers, and a client of a manager that passes calls on to it. */
async function start(t: TestContext, handlers: Partial<AllHandlers>) {
  const directory = await mkdtemp(path.join(os.tmpdir(), 'tsw-forward-'));
  const identities = await newIdentities(['leader', 'follower']);
  const identity = (nodeId: string) => defined(identities.get(nodeId), nodeId);

  const leader = new RpcServer();
  const follower = new RpcServer({ nodeId: 'follower' });
  const port = await leader.listenTls(
    { host: '127.0.0.1', port: 0 },
    { identity: identity('leader'), clusterId: TEST_CLUSTER },
  );
  const toLeader = openTlsChannel(
    `127.0.0.1:${port}`,
    clientCredentials(identity('follower'), { clusterId: TEST_CLUSTER, nodeId: 'leader' }),
  );
  /** What the follower takes for the leader: undefined is itself. */
  const links: (Channel | undefined)[] = [];
  const find = async () => (links.length > 0 ? links.shift() : toLeader);
  const link = { clock: systemClock, find };
  const add = (server: RpcServer, made: AllHandlers) => {
    server.add(ControlService, made);
    server.add(DispatcherService, made);
  };
  const all = handlers as AllHandlers;
  add(leader, all);
  leader.addTrunk(systemClock);
  add(follower, {
    ...onLeader(ControlService, all, link),
    ...onLeader(DispatcherService, all, link),
  });
  await follower.listen(path.join(directory, 'a.sock'), 0o600);
  const channel = openChannel(`unix://${path.join(directory, 'a.sock')}`);
  t.after(async () => {
    for (const open of [channel, toLeader]) open.close();
    for (const server of [follower, leader]) server.stop();
    await rm(directory, { recursive: true });
  });
  return {
    links,
    channel,
    control: createClient(ControlService, channel),
    dispatcher: createClient(DispatcherService, channel),
  };
}

test('the leader hears who has asked, in every shape of call', async (t) => {
  const callers: Caller[] = [];
  const note = ({ caller, isForwarded }: CallContext) => {
    assert.ok(isForwarded);
    callers.push(caller);
  };
  const { control, dispatcher } = await start(t, {
    listNodes: (_, context) => {
      note(context);
      return { nodes: [] };
    },
    async *backup(_, context) {
      note(context);
      yield { data: Buffer.from('a') };
      yield { data: Buffer.from('b') };
    },
    publishLogs: async (batches, context) => {
      note(context);
      let count = 0;
      for await (const _ of batches) count++;
      assert.equal(count, 2);
      return {};
    },
    async *session(messages, context) {
      note(context);
      for await (const _ of messages) yield { heartbeat: { periodMs: 1 } };
    },
  });

  await control.listNodes({});
  let text = '';
  for await (const { data } of control.backup({})) text += Buffer.from(data).toString();
  const logs = dispatcher.publishLogs();
  for (const subscriptionId of ['1', '2']) await logs.send({ ...emptyLogBatch, subscriptionId });
  logs.end();
  await logs.response;
  const session = dispatcher.session();
  for (let count = 0; count < 3; count++) await session.send({ ...emptyAgentMessage, heartbeat: {} });
  session.end();
  let answers = 0;
  for await (const _ of session) answers++;

  assert.equal(text, 'ab');
  assert.equal(answers, 3);
  // Whoever is at a manager's own socket acts as that manager.
  assert.deepEqual(callers, Array(4).fill({ role: 'manager', nodeId: 'follower' }));
});

test("what goes both ways is the leader's to read: what it knows and this manager does not goes through", async (t) => {
  const heard: AgentMessage[] = [];
  const { channel, links } = await start(t, {
    async *session(messages) {
      for await (const message of messages) {
        heard.push(message);
        yield { heartbeat: { periodMs: 7 } };
      }
    },
  });
  const { session } = DispatcherService;
  const exchange = async (...messages: readonly Buffer[]) => {
    const call = createRelay(session, channel, {})({});
    for (const message of messages) await call.send(message);
    call.end();
    const answers: unknown[] = [];
    for await (const answer of call) answers.push(decode(session.response, answer as Buffer));
    return answers;
  };
  const heartbeat = encode(session.request, { heartbeat: {} });
  // Field 1000 of a later version.
  const later = Buffer.concat([heartbeat, Buffer.from([0xc0, 0x3e, 1])]);

  assert.deepEqual(await exchange(heartbeat, later), Array(2).fill({ heartbeat: { periodMs: 7 } }));
  await assert.rejects(exchange(Buffer.from([0xff])));
  links.push(undefined);
  assert.deepEqual(await exchange(heartbeat), [{ heartbeat: { periodMs: 7 } }]);
  links.push(undefined);
  await assert.rejects(exchange(Buffer.from([0xff])));
  assert.deepEqual(heard, Array(3).fill({ heartbeat: {} }));
});

test("the leader's refusal arrives as it is", async (t) => {
  const { control, dispatcher } = await start(t, {
    getService: () => {
      throw new SwarmError('not-found', 'no such service', { hint: 'look elsewhere' });
    },
    // biome-ignore lint/correctness/useYield: it refuses at once
    async *session() {
      throw new SwarmError('permission-denied', 'not you');
    },
  });

  await assert.rejects(control.getService({ service: 'x' }), { code: 'not-found', hint: 'look elsewhere' });
  await assert.rejects(async () => {
    for await (const _ of dispatcher.session()) assert.fail('an answer');
  }, /not you/);
});

test('what nobody has begun is asked again; what may have been done is not', async (t) => {
  let attempts = 0;
  const failing = (isUndone: boolean) => () => {
    attempts++;
    if (attempts === 1) throw new SwarmError('unavailable', 'another leads now', { isUndone });
    return { serviceId: 'done' };
  };
  const undone = await start(t, { removeService: failing(true) });
  assert.equal((await undone.control.removeService({ service: 'x' })).serviceId, 'done');
  assert.equal(attempts, 2);

  attempts = 0;
  const unknown = await start(t, { removeService: failing(false) });
  await assert.rejects(unknown.control.removeService({ service: 'x' }), /another leads now/);
  assert.equal(attempts, 1);
});

test('a call that only reads is asked again when the connection breaks', async (t) => {
  let attempts = 0;
  const { control } = await start(t, {
    listServices: () => {
      attempts++;
      if (attempts === 1) throw new SwarmError('unavailable', 'connection dropped');
      return { services: [] };
    },
  });

  assert.deepEqual((await control.listServices({})).services, []);
  assert.equal(attempts, 2);
});

test('a manager that comes to lead does the work itself', async (t) => {
  const contexts: boolean[] = [];
  const { control, links } = await start(t, {
    listNodes: (_, { isForwarded }) => {
      contexts.push(isForwarded);
      return { nodes: [] };
    },
  });
  links.push(undefined);

  await control.listNodes({});
  await control.listNodes({});

  assert.deepEqual(contexts, [false, true]);
});

test('nobody passes a call on twice', async (t) => {
  const answer = onLeader(
    { listNodes: ControlService.listNodes },
    { listNodes: () => ({ nodes: [] }) },
    { clock: systemClock, find: async () => openChannel('unix:///nowhere') },
  );
  const context: CallContext = {
    signal: t.signal,
    caller: { role: 'manager', nodeId: 'n' },
    isForwarded: true,
  };

  await assert.rejects(
    async () => answer.listNodes({}, context),
    (error) => hasCode(error, 'unavailable') && error.isUndone,
  );
});
