// One member of the consensus group, as a pure state machine: no I/O, no clock, no randomness of its own. Input are
// `step`, `tick`, `propose` …; output is `takeReady`, which the host carries out and reports back with `persisted`.
// The invariants, and who checks each, are in SPEC.md beside this file.
//
//   follower ──timeout──▶ pre-candidate ──quorum would vote──▶ candidate ──quorum voted──▶ leader
//      ▲──────────────────────┴── a leader, a higher term, a lost vote ──┴── no quorum heard ──┘
//
// The host's duties, in this order for each Ready:
//   1. hand `append` to the disk (appends end in order); send `messages` at once; answer `reads`
//   2. apply `committed`, in order
//   3. when an append is durable call `persisted` with it: that releases what may only be said then

import { assert } from '../../core/assert.ts';
import { SwarmError } from '../../core/errors.ts';
import {
  type Configuration,
  type ConfigurationChange,
  ConfigurationChangeCodec,
  type Entry,
  type EntryKind,
  emptyConfiguration,
  type RaftMessage,
} from '../../proto/generated/raft.ts';
import { decode, encode } from '../../proto/wire.ts';
import { applyChange, hasQuorum, isJoint, isVoter, participants } from './configuration.ts';
import type { Append, RaftOptions, RaftStart, Ready, Refusal, Role } from './contract.ts';
import { Leader, type LeaderContext, type ReplicationLimits } from './leader.ts';
import { ELECTION_TYPES, entryBytes, type MemberId, NO_ENTRIES, newMessage, TRANSFER } from './message.ts';
import { Outbox } from './outbox.ts';
import type { Progress } from './progress.ts';
import { RaftLog } from './raft-log.ts';

export class Raft implements LeaderContext {
  readonly #options: RaftOptions;
  readonly log: RaftLog;
  term: number;
  configuration: Configuration;
  leaderId: MemberId = 0;
  #vote: MemberId;
  #role: Role = 'follower';
  #leader: Leader | undefined;
  #votes = new Map<MemberId, boolean>();
  #electionElapsed = 0;
  #electionTimeout = 0;
  #heartbeatElapsed = 0;
  /** The last configuration entry that may be unapplied: no other may be proposed before it is. */
  #pendingConfigurationIndex = 0;
  #unappliedBytes = 0;
  readonly #outbox: Outbox;

  constructor(options: RaftOptions, start: RaftStart) {
    const { hardState, snapshot, entries } = start;
    this.#options = options;
    this.log = new RaftLog(snapshot ?? { index: 0, term: 0 }, entries, hardState.commit);
    this.term = hardState.term;
    this.#vote = hardState.vote;
    this.#outbox = new Outbox(hardState);
    this.configuration = snapshot?.configuration ?? emptyConfiguration;
    assert(this.log.lastTerm <= this.term, `the log has term ${this.log.lastTerm}, beyond ${this.term}`);
    this.#resetElection();
  }

  get id(): MemberId {
    return this.#options.id;
  }

  get limits(): ReplicationLimits {
    return this.#options.limits;
  }

  get role(): Role {
    return this.#role;
  }

  get vote(): MemberId {
    return this.#vote;
  }

  /** Present while leader: to whom leadership is being handed. */
  get transferTarget(): MemberId | undefined {
    return this.#leader?.transferTarget;
  }

  /** Present while leader, for metrics and explanations. */
  progressOf(id: MemberId): Progress | undefined {
    return this.#leader?.progressOf(id);
  }

