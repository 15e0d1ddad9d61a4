// What carries messages and snapshots between simulated managers: delayed, lost, and cut where the network is.

import { SwarmError } from '../../core/errors.ts';
import type { PeerEvents, PeerNetwork, SnapshotHead } from '../../manager/raft-host/peers.ts';
import type { Member, RaftMessage } from '../../proto/generated/raft.ts';
import type { Chance } from '../support/faults.ts';
import type { SimNetwork, SimProcess } from './sim-calls.ts';

const LOOK_MS = 50;
const LOST_MAX_MS = 20;

interface Peer<T> {
  readonly owner: T;
  readonly member: Member;
  readonly events: PeerEvents;
  /** Whom it connects to. */
  known: readonly number[];
}

export interface SimPeersOptions<T> {
  readonly network: SimNetwork;
  readonly chance: Chance;
  readonly processOf: (owner: T) => SimProcess;
  /** The two have a connection. */
  readonly isConnected: (from: T, to: T) => boolean;
  /** Drawn for every message. */
  readonly isLost: () => boolean;
}

export class SimPeers<T> {
  readonly #options: SimPeersOptions<T>;
  readonly #peers = new Map<SimProcess, Peer<T>>();

  constructor(options: SimPeersOptions<T>) {
    this.#options = options;
  }

  /** The network of one member, until its process dies. */
  open(owner: T, member: Member, events: PeerEvents): PeerNetwork {
    const process = this.#options.processOf(owner);
    const self: Peer<T> = { owner, member, events, known: [] };
    this.#peers.set(process, self);
    process.onDeath(() => this.#end(process, member));
    return {
      setPeers: (peers) => {
        self.known = peers.map(({ id }) => id);
      },
      close: () => this.#end(process, member),
      isConnected: (peer) => this.#reach(self, peer) !== undefined,
      send: (message) => {
        if (process.isAlive) this.#send(self, message);
      },
      sendSnapshot: (to, head, records) => this.#sendSnapshot(self, to, head, records),
    };
  }

  #end(process: SimProcess, self: Member): void {
    if (!this.#peers.delete(process)) return;
    for (const [other, { events }] of this.#peers)
      other.clock.wake(this.#options.chance() * LOST_MAX_MS, () => {
        if (this.#peers.has(other)) events.onLost(self.id);
      });
  }

  #reach(from: Peer<T>, to: number): Peer<T> | undefined {
    const { isConnected } = this.#options;
    const peer = [...this.#peers.values()].find(({ member }) => member.id === to);
    if (peer === undefined || !isConnected(from.owner, peer.owner)) return undefined;
    // As in grpc-peers.ts: to whom it knows, and back to who has greeted.
    const hasGreeted = () => peer.known.includes(from.member.id) && isConnected(peer.owner, from.owner);
    return from.known.includes(to) || hasGreeted() ? peer : undefined;
  }

  #send(from: Peer<T>, message: RaftMessage): void {
    const { network, isLost, processOf } = this.#options;
    if (isLost()) return;
    network.time.after(network.delayMs(), () => {
      const receiver = this.#reach(from, message.to);
      if (receiver === undefined) return;
      processOf(receiver.owner).clock.wake(0, () => receiver.events.onMessage(message));
    });
  }

  async #sendSnapshot(
    from: Peer<T>,
    to: number,
    head: SnapshotHead,
    records: AsyncIterable<Uint8Array[]>,
  ): Promise<void> {
    const { network, processOf } = this.#options;
    const receiver = this.#reach(from, to);
    if (receiver === undefined) throw new SwarmError('unavailable', 'not reached');
    const wait = () => new Promise<void>((resolve) => network.time.after(network.delayMs(), resolve));
    const broken = Promise.withResolvers<never>();
    broken.promise.catch(() => {});
    const look = () => {
      const isThere = processOf(from.owner).isAlive && this.#reach(from, to) === receiver;
      if (isThere) network.time.after(LOOK_MS, look);
      else broken.reject(new SwarmError('unavailable', 'the connection broke'));
    };
    const iterator = records[Symbol.asyncIterator]();
    async function* onTheWay(): AsyncIterable<Uint8Array[]> {
      for (;;) {
        const next = await Promise.race([iterator.next(), broken.promise]);
        if (next.done) return;
        await wait();
        yield next.value;
      }
    }
    look();
    await Promise.race([receiver.events.onSnapshot(head, onTheWay()), broken.promise]);
  }
}
