// How a member keeps trying to reach a peer: over real connections, with a clock that the test owns.

import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { type TestContext, test } from 'node:test';
import type { Clock } from '../../core/clock.ts';
import { emptyPeerMessage, type Member, type PeerMessage, PeerService } from '../../proto/generated/raft.ts';
import { openChannel } from '../../rpc/client.ts';
import { setLogLevel } from '../../rpc/logger.ts';
import type { CallContext } from '../../rpc/server.ts';
import { RpcServer } from '../../rpc/server.ts';
import { eventually } from '../../test/support/eventually.ts';
import { newMessage } from '../raft/message.ts';
import { GrpcPeers, PEER_CHANNEL_OPTIONS } from './grpc-peers.ts';
import type { PeerEvents } from './peers.ts';

setLogLevel('silent');

const CLUSTER = 'cluster-1';
const [ONE, TWO, GONE] = [1, 2, 3].map((id) => ({ id, nodeId: `node-${id}`, address: `host-${id}:1` })) as [
  Member,
  Member,
  Member,
];

/** Notes how long anybody wants to wait, and lets nobody wait in fact, until it is stopped. */
class WaitingClock implements Clock {
  readonly delaysMs: number[] = [];
  #isHeld = false;
  #held: (() => void)[] = [];

  nowMs(): number {
    return 0;
  }

  elapsedMs(): number {
    return 0;
  }

  after(delayMs: number, callback: () => void): () => void {
    let isCancelled = false;
    this.delaysMs.push(delayMs);
    const run = () => {
      if (!isCancelled) callback();
    };
    if (this.#isHeld) this.#held.push(run);
    else setImmediate(run);
    return () => {
      isCancelled = true;
    };
  }

  /** Somebody waits, and will until `release`. */
  get isWaitedFor(): boolean {
    return this.#held.length > 0;
  }

  /** From now on waits do not end. */
  hold(): void {
    this.#isHeld = true;
  }

  release(): void {
    this.#isHeld = false;
    for (const run of this.#held.splice(0)) run();
  }
}

interface Peer {
  readonly peers: GrpcPeers;
  readonly clock: WaitingClock;
  readonly lost: number[];
  readonly received: number[];
  /** Connections that were opened. */
  connections: number;
}

async function aDirectory(t: TestContext): Promise<string> {
  const directory = await mkdtemp(path.join(os.tmpdir(), 'tsw-peers-'));
  t.after(() => rm(directory, { recursive: true }));
  return directory;
}

/** A member that reaches its peers by sockets in this directory. */
function aPeer(t: TestContext, directory: string, self: Member): Peer {
  const clock = new WaitingClock();
  const peer = { clock, lost: [] as number[], received: [] as number[], connections: 0 };
  const events: PeerEvents = {
    onMessage: ({ commit }) => void peer.received.push(commit),
    onSnapshot: async () => {},
    onLost: (id) => void peer.lost.push(id),
  };
  const connect = ({ nodeId }: Member) => {
    peer.connections++;
    return openChannel(`unix://${directory}/${nodeId}.sock`, PEER_CHANNEL_OPTIONS);
  };
  const options = { clusterId: CLUSTER, clock, connect, authorize: () => {} };
  const peers = new GrpcPeers(options, self, events);
  t.after(() => {
    peers.close();
    clock.release();
  });
  return Object.assign(peer, { peers });
}

async function serve(t: TestContext, directory: string, { peers }: Peer, self: Member): Promise<RpcServer> {
  const server = new RpcServer();
  server.add(PeerService, peers.handlers);
  await server.listen(path.join(directory, `${self.nodeId}.sock`), 0o600);
  t.after(() => server.stop());
  return server;
}

test('attempts to reach a peer come farther and farther apart, to a second, each on a connection of its own', async (t) => {
  const one = aPeer(t, await aDirectory(t), ONE);

  one.peers.setPeers([TWO]);
  await eventually(() => one.clock.delaysMs.length >= 8);
  one.clock.hold();

  assert.deepEqual(one.clock.delaysMs.slice(0, 8), [40, 80, 160, 320, 640, 1000, 1000, 1000]);
  assert.ok(one.connections >= 8);
  assert.deepEqual(one.lost, [], 'who was never reached is not lost');
});

test('a peer that greets is tried at once, however long the wait would be', async (t) => {
  const one = aPeer(t, await aDirectory(t), ONE);
  one.peers.setPeers([TWO]);
  await eventually(() => one.clock.delaysMs.length >= 6);
  one.clock.hold();
  await eventually(() => one.clock.isWaitedFor);
  const before = one.connections;

  const greeting = Promise.withResolvers<void>();
  async function* greet(): AsyncIterable<PeerMessage> {
    yield { ...emptyPeerMessage, hello: { from: TWO, clusterId: CLUSTER } };
    await greeting.promise;
  }
  const context: CallContext = {
    signal: new AbortController().signal,
    caller: { role: 'manager', nodeId: TWO.nodeId },
    isForwarded: false,
  };
  const exchange = one.peers.handlers.exchange(greet(), context);
  await eventually(() => one.connections > before);

  assert.equal(one.peers.isConnected(TWO.id), true);
  greeting.resolve();
  await exchange;
  assert.equal(one.peers.isConnected(TWO.id), false);
  assert.deepEqual(one.lost, [TWO.id]);
});

test('after a connection that worked the first attempt comes soon again', async (t) => {
  const directory = await aDirectory(t);
  const [one, two] = [aPeer(t, directory, ONE), aPeer(t, directory, TWO)];
  one.peers.setPeers([TWO]);
  await eventually(() => one.clock.delaysMs.includes(1000));
  const server = await serve(t, directory, two, TWO);
  await eventually(() => two.peers.isConnected(ONE.id));
  one.peers.send(newMessage('heartbeat', TWO.id, { commit: 7 }));
  await eventually(() => two.received.includes(7));
  const waits = one.clock.delaysMs.length;

  server.stop();
  await eventually(() => one.clock.delaysMs.length >= waits + 3);

  assert.deepEqual(one.clock.delaysMs.slice(waits, waits + 3), [20, 40, 80]);
  assert.deepEqual(one.lost, [TWO.id]);
});

test('who was away answers a leader that it does not know, for as long as that is connected', async (t) => {
  const directory = await aDirectory(t);
  const [away, leader] = [aPeer(t, directory, ONE), aPeer(t, directory, TWO)];
  await serve(t, directory, away, ONE);
  const server = await serve(t, directory, leader, TWO);
  away.peers.setPeers([GONE]);
  const answered = (commit: number) =>
    eventually(() => {
      away.peers.send(newMessage('append-response', TWO.id, { commit }));
      return leader.received.includes(commit);
    });

  leader.peers.setPeers([ONE]);
  await answered(7);
  // A change of members from before the leader was one.
  away.peers.setPeers([]);
  await answered(8);

  leader.peers.close();
  server.stop();
  await eventually(() => !away.peers.isConnected(TWO.id));
  const { connections } = away;
  for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve));
  assert.equal(away.connections, connections);
});

