// What only a leader has: the peers' progress, pending reads, a transfer under way. It lives as long as the leadership;
// a new term begins with a new one. Decides what to send and what is committed; all effects go through `LeaderContext`.

import { assert } from '../../core/assert.ts';
import type { Configuration, Entry, RaftMessage } from '../../proto/generated/raft.ts';
import { hasQuorum, isVoter, participants, quorumIndex } from './configuration.ts';
import { entryBytes, type MemberId, NO_ENTRIES, newMessage } from './message.ts';
import { Progress, type WindowLimits } from './progress.ts';
import type { RaftLog } from './raft-log.ts';

export interface ReplicationLimits {
  /** Payload of one append message; one larger entry still goes. */
  readonly appendBytesMax: number;
  readonly window: WindowLimits;
}

/** What the leader needs of the member it is part of. */
export interface LeaderContext {
  readonly id: MemberId;
  readonly term: number;
  readonly log: RaftLog;
  readonly configuration: Configuration;
  readonly limits: ReplicationLimits;
  send(message: RaftMessage): void;
}

/** A linearizable read: the state may be read as soon as `index` is applied. */
export interface ReadState {
  readonly read: number;
  readonly index: number;
}

export class Leader {
  readonly #context: LeaderContext;
  readonly #progress = new Map<MemberId, Progress>();
  /** The youngest read that each peer has confirmed our leadership for. */
  readonly #confirmedReads = new Map<MemberId, number>();
  #readsAsked = 0;
  #readsSent = 0;
  #reads: number[] = [];
  transferTarget: MemberId | undefined;
  #transferIsSent = false;

  constructor(context: LeaderContext) {
    this.#context = context;
    this.followConfiguration();
  }

  progressOf(id: MemberId): Progress | undefined {
    return this.#progress.get(id);
  }

