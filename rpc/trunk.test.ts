// Sessions that a manager passes on to the leader over one stream, over real connections with real certificates.

import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { defined } from '../core/assert.ts';
import { hasCode, SwarmError, toSwarmError } from '../core/errors.ts';
import { emptyNodeDescription } from '../core/generated/objects.ts';
import { systemClock } from '../node/system-clock.ts';
import {
  type AgentMessage,
  DispatcherService,
  emptyAgentMessage,
  type ManagerMessage,
} from '../proto/generated/dispatcher.ts';
import { emptyTrunkFrame, TrunkService } from '../proto/generated/trunk.ts';
import { encode } from '../proto/wire.ts';
import { eventually } from '../test/support/eventually.ts';
import { newIdentities, TEST_CLUSTER } from '../test/support/test-authority.ts';
import type { Caller } from './caller.ts';
import { type BidiCall, type Channel, createClient, openTlsChannel } from './client.ts';
import { onLeader } from './forward.ts';
import { type CallContext, type Handlers, RpcServer } from './server.ts';
import { clientCredentials } from './tls.ts';
import { WINDOW_BYTES } from './trunk-line.ts';

type SessionHandler = Handlers<typeof DispatcherService>['session'];
type Session = BidiCall<AgentMessage, ManagerMessage>;

const SESSION = DispatcherService.session.path;
const TRUNK = TrunkService.carry.path;
const NODES = ['leader', 'follower', 'worker-1', 'worker-2'];

/** A leader whose sessions are these, a manager that passes sessions on to it, and agents of both. */
async function start(t: TestContext, session: SessionHandler) {
  const identities = await newIdentities(NODES);
  const identity = (nodeId: string) => defined(identities.get(nodeId), nodeId);
  /** What the leader has nodes for; all certificates are of managers. */
  const roles = new Map<string, Caller['role']>([
    ['worker-1', 'worker'],
    ['worker-2', 'worker'],
  ]);
  const identify = (caller: Caller) => ({ ...caller, role: roles.get(caller.nodeId) ?? caller.role });
  const finished: (readonly [path: string, code: string])[] = [];
  const refused: string[] = [];
  let port = 0;
  /** Where the leader thinks the leader is; undefined is itself. */
  let successor: Channel | undefined;

  const handlers = { session } as Handlers<typeof DispatcherService>;
  const startLeader = async () => {
    const server = new RpcServer({
      identify,
      observe: (path, _, error) =>
        finished.push([path, error === undefined ? 'ok' : toSwarmError(error).code]),
      onRefused: (path, { nodeId }, error) => refused.push(`${path} by ${nodeId}: ${error.message}`),
    });
    server.add(
      DispatcherService,
      onLeader(DispatcherService, handlers, { clock: systemClock, find: async () => successor }),
    );
    server.addTrunk(systemClock);
    port = await server.listenTls(
      { host: '127.0.0.1', port },
      { identity: identity('leader'), clusterId: TEST_CLUSTER },
    );
    return server;
  };
  const channels: Channel[] = [];
  const connect = (to: number, nodeId: string, expected: string) => {
    const channel = openTlsChannel(
      `127.0.0.1:${to}`,
      clientCredentials(identity(nodeId), { clusterId: TEST_CLUSTER, nodeId: expected }),
      { 'grpc.use_local_subchannel_pool': 1 },
    );
    channels.push(channel);
    return channel;
  };
  let leader = await startLeader();
  const toLeader = connect(port, 'follower', 'leader');
  const follower = new RpcServer({
    identify: (caller) => ({ ...caller, role: caller.nodeId === 'follower' ? 'manager' : 'worker' }),
  });
  follower.add(
    DispatcherService,
    onLeader(DispatcherService, handlers, { clock: systemClock, find: async () => toLeader }),
  );
  const followerPort = await follower.listenTls(
    { host: '127.0.0.1', port: 0 },
    { identity: identity('follower'), clusterId: TEST_CLUSTER },
  );
  t.after(() => {
    for (const channel of channels) channel.close();
    for (const server of [follower, leader]) server.stop();
  });
  return {
    roles,
    finished,
    refused,
    toLeader,
    stopLeader: () => leader.stop(),
    restartLeader: async () => {
      leader = await startLeader();
    },
    stepDown: () => {
      successor = toLeader;
    },
    /** An agent of the follower. */
    agent: (nodeId = 'worker-1') =>
      createClient(DispatcherService, connect(followerPort, nodeId, 'follower')),
    /** One that talks to the leader. */
    direct: (nodeId: string) => connect(port, nodeId, 'leader'),
  };
}

