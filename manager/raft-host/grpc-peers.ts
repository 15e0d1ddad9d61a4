// Peers over gRPC: one stream from each member to each other, kept open, with mutual TLS underneath. What cannot be sent
// at once is dropped beyond a bound; the core sends again. Connections break early rather than late: keepalives notice a
// silent peer within seconds, and the stream's end is reported at once.

import { assert } from '../../core/assert.ts';
import { type Clock, sleep } from '../../core/clock.ts';
import { messageOf, SwarmError } from '../../core/errors.ts';
import {
  emptyPeerMessage,
  emptySnapshotPiece,
  type Member,
  type PeerMessage,
  PeerService,
  type RaftMessage,
  type SnapshotPiece,
} from '../../proto/generated/raft.ts';
import { type Channel, type Client, createClient } from '../../rpc/client.ts';
import type { CallContext, Handlers } from '../../rpc/server.ts';
import { logLog } from '../log.ts';
import type { MemberId } from '../raft/message.ts';
import type { PeerEvents, PeerNetwork, SnapshotHead } from './peers.ts';

export interface GrpcPeersOptions {
  readonly clusterId: string;
  readonly clock: Clock;
  /** A connection to the member, to nobody else of that name. */
  readonly connect: (member: Member) => Channel;
  /** Whether the caller may speak as this member. Throws `permission-denied`. */
  readonly authorize: (context: CallContext, from: MemberId, members: readonly Member[]) => void;
}

// Between two attempts to reach a peer. The first is quick: a restarted manager is back in a moment.
const RETRY_MIN_MS = 20;
const RETRY_MAX_MS = 1_000;
/** Options of a channel that notices a silent peer: pings when idle, and gives up on one that does not answer. */
export const PEER_CHANNEL_OPTIONS = {
  'grpc.keepalive_time_ms': 1_000,
  'grpc.keepalive_timeout_ms': 1_500,
  'grpc.keepalive_permit_without_calls': 1,
  // Each attempt is a new channel: the waiting between attempts is ours, and ends when the peer greets us.
  'grpc.use_local_subchannel_pool': 1,
};
// Messages that wait for a slow connection. Entries are sent again by the core, votes are useless by then.
const WAITING_MAX = 256;

export class GrpcPeers implements PeerNetwork {
  readonly #options: GrpcPeersOptions;
  readonly #self: Member;
  readonly #events: PeerEvents;
  readonly #links = new Map<MemberId, Link>();
  /** Streams on which each peer is heard. */
  readonly #heard = new Map<MemberId, number>();
  #members: readonly Member[] = [];
  #isClosed = false;

  constructor(options: GrpcPeersOptions, self: Member, events: PeerEvents) {
    this.#options = options;
    this.#self = self;
    this.#events = events;
  }

  setPeers(peers: readonly Member[]): void {
    this.#members = peers;
    for (const [id, { member }] of this.#links) {
      const known = peers.find((peer) => peer.id === id);
      if (known === undefined ? !this.isConnected(id) : known.address !== member.address) this.#unlink(id);
    }
    for (const member of peers) this.#link(member);
  }

  send(message: RaftMessage): void {
    this.#links.get(message.to)?.send(message);
  }

  async sendSnapshot(to: MemberId, head: SnapshotHead, records: AsyncIterable<Uint8Array[]>): Promise<void> {
    const link = this.#links.get(to);
    if (link === undefined) throw new SwarmError('unavailable', `member ${to} is not a peer`);
    const call = link.peer.installSnapshot();
    await call.send({ ...emptySnapshotPiece, head });
    for await (const chunk of records) await call.send({ records: chunk });
    call.end();
    await call.response;
  }

