// The log that makes all managers agree. The store sees only this interface; two drivers stand behind it: embedded Raft
// (`manager/raft-host/`) and etcd (`manager/etcd-log/`).

import { SwarmError } from '../../core/errors.ts';
import type { LogEntry } from '../../proto/generated/log.ts';

/** Only the leader does this, and this manager is not it. Nothing was stored: the leader can be asked the same. */
export class NotLeaderError extends SwarmError {
  readonly leaderAddress: string | undefined;

  constructor(leaderAddress: string | undefined, hint?: string) {
    super(
      'unavailable',
      leaderAddress === undefined
        ? 'the cluster has no leader at the moment'
        : `this manager does not lead the cluster; ${leaderAddress} does`,
      { isUndone: true, ...(hint !== undefined && { hint }) },
    );
    this.leaderAddress = leaderAddress;
  }
}

/** What the log feeds: the store's tables. */
export interface StateMachine {
  /** Applies one committed entry, in log order. The result goes back to the proposer. */
  apply(index: number, payload: Uint8Array): ApplyResult;
  /** The records of a snapshot of the state as it is now; later changes must not show in it. */
  snapshot(): Iterable<Uint8Array>;
  /** Replaces the whole state by the records of a snapshot taken after entry `index`, all at once in the end. */
  restore(index: number, records: AsyncIterable<readonly Uint8Array[]>): Promise<void>;
}

/** A state machine made of objects, for a log that keeps those instead of entries. */
export interface ObjectStateMachine extends StateMachine {
  /** Begins to try entries on top of the state as it is now, which they leave alone. */
  rehearse(): Rehearsal;
}

/** What entries would do if they were applied one after another; the next entry sees those before it. */
export interface Rehearsal {
  /** What applying the entry will answer. */
  add(index: number, payload: Uint8Array): RehearsedEntry;
  /** What all entries together leave of each object that they touch: its snapshot record, undefined when it is gone. */
  objects(): Iterable<RehearsedObject>;
}

export interface RehearsedEntry {
  readonly entry: LogEntry;
  readonly result: ApplyResult;
}

export interface RehearsedObject {
  readonly kind: string;
  readonly id: string;
  /** The entry that touched it last. */
  readonly index: number;
  readonly record: Uint8Array | undefined;
}

export type ApplyResult =
  | {
      readonly applied: true;
      readonly index: number;
      /** 32 bits of what became of the objects: whoever has another state has another number. */
      readonly digest?: number;
    }
  /** A guard of the entry did not hold: nothing of it was applied. */
  | { readonly applied: false; readonly index: number; readonly reason: string };

/** Who may write. */
export interface Leadership {
  readonly isLeader: boolean;
  /** host:port of the leader, undefined when nobody is known to lead. */
  readonly leaderAddress: string | undefined;
  /** Grows with every new leader. */
  readonly term: number;
}

export interface ReplicatedLog extends AsyncDisposable {
  /** Restores and replays what was committed before; afterwards `propose` may be called. */
  open(machine: ObjectStateMachine): Promise<void>;
  /**
   * Resolves when the entry is durable, committed and applied. Many may be in flight; they keep their order. Rejects
   * with NotLeaderError when the entry was certainly not stored, with `unavailable` when nobody knows.
   */
  propose(payload: Uint8Array): Promise<ApplyResult>;
  /** Resolves when the state contains everything that was committed anywhere before the call. */
  readBarrier(): Promise<void>;
  readonly leadership: Leadership;
  /** Calls back at every change of leadership. */
  onLeadership(listener: (leadership: Leadership) => void): () => void;
  /** Hands leadership to another manager; resolves when it has it. */
  transferLeadership(): Promise<void>;
  /** Bytes of the largest payload that this log takes, where it sets the limit. */
  readonly payloadBytesMax?: number;
  /** Index of the last applied entry; 0 before the first. */
  readonly appliedIndex: number;
}
