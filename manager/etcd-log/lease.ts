// A lease of etcd: lives while this manager says so in time. It counts as lost here before it can be at etcd, since its
// time runs here from the moment a renewal was sent, and there from when it arrived.

import type { ILeaseKeepAliveResponse } from 'etcd3';
import { type Clock, sleep } from '../../core/clock.ts';
import { messageOf, SwarmError } from '../../core/errors.ts';
import { logLog } from '../log.ts';
import type { EtcdClient } from './etcd-client.ts';

// Renewals in the life of a lease.
const RENEWALS = 5;
// Clocks of two machines do not run equally fast.
const TRUSTED_SHARE = 0.9;
const REVOKE_LIMIT_MS = 1_500;
const RECONNECT_MS = 50;

export class Lease {
  readonly id: string;
  readonly ttlMs: number;
  readonly #client: EtcdClient;
  readonly #clock: Clock;
  readonly #lost = new AbortController();
  #validUntilMs: number;

  private constructor(
    client: EtcdClient,
    clock: Clock,
    grant: { id: string; ttlMs: number; sentMs: number },
  ) {
    this.#client = client;
    this.#clock = clock;
    this.id = grant.id;
    this.ttlMs = grant.ttlMs;
    this.#validUntilMs = grant.sentMs + grant.ttlMs * TRUSTED_SHARE;
  }

  static async grant(
    client: EtcdClient,
    clock: Clock,
    ttlSeconds: number,
    signal: AbortSignal,
  ): Promise<Lease> {
    let sentMs = 0;
    const { ID: id, TTL } = await client.call(
      'grant a lease',
      (member, options) => {
        sentMs = performance.now();
        return member.leaseClient.leaseGrant({ TTL: ttlSeconds }, options);
      },
      { signal },
    );
    const lease = new Lease(client, clock, { id, ttlMs: Number(TTL) * 1000, sentMs });
    lease.#watchTime();
    void lease.#keepAlive();
    return lease;
  }

  /** Aborted when the lease is lost, or about to be. */
  get lost(): AbortSignal {
    return this.#lost.signal;
  }

  get isValid(): boolean {
    return !this.#lost.signal.aborted && performance.now() < this.#validUntilMs;
  }

  /** Gives it back: its keys go at once. */
  async revoke(): Promise<void> {
    this.#lose('it was given back');
    await this.#client
      .call('revoke a lease', (member, options) => member.leaseClient.leaseRevoke({ ID: this.id }, options), {
        limitMs: REVOKE_LIMIT_MS,
      })
      .catch((error: unknown) => logLog.debug({ error: messageOf(error) }, 'lease not revoked; it runs out'));
  }

  #lose(reason: string): void {
    if (!this.#lost.signal.aborted) this.#lost.abort(new SwarmError('unavailable', `lease lost: ${reason}`));
  }

  #watchTime(): void {
    const leftMs = this.#validUntilMs - performance.now();
    if (leftMs <= 0) {
      this.#lose('etcd did not confirm it in time');
      return;
    }
    const cancel = this.#clock.after(leftMs, () => {
      this.lost.removeEventListener('abort', cancel);
      this.#watchTime();
    });
    this.lost.addEventListener('abort', cancel, { once: true });
  }

  async #keepAlive(): Promise<void> {
    while (!this.lost.aborted) {
      try {
        await this.#renewOnStream();
      } catch (error) {
        logLog.debug({ error: messageOf(error) }, 'lease cannot be renewed at this member');
      }
      await sleep(this.#clock, RECONNECT_MS, this.lost).catch(() => {});
    }
  }

  /** Until the stream breaks or does not answer. */
  async #renewOnStream(): Promise<void> {
    const { member } = this.#client;
    const periodMs = this.ttlMs / RENEWALS;
    const stream = await member.leaseClient.leaseKeepAlive();
    const broken = new AbortController();
    stream.on('error', (error: unknown) => broken.abort(error));
    stream.on('end', () => broken.abort());
    const sent: number[] = [];
    stream.on('data', ({ TTL }: ILeaseKeepAliveResponse) => {
      const sentMs = sent.shift();
      if (Number(TTL) <= 0) this.#lose('etcd does not know it any more');
      else if (sentMs !== undefined) this.#validUntilMs = sentMs + Number(TTL) * 1000 * TRUSTED_SHARE;
    });
    const stop = AbortSignal.any([broken.signal, this.lost]);
    try {
      // An answer that is due for a whole period will not come from here.
      while (!stop.aborted && sent.length < 2) {
        sent.push(performance.now());
        stream.write({ ID: this.id });
        await sleep(this.#clock, periodMs, stop).catch(() => {});
      }
    } finally {
      if (!this.lost.aborted) this.#client.avoid(member);
      stream.end();
      stream.cancel();
    }
  }
}
