// Who leads: the manager whose lease holds the key "leader". Everybody tries to create it; whoever does leads until the
// lease is lost, the key is gone, or it resigns. The revision that created the key is the term.

import type { IKeyValue } from 'etcd3';
import { type Clock, sleep } from '../../core/clock.ts';
import { messageOf, SwarmError } from '../../core/errors.ts';
import { type EtcdManager, EtcdManagerCodec } from '../../proto/generated/etcd.ts';
import { decode, encode } from '../../proto/wire.ts';
import { logLog } from '../log.ts';
import type { Leadership } from '../store/replicated-log.ts';
import type { EtcdClient } from './etcd-client.ts';
import { found, get, getRevision, isCreatedAt, type Keys, put, remove, revisionOf } from './keys.ts';
import { Lease } from './lease.ts';
import { isDelete, watch } from './watch.ts';

export interface ElectionOptions {
  readonly client: EtcdClient;
  readonly keys: Keys;
  readonly clock: Clock;
  readonly self: EtcdManager;
  readonly leaseSeconds: number;
  /** The key is ours: makes this manager able to lead. The commit of this revision is the last of the leaders before. */
  readonly prepare: (term: number, commitRevision: number, leading: AbortSignal) => Promise<void>;
  /** From here on somebody else may lead. */
  readonly release: () => void;
  readonly announce: (leadership: Leadership) => void;
}

/** The key "leader" as it was found. */
interface Standing {
  readonly holder: IKeyValue;
  readonly commitRevision: number;
  readonly revision: number;
}

const RETRY_MS = 200;
// Who resigned leaves the key to others for so many lives of a lease.
const HOLD_OFF_LEASES = 2;

export class Election {
  readonly #options: ElectionOptions;
  #lease: Lease | undefined;
  #leading: AbortController | undefined;
  #hasResigned = false;

  constructor(options: ElectionOptions) {
    this.#options = options;
  }

  /** Whether etcd cannot have given the lease to nobody yet. */
  get isLeaseValid(): boolean {
    return this.#lease?.isValid ?? false;
  }

  /** Until the signal aborts. Then the lease is given back, so that another manager can lead at once. */
  async run(stop: AbortSignal): Promise<void> {
    const { client, clock, leaseSeconds } = this.#options;
    while (!stop.aborted) {
      try {
        const lease = await Lease.grant(client, clock, leaseSeconds, stop);
        this.#lease = lease;
        try {
          await this.#campaign(lease, AbortSignal.any([stop, lease.lost]));
        } finally {
          await lease.revoke();
        }
      } catch (error) {
        if (stop.aborted) return;
        logLog.warn({ error: messageOf(error) }, 'no part in the election, will try again');
        await sleep(clock, RETRY_MS, stop).catch(() => {});
      }
    }
  }

  /** Gives leadership up and leaves it to others for a while. */
  resign(): void {
    this.#hasResigned = true;
    this.#leading?.abort(new SwarmError('unavailable', 'leadership was handed over'));
  }

  /** Gives this term up; the next may be ours again. */
  stepDown(): void {
    this.#leading?.abort(new SwarmError('unavailable', 'leadership was given up'));
  }

  async #campaign(lease: Lease, signal: AbortSignal): Promise<void> {
    const { self, clock, announce } = this.#options;
    await this.#register(lease, signal);
    while (!signal.aborted) {
      const standing = await this.#stand(lease, signal);
      const { holder } = standing;
      const { nodeId, address } = decode(EtcdManagerCodec, holder.value);
      const term = revisionOf(holder.create_revision);
      if (holder.lease === lease.id) await this.#hold(lease, standing, signal);
      // What an earlier process of this node has left; nobody waits for its lease to run out.
      else if (nodeId === self.nodeId) await this.#removeKey(term, signal);
      else {
        announce({ isLeader: false, leaderAddress: address, term });
        if (!(await this.#untilChanged(standing, signal)))
          await sleep(clock, RETRY_MS, signal).catch(() => {});
      }
    }
  }

  async #register(lease: Lease, signal: AbortSignal): Promise<void> {
    const { client, keys, self } = this.#options;
    const request = put(keys.manager(self.nodeId), encode(EtcdManagerCodec, self), lease.id);
    await client.call('register', (member, options) => member.kv.txn({ success: [request] }, options), {
      signal,
    });
  }