/** Says what it is told, until it is told what ends it. */
const echo: SessionHandler = async function* (messages) {
  for await (const message of messages) yield { drained: { taskIds: [textOf(message)] } };
};

function says(text: string): AgentMessage {
  return {
    ...emptyAgentMessage,
    register: { nodeId: text, description: emptyNodeDescription, address: '' },
  };
}

function textOf({ register }: AgentMessage): string {
  return register?.nodeId ?? '';
}

/** What was answered until the end; then `error`, if that was how it ended. */
async function answersOf(session: Session): Promise<{ answers: string[]; error?: SwarmError }> {
  const answers: string[] = [];
  try {
    for await (const { drained } of session) answers.push(drained?.taskIds[0] ?? '');
  } catch (error) {
    return { answers, error: toSwarmError(error) };
  }
  return { answers };
}

/** Says something and waits for the answer. */
async function exchange(session: Session, answers: AsyncIterator<ManagerMessage>, text: string) {
  await session.send(says(text));
  const { value } = await answers.next();
  assert.equal((value as ManagerMessage | undefined)?.drained?.taskIds[0], text);
}

async function open(session: Session) {
  const answers = session[Symbol.asyncIterator]();
  await exchange(session, answers, 'hello');
  return { session, answers, exchange: (text: string) => exchange(session, answers, text) };
}

test('many sessions share one stream, and each gets its own answers in order', async (t) => {
  const { agent, finished } = await start(t, echo);
  const client = agent();
  const texts = (session: number) => Array.from({ length: 20 }, (_, count) => `${session}.${count}`);

  const outcomes = await Promise.all(
    Array.from({ length: 40 }, async (_, index) => {
      const session = client.session();
      const outcome = answersOf(session);
      for (const text of texts(index)) await session.send(says(text));
      session.end();
      return outcome;
    }),
  );

  for (const [index, { answers, error }] of outcomes.entries()) {
    assert.equal(error, undefined);
    assert.deepEqual(answers, texts(index), 'the end comes after the last answer');
  }
  // It ends with the last session, so that nothing keeps a connection that is not needed any more.
  await eventually(() => finished.some(([path]) => path === TRUNK));
  assert.equal(finished.filter(([path]) => path === TRUNK).length, 1);
  assert.equal(finished.filter(([path, code]) => path === SESSION && code === 'ok').length, 40);
});

test('the leader hears which node has asked, and that a manager passed it on', async (t) => {
  const contexts: Pick<CallContext, 'caller' | 'isForwarded'>[] = [];
  const { agent } = await start(t, (messages, { caller, isForwarded, signal }) => {
    contexts.push({ caller, isForwarded });
    return echo(messages, { caller, isForwarded, signal });
  });

  for (const nodeId of ['worker-1', 'worker-2', 'follower']) await open(agent(nodeId).session());

  assert.deepEqual(contexts, [
    { caller: { role: 'worker', nodeId: 'worker-1' }, isForwarded: true },
    { caller: { role: 'worker', nodeId: 'worker-2' }, isForwarded: true },
    { caller: { role: 'manager', nodeId: 'follower' }, isForwarded: true },
  ]);
});

test('an error ends its own session, as what it is', async (t) => {
  const { agent, finished } = await start(t, async function* (messages) {
    for await (const message of messages) {
      if (textOf(message) === 'refuse')
        throw new SwarmError('failed-precondition', 'not now', { hint: 'try «later»', isUndone: true });
      if (textOf(message) === 'stumble') throw new RangeError('off by one');
      yield { drained: { taskIds: [textOf(message)] } };
    }
  });
  const other = await open(agent().session());
  const endOf = async (text: string) => {
    const session = agent().session();
    for (const message of ['before', text]) await session.send(says(message));
    return answersOf(session);
  };

  const refused = await endOf('refuse');
  const stumbled = await endOf('stumble');

  assert.deepEqual(refused.answers, ['before'], 'what was answered before arrives before');
  const { code, message, hint, isUndone } = defined(refused.error, 'refused');
  assert.deepEqual(
    { code, message, hint, isUndone },
    { code: 'failed-precondition', message: 'not now', hint: 'try «later»', isUndone: true },
  );
  assert.equal(stumbled.error?.code, 'internal');
  await other.exchange('still here');
  assert.deepEqual(finished, [
    [SESSION, 'failed-precondition'],
    [SESSION, 'internal'],
  ]);
});

