// The replicated log in an etcd of the operator's. Followers apply what they watch; the leader, elected by a lease, applies
// what it has written. How that amounts to a log: ETCD.md.

import type { Clock } from '../../core/clock.ts';
import { messageOf, SwarmError } from '../../core/errors.ts';
import type { EtcdManager } from '../../proto/generated/etcd.ts';
import { logLog } from '../log.ts';
import {
  type ApplyResult,
  type Leadership,
  NotLeaderError,
  type ObjectStateMachine,
  type ReplicatedLog,
} from '../store/replicated-log.ts';
import { PAYLOAD_BYTES_MAX } from './commit-record.ts';
import { Election } from './election.ts';
import { CALL_LIMIT_MS, EtcdClient } from './etcd-client.ts';
import { Follower } from './follower.ts';
import { found, getRevision, isCreatedAt, Keys, revisionOf } from './keys.ts';
import { Replica } from './replica.ts';
import type { EtcdSettings } from './settings.ts';
import { Writer } from './writer.ts';

export interface EtcdLogOptions {
  readonly settings: EtcdSettings;
  readonly clusterId: string;
  readonly self: EtcdManager;
  readonly clock: Clock;
  /** Runs a callback soon, after what is happening now. */
  readonly defer: (callback: () => void) => void;
  /** Told when etcd does not hold this cluster's state any more. */
  readonly onFatal: (error: unknown) => void;
  readonly observe?: (operation: 'transaction', durationMs: number) => void;
  readonly timing?: EtcdTiming;
  /** Ends it while it opens: an etcd that does not answer must not hold up a manager that is to stop. */
  readonly signal?: AbortSignal;
}

export interface EtcdTiming {
  /** How long a leader is missed that ended without a word. */
  readonly leaseSeconds: number;
  /** History younger than this stays, for managers that were away. */
  readonly historyMs: number;
  /** After this long etcd counts as away. */
  readonly callLimitMs: number;
}

const TIMING: EtcdTiming = { leaseSeconds: 5, historyMs: 10 * 60_000, callLimitMs: CALL_LIMIT_MS };
const CATCH_UP_LIMIT_MS = 60_000;

export class EtcdLog implements ReplicatedLog {
  readonly payloadBytesMax = PAYLOAD_BYTES_MAX;
  readonly #options: EtcdLogOptions;
  readonly #timing: EtcdTiming;
  readonly #client: EtcdClient;
  readonly #keys: Keys;
  readonly #stop = new AbortController();
  readonly #listeners = new Set<(leadership: Leadership) => void>();
  #replica!: Replica;
  #follower!: Follower;
  #writer!: Writer;
  #election!: Election;
  #leadership: Leadership = { isLeader: false, leaderAddress: undefined, term: 0 };
  #following = new AbortController();
  #followed: Promise<void> = Promise.resolve();
  #elected: Promise<void> = Promise.resolve();
  #barrier: Promise<void> = Promise.resolve();
  #nextBarrier: Promise<void> | undefined;

  constructor(options: EtcdLogOptions) {
    this.#options = options;
    this.#timing = options.timing ?? TIMING;
    this.#client = new EtcdClient(options.settings, options.clock, this.#timing.callLimitMs);
    this.#keys = new Keys(options.settings.prefix);
  }

  get appliedIndex(): number {
    return this.#replica?.index ?? 0;
  }