  /** Creates the key, if nobody has it. */
  async #stand(lease: Lease, signal: AbortSignal): Promise<Standing> {
    const { client, keys, self } = this.#options;
    const { header, responses } = await client.call(
      'elect a leader',
      (member, options) =>
        member.kv.txn(
          {
            compare: [isCreatedAt(keys.leader, 0)],
            success: [
              put(keys.leader, encode(EtcdManagerCodec, self), lease.id),
              get(keys.leader),
              getRevision(keys.commit),
            ],
            failure: [get(keys.leader), get(keys.leader), getRevision(keys.commit)],
          },
          options,
        ),
      { signal },
    );
    const [holder, commit] = [found(responses[1]), found(responses[2])];
    if (holder === undefined || commit === undefined)
      throw new SwarmError('failed-precondition', 'the cluster is not in etcd any more');
    return {
      holder,
      commitRevision: revisionOf(commit.mod_revision),
      revision: revisionOf(header.revision),
    };
  }

  async #hold(lease: Lease, standing: Standing, signal: AbortSignal): Promise<void> {
    const { prepare, release, announce, self, clock } = this.#options;
    const term = revisionOf(standing.holder.create_revision);
    const leading = new AbortController();
    const either = AbortSignal.any([signal, leading.signal]);
    this.#leading = leading;
    this.#hasResigned = false;
    // At once, and not when whatever is awaited below has ended.
    either.addEventListener('abort', () => announce({ isLeader: false, leaderAddress: undefined, term }), {
      once: true,
    });
    try {
      await prepare(term, standing.commitRevision, either);
      if (either.aborted) return;
      announce({ isLeader: true, leaderAddress: self.address, term });
      for (let now = standing; !either.aborted; now = await this.#stand(lease, either)) {
        if (now.holder.create_revision !== standing.holder.create_revision) break;
        if (!(await this.#untilChanged(now, either))) await sleep(clock, RETRY_MS, either).catch(() => {});
      }
    } catch (error) {
      if (!either.aborted) throw error;
    } finally {
      leading.abort(new SwarmError('unavailable', 'another manager may lead'));
      release();
      this.#leading = undefined;
    }
    if (signal.aborted) return;
    // Also where this manager stands again at once: what may still be on its way must not count in the next term.
    const revision = await this.#removeKey(term, signal);
    if (this.#hasResigned) await this.#leaveToOthers(revision, lease, signal);
  }

  async #leaveToOthers(revision: number, lease: Lease, signal: AbortSignal): Promise<void> {
    const patience = new AbortController();
    const cancel = this.#options.clock.after(lease.ttlMs * HOLD_OFF_LEASES, () => patience.abort());
    const either = AbortSignal.any([signal, patience.signal]);
    await this.#untilEvent(revision + 1, (isGone) => !isGone, either);
    cancel();
  }

  /** True when somebody changed the key; false when nobody knows. */
  #untilChanged({ holder, revision }: Standing, signal: AbortSignal): Promise<boolean> {
    return this.#untilEvent(
      revision + 1,
      (isGone, { create_revision }) => isGone || create_revision !== holder.create_revision,
      signal,
    );
  }

  async #untilEvent(
    fromRevision: number,
    isIt: (isGone: boolean, kv: IKeyValue) => boolean,
    signal: AbortSignal,
  ): Promise<boolean> {
    const { client, keys } = this.#options;
    const seen = new AbortController();
    await watch(
      client,
      {
        range: { key: keys.leader },
        fromRevision,
        onRevision: (_revision, events) => {
          if (events.some((event) => isIt(isDelete(event), event.kv))) seen.abort();
        },
      },
      AbortSignal.any([signal, seen.signal]),
    );
    return seen.signal.aborted;
  }

  /** Removes the key of this term; returns the revision after which it is gone. */
  async #removeKey(term: number, signal: AbortSignal): Promise<number> {
    const { client, keys } = this.#options;
    const { header } = await client.call(
      'resign',
      (member, options) =>
        member.kv.txn(
          { compare: [isCreatedAt(keys.leader, term)], success: [remove({ key: keys.leader })] },
          options,
        ),
      { signal },
    );
    return revisionOf(header.revision);
  }
}