  isConnected(peer: MemberId): boolean {
    return (this.#heard.get(peer) ?? 0) > 0;
  }

  close(): void {
    this.#isClosed = true;
    for (const id of [...this.#links.keys()]) this.#unlink(id);
  }

  /** What peers call. */
  readonly handlers: Handlers<typeof PeerService> = {
    exchange: async (messages, context) => {
      let from = 0;
      try {
        for await (const { hello, messages: batch } of messages) {
          if (hello !== undefined) from = this.#greet(hello, context);
          if (from === 0) throw new SwarmError('invalid-argument', 'hello: the first message must have it');
          for (const message of batch) this.#events.onMessage({ ...message, from });
        }
      } finally {
        if (from !== 0) this.#partFrom(from);
      }
      return {};
    },
    installSnapshot: async (pieces, context) => {
      const iterator = pieces[Symbol.asyncIterator]();
      const first = await iterator.next();
      const head = (first.value as SnapshotPiece | undefined)?.head;
      if (head === undefined) throw new SwarmError('invalid-argument', 'head: the first piece must have it');
      this.#options.authorize(context, head.from, this.#members);
      await this.#events.onSnapshot(head, recordsOf(iterator));
      return {};
    },
  };

  #link(member: Member): void {
    if (this.#links.has(member.id)) return;
    this.#links.set(member.id, new Link(this.#options, this.#self, member, this.#events));
  }

  #unlink(id: MemberId): void {
    this.#links.get(id)?.close();
    this.#links.delete(id);
  }

  #greet({ from, clusterId }: NonNullable<PeerMessage['hello']>, context: CallContext): MemberId {
    // The server may end later than this: a connection back would then be nobody's to close.
    if (this.#isClosed) throw new SwarmError('unavailable', 'the manager is stopping');
    if (clusterId !== this.#options.clusterId)
      throw new SwarmError('permission-denied', `this manager belongs to another cluster than ${clusterId}`);
    this.#options.authorize(context, from.id, this.#members);
    this.#heard.set(from.id, (this.#heard.get(from.id) ?? 0) + 1);
    // Who is new here, or was away, learns who the others are from what the leader sends, and has to answer that.
    this.#link(from);
    // It is there: do not wait with an answer until the next attempt is due.
    this.#links.get(from.id)?.retryNow();
    return from.id;
  }

  #partFrom(from: MemberId): void {
    this.#heard.set(from, (this.#heard.get(from) ?? 1) - 1);
    if (!this.isConnected(from) && !this.#members.some(({ id }) => id === from)) this.#unlink(from);
    this.#events.onLost(from);
  }
}

async function* recordsOf(pieces: AsyncIterator<SnapshotPiece>): AsyncIterable<readonly Uint8Array[]> {
  for (let next = await pieces.next(); !next.done; next = await pieces.next()) yield next.value.records;
}

/** The connection to one peer. */
class Link {
  readonly member: Member;
  readonly #options: GrpcPeersOptions;
  #channel: Channel;
  readonly #events: PeerEvents;
  readonly #hello: PeerMessage;
  readonly #stop = new AbortController();
  #retry = new AbortController();
  #waiting: RaftMessage[] = [];
  #wake: (() => void) | undefined;

  constructor(options: GrpcPeersOptions, self: Member, member: Member, events: PeerEvents) {
    this.member = member;
    this.#options = options;
    this.#events = events;
    this.#channel = options.connect(member);
    this.#hello = { ...emptyPeerMessage, hello: { from: self, clusterId: options.clusterId } };
    this.#run().catch((error) => {
      assert(this.#stop.signal.aborted, `the connection to member ${member.id} ended: ${messageOf(error)}`);
    });
  }

  /** For calls beside the stream, over the same connection. */
  get peer(): Client<typeof PeerService> {
    return createClient(PeerService, this.#channel);
  }

  send(message: RaftMessage): void {
    if (this.#waiting.length >= WAITING_MAX) return;
    this.#waiting.push(message);
    this.#wake?.();
  }

  retryNow(): void {
    this.#retry.abort();
  }

  close(): void {
    this.#stop.abort();
    this.#retry.abort();
    this.#wake?.();
    this.#channel.close();
  }

  async #run(): Promise<void> {
    let retryMs = RETRY_MIN_MS;
    while (!this.#stop.signal.aborted) {
      const sent = await this.#exchange();
      if (this.#stop.signal.aborted) return;
      if (sent > 0) this.#events.onLost(this.member.id);
      retryMs = sent > 0 ? RETRY_MIN_MS : Math.min(RETRY_MAX_MS, retryMs * 2);
      this.#retry = new AbortController();
      await sleep(this.#options.clock, retryMs, this.#retry.signal).catch(() => {});
      if (this.#stop.signal.aborted) return;
      this.#channel.close();
      this.#channel = this.#options.connect(this.member);
    }
  }

  /** One stream, until it breaks. Returns how many batches went out. */
  async #exchange(): Promise<number> {
    const call = this.peer.exchange({ signal: this.#stop.signal });
    let isOver = false;
    const end = (error?: unknown) => {
      isOver = true;
      this.#wake?.();
      if (error !== undefined && !this.#stop.signal.aborted)
        logLog.debug({ 'raft.peer': this.member.id, error: messageOf(error) }, 'connection to peer ended');
    };
    call.response.then(() => end(), end);
    // What waited for the last connection is too old to be of use.
    this.#waiting = [];
    let sent = 0;
    try {
      for (let batch = this.#hello; !isOver; batch = { ...emptyPeerMessage, messages: this.#take() }) {
        await call.send(batch);
        sent++;
        if (this.#waiting.length === 0 && !isOver)
          await new Promise<void>((resolve) => {
            this.#wake = resolve;
          });
        this.#wake = undefined;
      }
    } catch (error) {
      end(error);
    }
    return sent - 1;
  }

  #take(): RaftMessage[] {
    const messages = this.#waiting;
    this.#waiting = [];
    return messages;
  }
}