  /** Nobody believes in a lease that may have run out, whether a timer has noticed it or not. */
  get leadership(): Leadership {
    if (!this.#leadership.isLeader || this.#election.isLeaseValid) return this.#leadership;
    return { isLeader: false, leaderAddress: undefined, term: this.#leadership.term };
  }

  async open(machine: ObjectStateMachine): Promise<void> {
    const { clusterId, clock, defer, onFatal, observe = () => {} } = this.#options;
    const [client, keys] = [this.#client, this.#keys];
    const replica = new Replica(machine, clock);
    this.#replica = replica;
    this.#follower = new Follower({
      client,
      keys,
      clusterId,
      replica,
      clock,
      onFatal: (error) => this.#fail(error, onFatal),
    });
    this.#writer = new Writer({
      client,
      keys,
      replica,
      defer,
      observe,
      notLeader: () => this.#notLeader(),
      stepDown: (reason) => this.#stepDown(reason),
    });
    this.#election = new Election({
      client,
      keys,
      clock,
      self: this.#options.self,
      leaseSeconds: this.#timing.leaseSeconds,
      prepare: (term, revision, leading) => this.#prepare(term, revision, leading),
      release: () => this.#follow(),
      announce: (leadership) => this.#announce(leadership),
    });
    const { signal } = this.#options;
    const onAbort = () => this.#stop.abort(stopping());
    signal?.addEventListener('abort', onAbort, { once: true });
    if (signal?.aborted) onAbort();
    try {
      await this.#begin();
    } finally {
      signal?.removeEventListener('abort', onAbort);
    }
  }

  propose(payload: Uint8Array): Promise<ApplyResult> {
    if (this.#stop.signal.aborted) return Promise.reject(this.#stop.signal.reason);
    if (!this.leadership.isLeader) return Promise.reject(this.#notLeader());
    return this.#writer.propose(payload);
  }

  /** Whoever asks while one is under way shares the next. */
  readBarrier(): Promise<void> {
    this.#nextBarrier ??= this.#barrier
      .catch(() => {})
      .then(() => {
        this.#barrier = this.#nextBarrier as Promise<void>;
        this.#nextBarrier = undefined;
        return this.#readBarrier();
      });
    return this.#nextBarrier;
  }

  onLeadership(listener: (leadership: Leadership) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  async transferLeadership(): Promise<void> {
    if (!this.leadership.isLeader) throw this.#notLeader();
    const { count } = await this.#client.call('list the managers', (member, options) =>
      member.kv.range({ ...this.#keys.managers, count_only: true }, options),
    );
    if (Number(count) < 2)
      throw new SwarmError('failed-precondition', 'no other manager could take over the leadership');
    await this.#writer.hold();
    const { promise: taken, resolve } = Promise.withResolvers<boolean>();
    const unsubscribe = this.onLeadership(({ leaderAddress }) => {
      if (leaderAddress !== undefined) resolve(true);
    });
    const cancel = this.#options.clock.after(this.#timing.leaseSeconds * 2_000, () => resolve(false));
    this.#election.resign();
    const isTaken = await taken;
    unsubscribe();
    cancel();
    if (!isTaken || this.leadership.isLeader)
      throw new SwarmError('deadline-exceeded', 'no other manager took over the leadership in time');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort(stopping());
    await this.#elected;
    this.#following.abort();
    await this.#followed;
    this.#client.close();
  }

  async #begin(): Promise<void> {
    await this.#follower.restore(this.#stop.signal);
    this.#follow();
    const known = this.#leaderKnown();
    this.#elected = this.#election.run(this.#stop.signal);
    await known;
  }

  async #readBarrier(): Promise<void> {
    this.#stop.signal.throwIfAborted();
    const { isLeader, term } = this.leadership;
    const { succeeded, responses } = await this.#client.call(
      'confirm a read',
      (member, options) =>
        member.kv.txn(
          {
            compare: isLeader ? [isCreatedAt(this.#keys.leader, term)] : [],
            success: [getRevision(this.#keys.commit)],
            failure: [],
          },
          options,
        ),
      { signal: this.#stop.signal },
    );
    if (!succeeded) {
      this.#stepDown('another manager leads');
      throw this.#notLeader();
    }
    const commit = found(responses[0]);
    await this.#replica.reached(revisionOf(commit?.mod_revision ?? '0'), this.#timing.callLimitMs);
  }

  /** The key is ours: nobody else can write any more, so what has to be caught up with has an end. */
  async #prepare(term: number, revision: number, leading: AbortSignal): Promise<void> {
    await this.#replica.reached(revision, CATCH_UP_LIMIT_MS);
    this.#following.abort();
    await this.#followed;
    if (leading.aborted) return;
    this.#writer.lead(term, revision, leading);
    this.#compactLater(leading);
  }

  #follow(): void {
    if (this.#stop.signal.aborted) return;
    this.#following = new AbortController();
    const before = this.#followed;
    const { signal } = this.#following;
    this.#followed = before.then(() => this.#follower.follow(signal));
  }

  /** Or it takes too long: then whoever wants to write waits for it. */
  #leaderKnown(): Promise<void> {
    return new Promise((resolve, reject) => {
      const done = (settle: () => void) => {
        unsubscribe();
        cancel();
        this.#stop.signal.removeEventListener('abort', onStop);
        settle();
      };
      const onStop = () => done(() => reject(this.#stop.signal.reason));
      const cancel = this.#options.clock.after(this.#timing.leaseSeconds * 2_000, () => done(resolve));
      const unsubscribe = this.onLeadership(({ leaderAddress }) => {
        if (leaderAddress !== undefined) done(resolve);
      });
      this.#stop.signal.addEventListener('abort', onStop, { once: true });
    });
  }

  #stepDown(reason: string): void {
    if (!this.#leadership.isLeader) return;
    logLog.warn({ reason }, 'leadership given up');
    this.#election.stepDown();
  }

  #announce(leadership: Leadership): void {
    const before = this.#leadership;
    const { isLeader, leaderAddress, term } = leadership;
    if (before.isLeader === isLeader && before.leaderAddress === leaderAddress && before.term === term)
      return;
    this.#leadership = leadership;
    logLog.info({ 'etcd.term': term, 'etcd.leading': isLeader, 'etcd.leader': leaderAddress }, 'leadership');
    for (const listener of this.#listeners) listener(leadership);
  }

  /** Again and again while leading: discards the history that was the newest one period ago. */
  #compactLater(leading: AbortSignal, before?: number): void {
    if (this.#options.settings.compaction === 'off' || leading.aborted) return;
    const revision = this.#replica.revision;
    const cancel = this.#options.clock.after(this.#timing.historyMs, () => {
      leading.removeEventListener('abort', cancel);
      if (revision !== before) void this.#compact(revision);
      this.#compactLater(leading, revision);
    });
    leading.addEventListener('abort', cancel, { once: true });
  }

  async #compact(revision: number): Promise<void> {
    try {
      await this.#client.call('compact', (member, options) => member.kv.compact({ revision }, options));
    } catch (error) {
      // Somebody may have compacted further, or nobody lets us: then it is somebody else's work.
      logLog.debug({ error: messageOf(error) }, 'etcd was not compacted');
    }
  }

  #notLeader(): NotLeaderError {
    const { isLeader, leaderAddress } = this.leadership;
    return new NotLeaderError(isLeader ? undefined : leaderAddress);
  }

  #fail(error: unknown, onFatal: (error: unknown) => void): void {
    if (this.#stop.signal.aborted) return;
    this.#stop.abort(error);
    onFatal(error);
  }
}

function stopping(): SwarmError {
  return new SwarmError('unavailable', 'the manager is stopping');
}