for (const way of ['over a trunk', 'directly'])
  test(`an error comes behind an answer that takes long to write, ${way}`, async (t) => {
    const long = 'x'.repeat(8 * 2 ** 20);
    const { agent, direct } = await start(t, async function* (messages) {
      for await (const _ of messages) {
        yield { drained: { taskIds: [long] } };
        throw new SwarmError('failed-precondition', 'not now');
      }
    });
    const client = way === 'directly' ? createClient(DispatcherService, direct('worker-1')) : agent();
    const session = client.session();
    await session.send(says('hello'));

    const { answers, error } = await answersOf(session);

    assert.deepEqual(
      answers.map(({ length }) => length),
      [long.length],
    );
    assert.equal(error?.message, 'not now');
  });

test('who goes away ends its own session and no other', async (t) => {
  const gone: string[] = [];
  const { agent } = await start(t, async function* (messages, context) {
    context.signal.addEventListener('abort', () => gone.push(context.caller.nodeId));
    yield* echo(messages, context);
  });
  const away = new AbortController();
  await open(agent('worker-1').session({ signal: away.signal }));
  const other = await open(agent('worker-2').session());

  away.abort();

  await eventually(() => gone.length > 0);
  await other.exchange('still here');
  assert.deepEqual(gone, ['worker-1']);
});

test('when the way to the leader breaks, all sessions end as unavailable, and the next ones work', async (t) => {
  const { agent, stopLeader, restartLeader } = await start(t, echo);
  const sessions = await Promise.all(NODES.map(() => open(agent().session())));

  stopLeader();

  for (const { answers } of sessions)
    await assert.rejects(answers.next(), (error) => hasCode(error, 'unavailable'));
  assert.ok(
    hasCode((await answersOf(agent().session())).error, 'unavailable'),
    'while nobody is there, a new session says so',
  );
  await restartLeader();
  const again = await eventually(() => open(agent().session()));
  await again.exchange('once more');
});

/** Until no more is sent while another call goes on. */
async function heldUp(sent: () => number, other: Awaited<ReturnType<typeof open>>): Promise<void> {
  let before = -1;
  await eventually(async () => {
    const isHeldUp = sent() > 0 && sent() === before;
    before = sent();
    await other.exchange('not held up');
    return isHeldUp;
  });
}

test('who does not read holds up who talks to it, and nobody else', async (t) => {
  const COUNT = 400;
  const page = 'x'.repeat(16 * 1024);
  let sent = 0;
  const { agent } = await start(t, async function* (messages, context) {
    if (context.caller.nodeId === 'worker-2') return yield* echo(messages, context);
    for (; sent < COUNT; sent++) yield { drained: { taskIds: [`${sent} ${page}`] } };
  });
  const slow = agent('worker-1').session();
  const other = await open(agent('worker-2').session());
  const answers = slow[Symbol.asyncIterator]();
  await answers.next();

  await heldUp(() => sent, other);

  assert.ok(sent < COUNT / 2, `${sent} messages are on their way to who reads none`);
  for (let count = 1; count < COUNT; count++) {
    const { value } = await answers.next();
    assert.ok((value as ManagerMessage).drained?.taskIds[0]?.startsWith(`${count} `));
  }
  assert.ok((await answers.next()).done);
});