test('messages to a peer that is not reached are dropped, not kept for later', async (t) => {
  const directory = await aDirectory(t);
  const [one, two] = [aPeer(t, directory, ONE), aPeer(t, directory, TWO)];
  one.peers.setPeers([TWO]);
  await eventually(() => one.clock.delaysMs.length >= 2);
  for (let commit = 1; commit <= 1000; commit++) one.peers.send(newMessage('heartbeat', TWO.id, { commit }));

  await serve(t, directory, two, TWO);
  await eventually(() => two.peers.isConnected(ONE.id));
  await eventually(() => {
    one.peers.send(newMessage('heartbeat', TWO.id, { commit: 5000 }));
    return two.received.includes(5000);
  });

  assert.ok(
    two.received.every((commit) => commit === 5000),
    `${two.received.slice(0, 5)}`,
  );
});

test('a peer that is none any more is not tried again', async (t) => {
  const one = aPeer(t, await aDirectory(t), ONE);
  one.peers.setPeers([TWO]);
  await eventually(() => one.clock.delaysMs.length >= 2);

  one.peers.setPeers([]);
  const { connections } = one;
  for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve));

  assert.equal(one.connections, connections);
});

test('a peer that is closed connects to nobody any more, whoever greets it', async (t) => {
  const one = aPeer(t, await aDirectory(t), ONE);
  one.peers.close();

  async function* greet(): AsyncIterable<PeerMessage> {
    yield { ...emptyPeerMessage, hello: { from: TWO, clusterId: CLUSTER } };
  }
  const context: CallContext = {
    signal: new AbortController().signal,
    caller: { role: 'manager', nodeId: TWO.nodeId },
    isForwarded: false,
  };
  await assert.rejects(async () => one.peers.handlers.exchange(greet(), context), /is stopping/);

  assert.equal(one.connections, 0);
});
