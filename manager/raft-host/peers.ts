// How a member reaches its peers: the host's side. Messages may be lost, repeated and reordered; the core copes. What
// carries them (mutual TLS streams, or a simulator) is behind this interface, and so is who may speak as whom.

import { SwarmError } from '../../core/errors.ts';
import type { Member, RaftMessage, SnapshotMark } from '../../proto/generated/raft.ts';
import type { MemberId } from '../raft/message.ts';

/** What comes before the records of a snapshot on its way to a peer. */
export interface SnapshotHead {
  readonly from: MemberId;
  readonly term: number;
  readonly mark: SnapshotMark;
  readonly rootHash: Uint8Array;
}

export interface PeerNetwork {
  /** The other members, whenever that changes. */
  setPeers(peers: readonly Member[]): void;
  /** Sends or drops; never waits. */
  send(message: RaftMessage): void;
  /** Resolves when the peer has made the snapshot its own. */
  sendSnapshot(to: MemberId, head: SnapshotHead, records: AsyncIterable<Uint8Array[]>): Promise<void>;
  /** True while there is a connection over which the peer was heard. */
  isConnected(peer: MemberId): boolean;
  /** Ends all connections. */
  close(): void;
}

/** What the network tells the host. */
export interface PeerEvents {
  onMessage(message: RaftMessage): void;
  /** Resolves when the snapshot is installed, or rejects with why not. */
  onSnapshot(head: SnapshotHead, records: AsyncIterable<readonly Uint8Array[]>): Promise<void>;
  /** A connection to the peer broke: it may be gone. */
  onLost(peer: MemberId): void;
}

export type OpenPeerNetwork = (self: Member, events: PeerEvents) => PeerNetwork;

/** Of a manager that is alone. */
export const noPeers: OpenPeerNetwork = () => ({
  setPeers() {},
  send() {},
  sendSnapshot: () => Promise.reject(new SwarmError('unavailable', 'there are no other managers')),
  isConnected: () => false,
  close() {},
});
