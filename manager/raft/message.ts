// The messages of the protocol. One flat record for all types; unused fields are empty. By type:
//
//   append              logIndex/logTerm: the entry before `entries`; commit
//   append-response     logIndex: the follower has everything up to here; or rejected: logIndex is the refused
//                       predecessor, hintIndex/hintTerm where the follower's log may agree
//   heartbeat           commit, never beyond what the receiver is known to have; context: the youngest pending read
//   heartbeat-response  context
//   pre-vote, vote      term: the one asked for; logIndex/logTerm: the candidate's last entry;
//                       context 1: the leader itself asked for this election; commit and its term in hintTerm
//   …-vote-response     rejected, then with commit and its term in hintTerm
//   snapshot            snapshot: what the host has just received and verified
//   timeout-now         -

import {
  type Entry,
  emptyRaftMessage,
  type RaftMessage,
  type RaftMessageType,
} from '../../proto/generated/raft.ts';

/** Who speaks for whom: 0 is nobody. */
export type MemberId = number;

export const NO_ENTRIES: readonly Entry[] = Object.freeze([]);
/** `context` of a vote that the leader asked for: receivers do not wait for it to fall silent. */
export const TRANSFER = 1;

/** Elections: all of these tell what is committed, except votes that are given. */
export const ELECTION_TYPES: ReadonlySet<RaftMessageType> = new Set([
  'pre-vote',
  'pre-vote-response',
  'vote',
  'vote-response',
]);

/** A message of `type` with the given fields, all others empty. */
export function newMessage(
  type: RaftMessageType,
  to: MemberId,
  fields: Partial<RaftMessage> = {},
): RaftMessage {
  return { ...emptyRaftMessage, type, to, ...fields };
}

/** What an entry counts for in limits: its payload and about what the rest takes on the wire. */
export function entryBytes(entry: Entry): number {
  return entry.payload.length + 16;
}