test('an agent that is not listened to has to wait, and nobody else', async (t) => {
  const page = 'x'.repeat(16 * 1024);
  const goOn = Promise.withResolvers<void>();
  let heard = 0;
  const { agent } = await start(t, async function* (messages, context) {
    if (context.caller.nodeId === 'worker-2') return yield* echo(messages, context);
    await goOn.promise;
    for await (const message of messages) if (textOf(message) === page) heard++;
  });
  const loud = agent('worker-1').session();
  const other = await open(agent('worker-2').session());
  let sent = 0;
  const sending = (async () => {
    for (; sent < 400; sent++) await loud.send(says(page));
    loud.end();
  })();

  await heldUp(() => sent, other);

  assert.ok(sent < 200, `${sent} messages are on their way to who reads none`);
  goOn.resolve();
  await sending;
  assert.deepEqual(await answersOf(loud), { answers: [] });
  assert.equal(heard, 400);
});

test('a call that does not keep to its window is cut off, and no other', async (t) => {
  const { toLeader } = await start(t, async function* (messages, context) {
    if (context.caller.nodeId === 'worker-2') return yield* echo(messages, context);
    await new Promise<void>((resolve) => context.signal.addEventListener('abort', () => resolve()));
  });
  const trunk = createClient(TrunkService, toLeader).carry();
  const openFor = (nodeId: string) => ({
    path: SESSION,
    metadata: { 'tsswarm-caller-role': Buffer.from('worker'), 'tsswarm-caller-node': Buffer.from(nodeId) },
  });
  const payload = Buffer.alloc(WINDOW_BYTES / 2);
  const hello = encode(DispatcherService.session.request, says('hello'));

  const frames = [
    { call: 1, open: openFor('worker-1') },
    { call: 2, open: openFor('worker-2') },
    ...Array(3).fill({ call: 1, payload }),
    { call: 2, payload: hello },
    { call: 3, open: { path: TRUNK, metadata: {} } },
  ];
  await trunk.send({ frames: frames.map((frame) => ({ ...emptyTrunkFrame, ...frame })) });

  const answered = [];
  for await (const message of trunk) {
    answered.push(...message.frames);
    if (answered.length === 3) break;
  }
  const ends = new Map(answered.map(({ call, ended }) => [call, ended]));
  assert.equal(ends.get(1)?.status, 8, 'resource-exhausted');
  assert.match(ends.get(1)?.message ?? '', /wait for their reader/);
  assert.equal(ends.get(2), undefined);
  assert.equal(ends.get(3)?.status, 12, 'a trunk in a trunk is unimplemented');
});

test('who may not have a session is refused as who it is, and the others keep theirs', async (t) => {
  const { agent, roles, refused } = await start(t, echo);
  const other = await open(agent('worker-2').session());
  // Its manager has not heard of it yet.
  roles.set('worker-1', 'anyone');

  const { error } = await answersOf(agent('worker-1').session());

  assert.equal(error?.code, 'permission-denied');
  assert.match(error.message, /Session: not for a caller without a valid certificate/);
  assert.match(error.hint ?? '', /joins the cluster with a token/);
  assert.deepEqual(refused, [`${SESSION} by follower: ${error.message}`]);
  await other.exchange('still here');
});

test('only a manager may open a trunk', async (t) => {
  const { direct, refused } = await start(t, echo);
  const trunk = createClient(TrunkService, direct('worker-1')).carry();

  await assert.rejects(
    async () => {
      for await (const _ of trunk) assert.fail('an answer');
    },
    { code: 'permission-denied', message: 'Carry: not for the worker worker-1' },
  );
  assert.equal(refused.length, 1);
});

test('a manager that is none any more is believed no further call', async (t) => {
  const { agent, roles } = await start(t, echo);
  const other = await open(agent('worker-2').session());
  roles.set('follower', 'worker');

  const { error } = await answersOf(agent('worker-1').session());

  assert.equal(error?.code, 'unavailable');
  assert.match(error.message, /node follower, which passed the call on, is no manager/);
  assert.ok(error.isUndone);
  await other.exchange('still here');
});

test('a leader that steps down says so to who comes then', async (t) => {
  const { agent, stepDown } = await start(t, echo);
  const other = await open(agent('worker-2').session());

  stepDown();

  const { error } = await answersOf(agent('worker-1').session());
  assert.equal(error?.code, 'unavailable');
  assert.match(error.message, /does not lead any more/);
  assert.ok(error.isUndone);
  await other.exchange('until it is ended');
});
