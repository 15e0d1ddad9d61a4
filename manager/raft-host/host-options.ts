// What a member's host is given, and what it shows of the group.

import type { Clock, Random } from '../../core/clock.ts';
import type { Configuration, Member } from '../../proto/generated/raft.ts';
import type { Role } from '../raft/contract.ts';
import type { MemberId } from '../raft/message.ts';
import type { Raft } from '../raft/raft.ts';
import type { HandOverReason } from './hand-over.ts';
import type { LogOptions } from './log-on-disk.ts';
import type { OpenPeerNetwork, PeerNetwork } from './peers.ts';
import type { SpaceState } from './segment-supply.ts';

export interface RaftHostOptions {
  readonly log: LogOptions;
  readonly clusterId: string;
  /** This member, under a fresh id where the directory is empty; else only its address counts. */
  readonly self: Member;
  /** Of a fresh directory: the cluster's first members. Without them the leader of an existing cluster adds this one. */
  readonly founders?: readonly Member[];
  /** Goes on alone with what is on this disk: the other members are removed for good. */
  readonly forceNewCluster?: boolean;
  readonly openNetwork: OpenPeerNetwork;
  readonly clock: Clock;
  readonly random: Random;
  /** Runs a callback soon, after what is happening now: proposals of one moment go together. */
  readonly defer: (callback: () => void) => void;
  /** Entries between two snapshots. */
  readonly snapshotInterval: () => number;
  /** Entries between two after which the members compare what they have. */
  readonly stateHashInterval?: number;
  /** After so many bytes of entries a leader forgets those in its memory that all members have. */
  readonly entriesHeldBytes?: number;
  /** Entries that are applied in one turn of the event loop. */
  readonly applyBytesPerTurn?: number;
  readonly timing?: RaftTiming;
  readonly observe?: (operation: 'transaction' | 'fsync' | 'snapshot', durationMs: number) => void;
}

export interface RaftTiming {
  readonly tickMs: number;
  readonly heartbeatTicks: number;
  readonly electionTicks: number;
}

/** What operators and metrics see of the group. */
export interface RaftStatus {
  readonly self: Member;
  readonly role: Role;
  readonly term: number;
  readonly leaderId: MemberId;
  readonly committedIndex: number;
  readonly appliedIndex: number;
  readonly snapshotIndex: number;
  readonly configuration: Configuration;
  /** Changes are refused. */
  readonly isDiskFull: boolean;
  readonly space: SpaceState;
  /** How often this member has handed leadership on by itself since its start. */
  readonly handOvers: Readonly<Record<HandOverReason, number>>;
  /** After this entry the state was found to be the majority's; 0 before the first look. */
  readonly verifiedIndex: number;
  readonly peers: readonly PeerStatus[];
}

export interface PeerStatus {
  readonly member: Member;
  readonly isConnected: boolean;
  /** What the leader knows of it. */
  readonly match: number | undefined;
  readonly state: 'probe' | 'replicate' | 'snapshot' | undefined;
}

// 100 ms heartbeats; an election after one to two seconds of silence.
export const TIMING: RaftTiming = { tickMs: 50, heartbeatTicks: 2, electionTicks: 20 };
// Followers apply at most this much later than the leader.
export const ANNOUNCE_MS = 4;
// One proposal of the core: what one append message carries.
export const PROPOSAL_BYTES_MAX = 512 * 1024;
/** Bounds of the core: messages of half a megabyte, of which so many are ahead of their answers. */
export const CORE_LIMITS = {
  limits: {
    appendBytesMax: PROPOSAL_BYTES_MAX,
    window: { messagesMax: 64, bytesMax: 8 * 2 ** 20 },
  },
  uncommittedBytesMax: 64 * 2 ** 20,
};

/** What the core and its connections say of the group. */
export function statusOf(
  raft: Raft,
  network: PeerNetwork,
): Pick<RaftStatus, 'role' | 'term' | 'leaderId' | 'committedIndex' | 'configuration' | 'peers'> {
  const { role, term, leaderId, log, configuration } = raft;
  const peers = configuration.members
    .filter(({ id }) => id !== raft.id)
    .map((member) => ({
      member,
      isConnected: network.isConnected(member.id) && isAnswering(raft, member.id),
      match: raft.progressOf(member.id)?.match,
      state: raft.progressOf(member.id)?.state,
    }));
  return { role, term, leaderId, committedIndex: log.committedIndex, configuration, peers };
}

/** The leader knows more than whom it hears: who hears it. A peer with another address than the group has is heard only. */
function isAnswering(raft: Raft, id: MemberId): boolean {
  const progress = raft.progressOf(id);
  return progress === undefined || progress.isRecentlyActive || progress.wasRecentlyActive;
}
