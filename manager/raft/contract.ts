// What the core and its host say to each other.

import type { Random } from '../../core/clock.ts';
import type { Entry, HardState, RaftMessage, SnapshotMark } from '../../proto/generated/raft.ts';
import type { ReadState, ReplicationLimits } from './leader.ts';
import type { MemberId } from './message.ts';

export interface RaftOptions {
  readonly id: MemberId;
  /** Ticks without a leader before an election: between this and twice this, drawn anew each time. */
  readonly electionTicks: number;
  readonly heartbeatTicks: number;
  readonly random: Random;
  readonly limits: ReplicationLimits;
  /** Proposals beyond this many bytes not yet applied are refused. */
  readonly uncommittedBytesMax: number;
}

/** What the disk held. */
export interface RaftStart {
  readonly hardState: HardState;
  readonly snapshot: SnapshotMark | undefined;
  readonly entries: readonly Entry[];
}

export type Role = 'follower' | 'pre-candidate' | 'candidate' | 'leader';

/** What must be durable, all of it or nothing; a snapshot replaces all that the log held. */
export interface Append {
  readonly hardState: HardState | undefined;
  readonly snapshot: SnapshotMark | undefined;
  readonly entries: readonly Entry[];
}

export interface Ready {
  readonly append: Append | undefined;
  readonly messages: readonly RaftMessage[];
  readonly committed: readonly Entry[];
  readonly reads: readonly ReadState[];
}

export type Refusal = 'not-leader' | 'transferring' | 'overloaded' | 'change-in-progress';