  /** One unit of time has passed. */
  tick(): void {
    this.#electionElapsed++;
    if (this.#leader === undefined) {
      if (this.#electionElapsed >= this.#electionTimeout) this.campaign();
      return;
    }
    if (this.#electionElapsed >= this.#options.electionTicks) {
      this.#electionElapsed = 0;
      this.#leader.endTransfer();
      if (!this.#leader.checkQuorum()) {
        this.#becomeFollower(this.term, 0);
        return;
      }
    }
    if (++this.#heartbeatElapsed >= this.#options.heartbeatTicks) {
      this.#heartbeatElapsed = 0;
      this.#leader.broadcastHeartbeat();
    }
  }

  /** Asks the others whether they would vote for this member; stands for election if a quorum would. */
  campaign(): void {
    if (this.#role === 'leader') return;
    this.#resetElection();
    if (this.#mayCampaign()) this.#becomePreCandidate();
    // Who may not stand must not hold up who does: it waits for its leader no longer than others.
    else this.forgetLeader();
  }

  /** Gives up waiting for a leader that is known to be gone, so that others may be voted for at once. */
  forgetLeader(): void {
    if (this.#role === 'follower') this.leaderId = 0;
  }

  /** Adds entries to the log, in order. They are committed when they appear in `committed` with this term. */
  propose(payloads: readonly Uint8Array[]): { firstIndex: number; term: number } | Refusal {
    if (this.#leader === undefined) return 'not-leader';
    if (this.#leader.transferTarget !== undefined) return 'transferring';
    const bytes = payloads.reduce((sum, payload) => sum + payload.length, 0);
    // An empty log takes any proposal, however large.
    if (this.#unappliedBytes > 0 && this.#unappliedBytes + bytes > this.#options.uncommittedBytesMax)
      return 'overloaded';
    const firstIndex = this.log.lastIndex + 1;
    this.#append(payloads.map((payload) => ({ kind: 'normal', payload })));
    return { firstIndex, term: this.term };
  }

  /** Proposes a change of who takes part. Throws like `applyChange` for one that cannot be. */
  proposeChange(change: ConfigurationChange): { index: number; term: number } | Refusal {
    if (this.#leader === undefined) return 'not-leader';
    if (this.#leader.transferTarget !== undefined) return 'transferring';
    if (this.#pendingConfigurationIndex > this.log.handedOutIndex) return 'change-in-progress';
    applyChange(this.configuration, change);
    this.#appendChange(change);
    return { index: this.log.lastIndex, term: this.term };
  }

  /** Tells the peers what is committed now, instead of with the next entries or heartbeat. */
  announceCommit(): void {
    this.#leader?.announceCommit();
  }

  /** Asks for a linearizable read; its number appears in `reads` of a later Ready, unless leadership is lost. */
  readIndex(): number | 'not-leader' {
    return this.#leader?.askRead() ?? 'not-leader';
  }

  /** Hands leadership to a voter. Given up after one election timeout. */
  transferLeadership(to: MemberId): 'started' | 'not-leader' {
    if (this.#leader === undefined) return 'not-leader';
    if (to === this.id || !this.configuration.voters.includes(to))
      throw new SwarmError('invalid-argument', `member ${to} is not another voter: it cannot become leader`);
    this.#electionElapsed = 0;
    this.#leader.transfer(to);
    return 'started';
  }

  reportUnreachable(peer: MemberId): void {
    this.#leader?.onUnreachable(peer);
  }

  reportSnapshot(peer: MemberId, succeeded: boolean): void {
    this.#leader?.onSnapshotSent(peer, succeeded);
  }

  /** Forgets entries up to `index`, which a durable snapshot contains or every member has. */
  compact(index: number): void {
    this.log.compact(index);
  }

  /** A message of a peer. */
  step(message: RaftMessage): void {
    this.#learnCommit(message);
    if (message.term > this.term && !this.#meetHigherTerm(message)) return;
    if (message.term < this.term) {
      this.#answerLowerTerm(message);
      return;
    }
    switch (message.type) {
      case 'pre-vote':
      case 'vote':
        this.#onVoteRequest(message);
        return;
      case 'append':
      case 'heartbeat':
      case 'snapshot':
        this.#onLeaderMessage(message);
        return;
      case 'pre-vote-response':
        if (this.#role === 'pre-candidate') this.#countVote(message);
        return;
      case 'vote-response':
        if (this.#role === 'candidate') this.#countVote(message);
        return;
      case 'append-response':
        this.#leader?.onAppendResponse(message);
        return;
      case 'heartbeat-response':
        this.#leader?.onHeartbeatResponse(message);
        return;
      case 'timeout-now':
        if (this.#role === 'follower' && this.#mayCampaign()) this.#becomeCandidate(TRANSFER);
        return;
    }
  }

  /** What the host has to do now, or undefined. Call again until there is nothing. */
  /** With committed entries of at most so many bytes, but at least one; of 0 bytes: without any. */
  takeReady(applyBytesMax: number): Ready | undefined {
    this.#leader?.confirmReads();
    const committed = applyBytesMax > 0 ? this.#takeCommitted(applyBytesMax) : NO_ENTRIES;
    const reads = this.#leader?.takeReads() ?? [];
    const hardState = { term: this.term, vote: this.#vote, commit: this.log.committedIndex };
    const append = this.#outbox.takeAppend(this.log, hardState);
    const messages = this.#outbox.takeMessages();
    if (append === undefined && messages.length === 0 && committed.length === 0 && reads.length === 0)
      return undefined;
    return { append, messages, committed, reads };
  }

  /** An append of an earlier Ready is durable. */
  persisted(append: Append): void {
    for (const message of this.#outbox.persisted(append, this.log, this.id)) this.step(message);
    this.#leader?.maybeCommit();
  }

  /** Sends at once: for what is true whether or not anything is written. */
  send(message: RaftMessage): void {
    this.#outbox.send(this.#stamp(message));
  }

  /** Sends when everything up to now is durable: votes and acknowledgements. */
  #sendWhenDurable(message: RaftMessage): void {
    this.#outbox.sendWhenDurable(this.#stamp(message));
  }

  #stamp(message: RaftMessage): RaftMessage {
    return { ...message, from: this.id, term: message.term === 0 ? this.term : message.term };
  }

  /** Returns false when the message must have no effect. */
  #meetHigherTerm(message: RaftMessage): boolean {
    const { type, term, from } = message;
    if (type === 'pre-vote' || type === 'vote') {
      // While a leader is heard nobody else is voted for: a member that lost touch cannot depose it (thesis §4.2.3).
      const hearsLeader = this.leaderId !== 0 && this.#electionElapsed < this.#options.electionTicks;
      if (hearsLeader && message.context !== TRANSFER) return false;
      if (type === 'pre-vote') {
        this.#onVoteRequest(message);
        return false;
      }
    }
    if (type === 'pre-vote-response' && !message.rejected) {
      // The term is the one we asked for, not one that anybody is in.
      if (this.#role === 'pre-candidate' && term === this.term + 1) this.#countVote(message);
      return false;
    }
    const isFromLeader = type === 'append' || type === 'heartbeat' || type === 'snapshot';
    this.#becomeFollower(term, isFromLeader ? from : 0);
    return true;
  }

  #answerLowerTerm({ type, from }: RaftMessage): void {
    // A leader or candidate that fell behind learns the term from the answer, and ends.
    if (type === 'append' || type === 'heartbeat') this.send(newMessage('append-response', from));
    else if (type === 'pre-vote') this.send(newMessage('pre-vote-response', from, this.#refusal()));
  }

  #onVoteRequest({ type, from, term, logIndex, logTerm }: RaftMessage): void {
    const isPreVote = type === 'pre-vote';
    const isFree =
      this.#vote === from || (this.#vote === 0 && this.leaderId === 0) || (isPreVote && term > this.term);
    const isGranted = isFree && this.log.isUpToDate(logIndex, logTerm);
    const answer = isPreVote ? 'pre-vote-response' : 'vote-response';
    if (isPreVote) {
      this.send(newMessage(answer, from, isGranted ? { term } : this.#refusal()));
      return;
    }
    this.#sendWhenDurable(newMessage(answer, from, isGranted ? {} : this.#refusal()));
    if (!isGranted) return;
    this.#electionElapsed = 0;
    this.#vote = from;
  }

  /**
   * What is known to be committed goes with every request for a vote, and with every vote that is not given. Without this a
   * voter may never learn that a change of voters is committed: who needs its vote does not get it, for the one has the
   * longer log, and the other does not know that it may stand.
   */
  #committed(): Partial<RaftMessage> {
    const commit = this.log.committedIndex;
    return { commit, hintTerm: this.log.termOf(commit) ?? 0 };
  }

  #refusal(): Partial<RaftMessage> {
    return { rejected: true, ...this.#committed() };
  }

  /** That an entry is committed is true in every term. */
  #learnCommit({ type, commit, hintTerm }: RaftMessage): void {
    if (!ELECTION_TYPES.has(type)) return;
    if (hintTerm !== 0 && this.log.termOf(commit) === hintTerm) this.log.commitTo(commit);
  }

  #onLeaderMessage(message: RaftMessage): void {
    assert(this.#role !== 'leader', `members ${this.id} and ${message.from} both lead term ${this.term}`);
    if (this.#role !== 'follower') this.#becomeFollower(this.term, message.from);
    this.leaderId = message.from;
    this.#electionElapsed = 0;
    if (message.type === 'append') this.#onAppend(message);
    else if (message.type === 'snapshot') this.#onSnapshot(message);
    else {
      this.log.commitTo(message.commit);
      this.send(newMessage('heartbeat-response', message.from, { context: message.context }));
    }
  }

  #onAppend({ from, logIndex, logTerm, entries, commit }: RaftMessage): void {
    if (logIndex < this.log.committedIndex) {
      // An old message: what is committed is equal everywhere.
      this.#sendWhenDurable(newMessage('append-response', from, { logIndex: this.log.committedIndex }));
      return;
    }
    const last = this.log.accept(logIndex, logTerm, entries);
    if (last !== undefined) {
      this.log.commitTo(Math.min(commit, last));
      this.#sendWhenDurable(newMessage('append-response', from, { logIndex: last }));
      return;
    }
    const hint = this.log.findConflict(logIndex, logTerm);
    this.#sendWhenDurable(
      newMessage('append-response', from, {
        rejected: true,
        logIndex,
        hintIndex: hint.index,
        hintTerm: hint.term,
      }),
    );
  }

  #onSnapshot({ from, snapshot }: RaftMessage): void {
    assert(snapshot !== undefined, 'a snapshot message without its mark');
    const { index, term, configuration } = snapshot;
    if (index > this.log.committedIndex) {
      // With the entry itself here, the entries before it are the leader's as well.
      if (this.log.termOf(index) === term) this.log.commitTo(index);
      else {
        this.log.restore(snapshot);
        this.#outbox.install(snapshot);
        this.configuration = configuration;
      }
    }
    this.#sendWhenDurable(newMessage('append-response', from, { logIndex: this.log.committedIndex }));
  }

  #mayCampaign(): boolean {
    return (
      isVoter(this.configuration, this.id) &&
      !this.#outbox.isInstalling &&
      !this.log.hasUnappliedConfiguration()
    );
  }

  #becomeFollower(term: number, leaderId: MemberId): void {
    assert(term >= this.term, `term would fall from ${this.term} to ${term}`);
    if (term > this.term) {
      this.term = term;
      this.#vote = 0;
    }
    this.#role = 'follower';
    this.#leader = undefined;
    this.leaderId = leaderId;
    this.#unappliedBytes = 0;
    this.#resetElection();
  }

  #becomePreCandidate(): void {
    this.#role = 'pre-candidate';
    this.leaderId = 0;
    this.#votes.clear();
    const { lastIndex: logIndex, lastTerm: logTerm } = this.log;
    const term = this.term + 1;
    for (const peer of this.#voters())
      if (peer !== this.id)
        this.send(newMessage('pre-vote', peer, { term, logIndex, logTerm, ...this.#committed() }));
    this.#countVote({ ...newMessage('pre-vote-response', this.id), from: this.id });
  }

  #becomeCandidate(context: number): void {
    this.#role = 'candidate';
    this.leaderId = 0;
    this.#votes.clear();
    this.term++;
    this.#vote = this.id;
    this.#resetElection();
    const { lastIndex: logIndex, lastTerm: logTerm } = this.log;
    // Asking waits for the disk as well: who forgot the term after being elected by the others could lead it twice.
    for (const peer of this.#voters())
      this.#sendWhenDurable(
        peer === this.id
          ? newMessage('vote-response', peer)
          : newMessage('vote', peer, { logIndex, logTerm, context, ...this.#committed() }),
      );
  }

  #countVote({ from, rejected }: RaftMessage): void {
    this.#votes.set(from, !rejected);
    if (hasQuorum(this.configuration, (id) => this.#votes.get(id) === true)) {
      if (this.#role === 'candidate') this.#becomeLeader();
      // A refusal may have told of a committed change meanwhile, which has to be applied first.
      else if (this.#mayCampaign()) this.#becomeCandidate(0);
      else this.#becomeFollower(this.term, 0);
      return;
    }
    const mayStillWin = hasQuorum(this.configuration, (id) => this.#votes.get(id) !== false);
    if (!mayStillWin) this.#becomeFollower(this.term, 0);
  }

  #becomeLeader(): void {
    this.#role = 'leader';
    this.leaderId = this.id;
    this.#electionElapsed = 0;
    this.#heartbeatElapsed = 0;
    this.#unappliedBytes = 0;
    this.#leader = new Leader(this);
    // Some entry of an earlier leader may be a change of configuration: wait for all of them.
    this.#pendingConfigurationIndex = this.log.lastIndex;
    this.#append([{ kind: 'noop', payload: new Uint8Array(0) }]);
  }

  #append(entries: readonly { kind: EntryKind; payload: Uint8Array }[]): void {
    const first = this.log.lastIndex + 1;
    const complete = entries.map((entry, position) => ({
      ...entry,
      term: this.term,
      index: first + position,
    }));
    this.log.append(complete);
    for (const entry of complete) this.#unappliedBytes += entryBytes(entry);
    this.#leader?.broadcastAppend();
  }

  #appendChange(change: ConfigurationChange): void {
    this.#append([{ kind: 'configuration', payload: encode(ConfigurationChangeCodec, change) }]);
    this.#pendingConfigurationIndex = this.log.lastIndex;
  }

  #takeCommitted(bytesMax: number): readonly Entry[] {
    const committed = this.log.takeCommitted(bytesMax);
    for (const entry of committed) {
      this.#unappliedBytes = Math.max(0, this.#unappliedBytes - entryBytes(entry));
      if (entry.kind === 'configuration') this.#applyConfiguration(entry);
    }
    const { configuration, log } = this;
    // Both majorities know of the change: the leader, also a new one, leaves the joint configuration by itself.
    if (this.#leader !== undefined && isJoint(configuration))
      if (committed.length > 0 && log.handedOutIndex >= this.#pendingConfigurationIndex)
        this.#appendChange({ steps: [] });
    return committed;
  }

  #applyConfiguration({ payload }: Entry): void {
    this.configuration = applyChange(this.configuration, decode(ConfigurationChangeCodec, payload));
    // A restart must not begin with an older configuration than this one acted on.
    this.#outbox.rememberCommit();
    // Whoever goes with this change, or is led by somebody else after it, should know that it is committed.
    this.#leader?.announceCommit();
    // Without a vote nobody leads, nor goes on asking for the votes of others.
    if (this.#role !== 'follower' && !isVoter(this.configuration, this.id)) {
      this.#becomeFollower(this.term, 0);
      return;
    }
    if (this.#leader === undefined) return;
    this.#leader.followConfiguration();
    this.#leader.maybeCommit();
    this.#leader.broadcastAppend();
  }

  #voters(): MemberId[] {
    return participants(this.configuration).filter((id) => isVoter(this.configuration, id));
  }

  #resetElection(): void {
    const { electionTicks, random } = this.#options;
    this.#electionElapsed = 0;
    this.#electionTimeout = electionTicks + Math.floor(random() * electionTicks);
  }
}
