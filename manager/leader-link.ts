// Where the leader is, for calls that only it can answer.

import { type Clock, sleep } from '../core/clock.ts';
import type { Channel } from '../rpc/client.ts';
import type { LeaderLink } from '../rpc/forward.ts';
import type { IdentityHolder } from './identity-holder.ts';
import type { ReplicatedLog } from './store/replicated-log.ts';

export interface LeaderChannelOptions {
  readonly log: ReplicatedLog;
  readonly clock: Clock;
  /** A connection to the manager at host:port, with the certificate of now. */
  readonly connect: (address: string) => Channel;
  readonly identity: IdentityHolder;
}

// Twice the longest election that was measured: who waits longer waits for a majority.
const PATIENCE_MS = 4_000;

export class LeaderChannel implements LeaderLink {
  readonly #options: LeaderChannelOptions;
  readonly #unfollow: () => void;
  #current: { readonly address: string; readonly channel: Channel } | undefined;

  constructor(options: LeaderChannelOptions) {
    this.#options = options;
    // A channel that loses its connection makes the next one with the certificate that it began with.
    this.#unfollow = options.identity.follow(() => this.#disconnect());
  }

  get clock(): Clock {
    return this.#options.clock;
  }

  async find(signal: AbortSignal): Promise<Channel | undefined> {
    const { log } = this.#options;
    if (log.leadership.isLeader) return undefined;
    const address = log.leadership.leaderAddress ?? (await this.#awaitLeader(signal));
    if (address === undefined) return undefined;
    if (this.#current?.address !== address) {
      this.#disconnect();
      this.#current = { address, channel: this.#options.connect(address) };
    }
    return this.#current.channel;
  }

  close(): void {
    this.#unfollow();
    this.#disconnect();
  }

  /** The next call makes a new connection. */
  #disconnect(): void {
    const { channel } = this.#current ?? {};
    this.#current = undefined;
    // Calls that are under way end first.
    channel?.close();
  }

  /** The leader's address, undefined when it is this manager. Throws what there is to say about a missing leader. */
  async #awaitLeader(signal: AbortSignal): Promise<string | undefined> {
    const { log, clock } = this.#options;
    const found = Promise.withResolvers<void>();
    const unsubscribe = log.onLeadership(({ isLeader, leaderAddress }) => {
      if (isLeader || leaderAddress !== undefined) found.resolve();
    });
    const patience = new AbortController();
    try {
      await Promise.race([
        found.promise,
        sleep(clock, PATIENCE_MS, AbortSignal.any([signal, patience.signal])).catch(() => {}),
      ]);
    } finally {
      unsubscribe();
      patience.abort();
    }
    signal.throwIfAborted();
    const { isLeader, leaderAddress } = log.leadership;
    // Without a leader the log says why there is none.
    if (!isLeader && leaderAddress === undefined) await log.readBarrier();
    return isLeader ? undefined : leaderAddress;
  }
}