  /** Peers come and go with the configuration. New ones begin as probes. */
  followConfiguration(): void {
    const { configuration, id, log, limits } = this.#context;
    const peers = participants(configuration).filter((peer) => peer !== id);
    for (const known of [...this.#progress.keys()]) if (!peers.includes(known)) this.#progress.delete(known);
    for (const peer of peers) {
      if (this.#progress.has(peer)) continue;
      const progress = new Progress(log.lastIndex + 1, limits.window);
      // Not heard yet, but not silent for a whole election timeout either.
      progress.isRecentlyActive = true;
      this.#progress.set(peer, progress);
    }
    if (this.transferTarget !== undefined && !isVoter(configuration, this.transferTarget)) this.endTransfer();
  }

  /**
   * Commits what a quorum has durable. Counts only entries of this term (thesis §3.6.2). The peers learn of it with the
   * next entries, or from `announceCommit`: a message for each commit would double the messages of a lone write.
   */
  maybeCommit(): void {
    const { configuration, id, log, term } = this.#context;
    const index = quorumIndex(configuration, (voter) =>
      voter === id ? log.stableIndex : (this.#progress.get(voter)?.match ?? 0),
    );
    if (index > log.committedIndex && log.termOf(index) === term) log.commitTo(index);
  }

  /** Tells the peers what is committed, those that do not know it yet. */
  announceCommit(): void {
    for (const [peer, { match, sentCommit }] of this.#progress)
      if (sentCommit < Math.min(match, this.#context.log.committedIndex)) this.#sendHeartbeat(peer);
  }

  broadcastAppend(): void {
    for (const peer of this.#progress.keys()) this.#sendAppend(peer, true);
  }

  broadcastHeartbeat(): void {
    for (const peer of this.#progress.keys()) this.#sendHeartbeat(peer);
  }

  /** True while a quorum was heard since the last call; the leader steps down otherwise. */
  checkQuorum(): boolean {
    const { configuration, id } = this.#context;
    const isAlive = hasQuorum(
      configuration,
      (voter) => voter === id || this.#progress.get(voter)?.isRecentlyActive === true,
    );
    for (const progress of this.#progress.values()) {
      progress.wasRecentlyActive = progress.isRecentlyActive;
      progress.isRecentlyActive = false;
    }
    return isAlive;
  }

  onAppendResponse(message: RaftMessage): void {
    const progress = this.#progress.get(message.from);
    if (progress === undefined) return;
    progress.isRecentlyActive = true;
    if (message.rejected) this.#onRefused(message, progress);
    else this.#onAccepted(message, progress);
  }

  onHeartbeatResponse({ from, context }: RaftMessage): void {
    const progress = this.#progress.get(from);
    if (progress === undefined) return;
    progress.isRecentlyActive = true;
    progress.resume();
    if (progress.match < this.#context.log.lastIndex || progress.state === 'probe')
      this.#sendAppend(from, true);
    this.#confirmedReads.set(from, Math.max(this.#confirmedReads.get(from) ?? 0, context));
  }

  /** The transport lost the peer: what was in flight is probably gone. */
  onUnreachable(peer: MemberId): void {
    const progress = this.#progress.get(peer);
    if (progress?.state === 'replicate') progress.becomeProbe();
  }

  /** The host has streamed a snapshot to the peer, or failed to. */
  onSnapshotSent(peer: MemberId, succeeded: boolean): void {
    const progress = this.#progress.get(peer);
    if (progress?.state !== 'snapshot') return;
    if (succeeded) progress.becomeProbe();
    else progress.failSnapshot();
    // Wait for a sign of life before trying again.
    progress.pause();
  }

  /** Asks for a read; every attempt gets a number of its own. Its answer comes from `takeReads`. */
  askRead(): number {
    this.#reads.push(++this.#readsAsked);
    return this.#readsAsked;
  }

  /** Sends the heartbeat that new reads wait for: one for all that were asked since the last. */
  confirmReads(): void {
    if (this.#readsSent === this.#readsAsked) return;
    this.#readsSent = this.#readsAsked;
    this.broadcastHeartbeat();
  }

  /** Reads whose leadership a quorum has confirmed. None before this term has committed anything (thesis §6.4). */
  takeReads(): readonly ReadState[] {
    const { configuration, id, log, term } = this.#context;
    if (this.#reads.length === 0 || log.termOf(log.committedIndex) !== term) return [];
    const done = this.#reads.filter((read) =>
      hasQuorum(configuration, (voter) => voter === id || (this.#confirmedReads.get(voter) ?? 0) >= read),
    );
    if (done.length > 0) this.#reads = this.#reads.filter((read) => !done.includes(read));
    return done.map((read) => ({ read, index: log.committedIndex }));
  }

  /** Hands leadership to a voter as soon as it has everything. */
  transfer(to: MemberId): void {
    this.transferTarget = to;
    this.#transferIsSent = false;
    this.#sendAppend(to, true);
    this.#continueTransfer(to);
  }

  endTransfer(): void {
    this.transferTarget = undefined;
  }

  #onAccepted({ from, logIndex }: RaftMessage, progress: Progress): void {
    const { log } = this.#context;
    assert(logIndex <= log.lastIndex, `member ${from} has entry ${logIndex}, which the leader has not`);
    const isNews = progress.accepted(logIndex);
    if (!isNews && !(progress.match === logIndex && progress.state === 'probe')) return;
    if (progress.state === 'probe') progress.becomeReplicate();
    else if (progress.state === 'snapshot') {
      // It may have got what it lacks by another way; with what it has now, entries can follow.
      if (progress.match + 1 >= log.firstIndex) {
        progress.becomeProbe();
        progress.becomeReplicate();
      }
    } else progress.release(logIndex);
    this.maybeCommit();
    while (this.#sendAppend(from, false));
    this.#continueTransfer(from);
  }

  #onRefused({ from, logIndex, hintIndex, hintTerm }: RaftMessage, progress: Progress): void {
    const hint = hintTerm > 0 ? this.#context.log.findConflict(hintIndex, hintTerm).index : hintIndex;
    if (!progress.refused(logIndex, hint)) return;
    if (progress.state === 'replicate') progress.becomeProbe();
    this.#sendAppend(from, true);
  }

  #continueTransfer(peer: MemberId): void {
    if (peer !== this.transferTarget || this.#transferIsSent) return;
    if (this.#progress.get(peer)?.match !== this.#context.log.lastIndex) return;
    this.#transferIsSent = true;
    this.#context.send(newMessage('timeout-now', peer));
  }

  #sendHeartbeat(peer: MemberId): void {
    const { log } = this.#context;
    const progress = this.#progress.get(peer);
    if (progress === undefined) return;
    // Never more than the peer is known to have: the rest of its log may still be another's.
    const commit = Math.min(progress.match, log.committedIndex);
    progress.sentCommit = Math.max(progress.sentCommit, commit);
    this.#context.send(newMessage('heartbeat', peer, { commit, context: this.#readsAsked }));
  }

  /** Sends the next entries, if the peer may get any. Without entries only when `evenIfEmpty`. */
  #sendAppend(peer: MemberId, evenIfEmpty: boolean): boolean {
    const { log, limits } = this.#context;
    const progress = this.#progress.get(peer);
    if (progress === undefined || progress.isPaused) return false;
    const logIndex = progress.next - 1;
    const logTerm = log.termOf(logIndex);
    let entries: readonly Entry[] | undefined = NO_ENTRIES;
    if (!progress.isWindowFull) entries = log.slice(progress.next, log.lastIndex, limits.appendBytesMax);
    if (logTerm === undefined || entries === undefined) return this.#sendSnapshot(peer, progress);
    if (entries.length === 0 && !evenIfEmpty) return false;
    this.#context.send(
      newMessage('append', peer, { logIndex, logTerm, entries, commit: log.committedIndex }),
    );
    progress.sent(
      entries.length,
      entries.reduce((bytes, entry) => bytes + entryBytes(entry), 0),
    );
    progress.sentCommit = log.committedIndex;
    return true;
  }

  /** Asks the host to stream its newest snapshot. A peer that is not there gets nothing. */
  #sendSnapshot(peer: MemberId, progress: Progress): boolean {
    if (!progress.isRecentlyActive) return false;
    const index = this.#context.log.firstIndex - 1;
    progress.becomeSnapshot(index);
    this.#context.send(newMessage('snapshot', peer, { logIndex: index }));
    return true;
  }
}
