// Snapshots between members: the leader streams its newest one to a peer that needs entries which are gone; the peer
// writes it beside its own state and only then tells its core, which decides whether it is still wanted.

import { assert } from '../../core/assert.ts';
import { messageOf, SwarmError } from '../../core/errors.ts';
import type { RaftMessage } from '../../proto/generated/raft.ts';
import { logLog } from '../log.ts';
import type { Append } from '../raft/contract.ts';
import { newMessage } from '../raft/message.ts';
import type { LogOnDisk, OpenSnapshot, SnapshotReceiver } from './log-on-disk.ts';
import type { PeerNetwork, SnapshotHead } from './peers.ts';

interface Received {
  readonly head: SnapshotHead;
  readonly receiver: SnapshotReceiver;
  /** The core wants it. */
  isTaken: boolean;
  readonly installed: PromiseWithResolvers<void>;
}

export interface SnapshotExchangeOptions {
  readonly disk: LogOnDisk;
  readonly self: number;
  readonly network: () => PeerNetwork;
  /** Gives the core a message and carries out what follows. */
  readonly step: (message: RaftMessage) => void;
  /** Resolves when there is a snapshot of now, or none could be taken. */
  readonly renew: () => Promise<void>;
  readonly onSent: (peer: number, succeeded: boolean) => void;
}

export class SnapshotExchange {
  readonly #options: SnapshotExchangeOptions;
  #received: Received | undefined;
  #isReceiving = false;

  constructor(options: SnapshotExchangeOptions) {
    this.#options = options;
  }

  /** The core asks for this: `logIndex` is the least that the snapshot must contain. */
  async send({ to, term, logIndex }: RaftMessage): Promise<void> {
    const { self, network, onSent } = this.#options;
    let succeeded = false;
    try {
      const snapshot = await this.#openSnapshot(logIndex);
      try {
        const { mark, rootHash } = snapshot;
        logLog.info(
          { 'raft.peer': to, 'snapshot.index': mark.index, bytes: snapshot.bytes },
          'sending snapshot',
        );
        await network().sendSnapshot(to, { from: self, term, mark, rootHash }, snapshot.records());
        succeeded = true;
      } finally {
        await snapshot.close();
      }
    } catch (error) {
      logLog.warn({ 'raft.peer': to, error: messageOf(error) }, 'snapshot not sent, will be tried again');
    }
    onSent(to, succeeded);
  }

  /** The newest, or a newer one: a leader forgets entries sooner than it takes snapshots. */
  async #openSnapshot(leastIndex: number): Promise<OpenSnapshot> {
    const { disk, renew } = this.#options;
    const newest = await disk.openSnapshot();
    if (newest !== undefined && newest.mark.index >= leastIndex) return newest;
    await newest?.close();
    await renew();
    const renewed = await disk.openSnapshot();
    if (renewed !== undefined && renewed.mark.index >= leastIndex) return renewed;
    await renewed?.close();
    throw new SwarmError('unavailable', `there is no snapshot that contains entry ${leastIndex} yet`);
  }

  async receive(head: SnapshotHead, records: AsyncIterable<readonly Uint8Array[]>): Promise<void> {
    if (this.#isReceiving) throw new SwarmError('unavailable', 'another snapshot is being received');
    this.#isReceiving = true;
    try {
      const receiver = await this.#options.disk.receiveSnapshot(head.mark, head.rootHash);
      try {
        for await (const chunk of records) await receiver.write(chunk);
      } catch (error) {
        await receiver.abort();
        throw error;
      }
      await this.#offer(head, receiver);
    } finally {
      this.#isReceiving = false;
    }
  }

  /** Makes the received snapshot, which the core has taken, the state on the disk. */
  async install({ snapshot, hardState, entries }: Append): Promise<void> {
    const { disk } = this.#options;
    const received = this.#received;
    assert(
      received !== undefined && hardState !== undefined && received.head.mark.index === snapshot?.index,
      'the core installs a snapshot that was not received',
    );
    try {
      // Term and vote first: with the old log behind them they are true as well, the commit index would not be.
      const commit = Math.min(hardState.commit, disk.lastIndex);
      await disk.append({ hardState: { ...hardState, commit }, entries: [] });
      await received.receiver.finish();
      await disk.append({ hardState, entries });
      received.installed.resolve();
    } catch (error) {
      received.installed.reject(error);
      throw error;
    }
    logLog.info({ 'snapshot.index': snapshot.index }, 'snapshot of the leader installed');
  }

  /** To be called when the core hands out an append with a snapshot. */
  take(): void {
    if (this.#received !== undefined) this.#received.isTaken = true;
  }

  async #offer(head: SnapshotHead, receiver: SnapshotReceiver): Promise<void> {
    const installed = Promise.withResolvers<void>();
    installed.promise.catch(() => {});
    const received = { head, receiver, isTaken: false, installed };
    this.#received = received;
    const { from, term, mark: snapshot } = head;
    this.#options.step({ ...newMessage('snapshot', this.#options.self), from, term, snapshot });
    if (received.isTaken) await installed.promise;
    else await receiver.abort();
    this.#received = undefined;
  }
}
