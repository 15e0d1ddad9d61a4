// Runs one member of the consensus group: gives the core time, disk and peers, and is the store's replicated log. It
// decides nothing about consensus; that is manager/raft/.

import { sleep } from '../../core/clock.ts';
import { SwarmError } from '../../core/errors.ts';
import type {
  Configuration,
  ConfigurationChange,
  Member,
  RaftMessage,
  SnapshotMark,
} from '../../proto/generated/raft.ts';
import { logLog } from '../log.ts';
import { participants } from '../raft/configuration.ts';
import type { Append, RaftStart, Ready } from '../raft/contract.ts';
import type { MemberId } from '../raft/message.ts';
import { Raft } from '../raft/raft.ts';
import {
  type ApplyResult,
  type Leadership,
  NotLeaderError,
  type ReplicatedLog,
  type StateMachine,
} from '../store/replicated-log.ts';
import { Applier } from './applier.ts';
import { ApplyTurns } from './apply-turns.ts';
import { backupNewest } from './backup.ts';
import { DiskWriter } from './disk-writer.ts';
import { EntryForgetter } from './entry-forgetter.ts';
import { HandOver } from './hand-over.ts';
import {
  ANNOUNCE_MS,
  CORE_LIMITS,
  PROPOSAL_BYTES_MAX,
  type RaftHostOptions,
  type RaftStatus,
  type RaftTiming,
  statusOf,
  TIMING,
} from './host-options.ts';
import { LogOnDisk, type LogOptions } from './log-on-disk.ts';
import type { PeerNetwork } from './peers.ts';
import { diskFull, leadershipLost, Proposals } from './proposals.ts';
import { QuickElection } from './quick-election.ts';
import { explainQuorum } from './quorum.ts';
import { beginLog, forceNewCluster, requireCluster } from './recovery.ts';
import { SnapshotExchange } from './snapshot-exchange.ts';
import { SnapshotTaker } from './snapshot-taker.ts';
import { StateHash } from './state-hash.ts';
import { Waiters } from './waiters.ts';

export class RaftHost implements ReplicatedLog {
  readonly #options: RaftHostOptions;
  readonly #timing: RaftTiming;
  readonly #observe: NonNullable<RaftHostOptions['observe']>;
  readonly #proposals = new Proposals();
  readonly #waiters = new Waiters();
  readonly #listeners = new Set<(leadership: Leadership) => void>();
  readonly #stop = new AbortController();
  #self: Member;
  #disk!: LogOnDisk;
  #writer!: DiskWriter;
  #snapshots!: SnapshotExchange;
  #taker!: SnapshotTaker;
  #handOver!: HandOver;
  #applier!: Applier;
  #turns!: ApplyTurns;
  #stateHash!: StateHash;
  #election!: QuickElection;
  #raft!: Raft;
  #network!: PeerNetwork;
  #machine!: StateMachine;
  #configuration: Configuration | undefined;
  #leadership: Leadership = { isLeader: false, leaderAddress: undefined, term: 0 };
  #isElected = false;
  #isFlushPlanned = false;
  /** Commits up to here were announced; infinite while an announcement is planned. */
  #announcedIndex = 0;
  #lostLeadership: (() => void) | undefined;

  constructor(options: RaftHostOptions) {
    this.#options = options;
    this.#self = options.self;
    this.#timing = options.timing ?? TIMING;
    this.#observe = options.observe ?? (() => {});
  }

  get appliedIndex(): number {
    return this.#applier?.appliedIndex ?? 0;
  }

  get leadership(): Leadership {
    return this.#leadership;
  }

  get status(): RaftStatus {
    return {
      ...statusOf(this.#raft, this.#network),
      self: this.#self,
      appliedIndex: this.appliedIndex,
      snapshotIndex: this.#taker.index,
      isDiskFull: this.#writer.isFull,
      space: this.#disk.space,
      handOvers: this.#handOver.counts,
      verifiedIndex: this.#stateHash.verifiedIndex,
    };
  }

  async open(machine: StateMachine): Promise<void> {
    const { random, openNetwork } = this.#options;
    this.#machine = machine;
    const start = await this.#openDisk();
    this.#raft = new Raft(
      {
        id: this.#self.id,
        electionTicks: this.#timing.electionTicks,
        heartbeatTicks: this.#timing.heartbeatTicks,
        random,
        ...CORE_LIMITS,
      },
      start,
    );
    this.#assemble();
    if (start.snapshot !== undefined) await this.#applier.restore();
    this.#network = openNetwork(this.#self, {
      onMessage: (message) => this.#receive(message),
      onSnapshot: (head, records) => this.#snapshots.receive(head, records),
      onLost: (peer) => this.#onLost(peer),
    });
    this.#drain();
    this.#turns.begin();
    this.#scheduleTick();
    const { voters } = this.#raft.configuration;
    if (voters.length === 1 && voters[0] === this.#self.id) await this.#leadAlone();
  }

  propose(payload: Uint8Array): Promise<ApplyResult> {
    if (this.#stop.signal.aborted) return Promise.reject(this.#stop.signal.reason);
    if (this.#raft.role !== 'leader') return Promise.reject(this.#notLeader());
    if (this.#writer.isFull) return Promise.reject(diskFull());
    return new Promise((resolve, reject) => {
      this.#proposals.add({ payload, startedMs: performance.now(), resolve, reject });
      this.#planFlush();
    });
  }

  async readBarrier(): Promise<void> {
    this.#stop.signal.throwIfAborted();
    const read = this.#raft.readIndex();
    if (read === 'not-leader') throw this.#notLeader();
    const confirmed = this.#waiters.confirmed(read);
    this.#planFlush();
    await this.#waiters.applied(await confirmed);
  }

  onLeadership(listener: (leadership: Leadership) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Hands leadership to the voter that has most of the log, or to the one given. */
  async transferLeadership(to?: MemberId): Promise<void> {
    if (this.#raft.role !== 'leader') throw this.#notLeader();
    const target = to ?? this.#handOver.successor;
    if (target === undefined)
      throw new SwarmError('failed-precondition', 'no other manager could take over the leadership');
    this.#raft.transferLeadership(target);
    const lost = new Promise<void>((resolve) => {
      this.#lostLeadership = resolve;
    });
    this.#drain();
    const { tickMs, electionTicks } = this.#timing;
    const patience = new AbortController();
    const limit = sleep(this.#options.clock, tickMs * electionTicks * 2, patience.signal);
    limit.catch(() => {});
    const isDone = await Promise.race([lost.then(() => true), limit.then(() => false)]);
    patience.abort();
    if (!isDone)
      throw new SwarmError('deadline-exceeded', `member ${target} did not take over the leadership in time`);
  }

  /** Changes who takes part; resolves when the change is committed and applied here. Waits for one before it. */
  async changeMembers(change: ConfigurationChange): Promise<void> {
    const { tickMs, electionTicks } = this.#timing;
    for (let waitedTicks = 0; ; waitedTicks++) {
      const at = this.#raft.proposeChange(change);
      if (at === 'not-leader') throw this.#notLeader();
      if (typeof at === 'object') {
        this.#drain();
        await this.#waiters.applied(at.index);
        return;
      }
      if (waitedTicks > 2 * electionTicks)
        throw new SwarmError('unavailable', 'another change of the managers is under way', {
          hint: 'It needs a majority of them: see that they are up, and try again.',
        });
      await sleep(this.#options.clock, tickMs, this.#stop.signal);
    }
  }

  async takeSnapshot(): Promise<void> {
    await this.#taker.settled();
    if (this.appliedIndex > this.#taker.index) this.#taker.start();
    await this.#taker.settled();
  }

  /** What protects the keys of the log on this disk from now on; undefined: nothing but the file's mode. */
  setUnlockKey(unlockKey: string | undefined): Promise<void> {
    return this.#disk.setUnlockKey(unlockKey);
  }

  /** The state of now, as the bytes of a backup file. */
  async *backup(): AsyncIterable<Uint8Array> {
    await this.takeSnapshot();
    yield* backupNewest(this.#disk, this.#options.log, this.#options.clock.nowMs());
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#stop.signal.aborted) return;
    const reason = new SwarmError('unavailable', 'the manager is stopping');
    this.#stop.abort(reason);
    this.#giveUp(reason);
    this.#network?.close();
    await this.#taker?.settled();
    await this.#disk?.[Symbol.asyncDispose]();
  }

  async #openDisk(): Promise<RaftStart> {
    const { log: options, clusterId, self, founders } = this.#options;
    const logOptions: LogOptions = {
      ...options,
      observe: (operation, durationMs) => this.#observe(operation, durationMs),
      onFatal: (error) => this.#fail(error),
      onSnapshotWanted: () => this.#taker.start(),
    };
    const existing = await LogOnDisk.open(logOptions);
    if (existing !== undefined) {
      const { log, recovered } = existing;
      this.#disk = log;
      this.#self = { ...self, id: recovered.member.memberId };
      requireCluster(clusterId, recovered);
      return this.#options.forceNewCluster ? forceNewCluster(log, recovered, this.#self) : recovered;
    }
    this.#disk = await LogOnDisk.create(logOptions, { clusterId, memberId: self.id });
    return beginLog(this.#disk, founders);
  }

  /** What stands around the core. */
  #assemble(): void {
    const { clock, random, defer, snapshotInterval: interval } = this.#options;
    const [disk, raft, signal] = [this.#disk, this.#raft, this.#stop.signal];
    const network = () => this.#network;
    const forgetter = new EntryForgetter(raft, this.#options.entriesHeldBytes);
    this.#stateHash = new StateHash({
      raft,
      ...(this.#options.stateHashInterval !== undefined && { interval: this.#options.stateHashInterval }),
      onDiverged: (error) => this.#fail(error),
    });
    this.#applier = new Applier({
      machine: this.#machine,
      disk,
      proposals: this.#proposals,
      waiters: this.#waiters,
      observe: this.#observe,
      stateHash: this.#stateHash,
      onApplied: (bytes) => {
        this.#taker.applied(this.appliedIndex, bytes);
        forgetter.applied(this.appliedIndex, bytes);
        this.#turns.applied(bytes);
      },
      onRestored: (index) => this.#taker.replaced(index),
    });
    this.#handOver = new HandOver({ raft, network, disk, timing: this.#timing });
    const drain = () => this.#drain();
    const bytesPerTurn = this.#options.applyBytesPerTurn;
    this.#turns = new ApplyTurns({ raft, drain, defer, signal, bytesPerTurn });
    this.#election = new QuickElection({ clock, random, signal, raft, drain });
    this.#writer = new DiskWriter({
      disk,
      clock,
      signal,
      times: this.#handOver.times,
      onDurable: (append) => this.#onDurable(append),
      install: (append) => this.#snapshots.install(append),
      onFull: () => this.#onDiskFull(),
      onFatal: (error) => this.#fail(error),
    });
    this.#snapshots = new SnapshotExchange({
      disk,
      self: this.#self.id,
      network,
      step: (message) => this.#receive(message),
      renew: () => this.#taker.renew(),
      onSent: (peer, succeeded) => {
        raft.reportSnapshot(peer, succeeded);
        this.#drain();
      },
    });
    this.#taker = new SnapshotTaker({
      disk,
      interval,
      capture: () => this.#capture(),
      onCompacted: (index) => raft.compact(Math.min(index, raft.log.handedOutIndex)),
      defer,
      random,
      signal,
    });
  }

  /** The only voter need not wait for anybody: it leads when its own vote is on the disk. */
  async #leadAlone(): Promise<void> {
    this.#raft.campaign();
    this.#drain();
    await this.#waiters.applied(this.#raft.log.lastIndex + 1);
  }

  #scheduleTick(): void {
    this.#options.clock.after(this.#timing.tickMs, () => {
      if (this.#stop.signal.aborted) return;
      this.#scheduleTick();
      this.#raft.tick();
      this.#handOver.tick();
      this.#stateHash.tick();
      this.#drain();
    });
  }

  #planFlush(): void {
    if (this.#isFlushPlanned) return;
    this.#isFlushPlanned = true;
    this.#options.defer(() => {
      this.#isFlushPlanned = false;
      if (!this.#stop.signal.aborted) this.#drain();
    });
  }

  /** Brings waiting proposals into the log. During a transfer and at the limits they wait. */
  #enterProposals(): void {
    while (this.#proposals.waitingCount > 0) {
      const proposals = this.#proposals.takeWaiting(PROPOSAL_BYTES_MAX);
      const at = this.#raft.propose(proposals.map(({ payload }) => payload));
      if (typeof at === 'object') this.#proposals.place(proposals, at.firstIndex, at.term);
      else {
        this.#proposals.putBack(proposals);
        if (at === 'not-leader') this.#proposals.rejectWaiting(this.#notLeader());
        return;
      }
    }
  }

  #drain(): void {
    this.#enterProposals();
    const take = () => this.#raft.takeReady(this.#turns.bytesLeft);
    for (let ready = take(); ready !== undefined; ready = take()) {
      this.#carryOut(ready);
      this.#enterProposals();
    }
    this.#followConfiguration();
    this.#followLeadership();
    if (this.#raft.log.committedIndex > this.#announcedIndex) this.#announceSoon();
  }

  /** Followers hear of commits in groups: one message for each would cost as much as the entries. */
  #announceSoon(): void {
    this.#announcedIndex = Number.POSITIVE_INFINITY;
    this.#options.clock.after(ANNOUNCE_MS, () => {
      this.#announcedIndex = this.#raft.log.committedIndex;
      if (this.#stop.signal.aborted) return;
      this.#raft.announceCommit();
      this.#drain();
    });
  }

  #carryOut({ append, messages, committed, reads }: Ready): void {
    for (const message of messages) {
      if (message.type === 'snapshot') void this.#snapshots.send(message);
      else this.#network.send(this.#stateHash.stamp(message));
    }
    if (append?.snapshot !== undefined) {
      this.#snapshots.take();
      this.#applier.hold();
    }
    if (append !== undefined) this.#writer.write(append);
    this.#applier.apply(committed);
    for (const { read, index } of reads) this.#waiters.confirm(read, index);
  }

  #receive(message: RaftMessage): void {
    if (this.#stop.signal.aborted || message.to !== this.#self.id) return;
    // Who was removed has no say, also not about terms.
    if (this.#raft.configuration.removed.includes(message.from)) return;
    this.#stateHash.receive(message);
    this.#raft.step(message);
    this.#drain();
  }

  #onDurable(append: Append): void {
    if (this.#stop.signal.aborted) return;
    this.#raft.persisted(append);
    if (append.snapshot !== undefined) this.#applier.restore().catch((error) => this.#fail(error));
    this.#drain();
  }

  /** The state machine as it is now, if what is applied and what the configuration says belong together. */
  #capture(): { mark: SnapshotMark; records: Iterable<Uint8Array> } | undefined {
    const index = this.appliedIndex;
    const { log, configuration } = this.#raft;
    const term = log.termOf(index);
    const isSettled = !this.#applier.isRestoring && index > 0 && index === log.handedOutIndex;
    if (!isSettled || term === undefined) return undefined;
    const stateHash = this.#stateHash.value;
    return { mark: { index, term, configuration, stateHash }, records: this.#machine.snapshot() };
  }

  #followConfiguration(): void {
    const { configuration } = this.#raft;
    if (configuration === this.#configuration) return;
    this.#configuration = configuration;
    const known = participants(configuration);
    this.#network.setPeers(
      configuration.members.filter(({ id }) => id !== this.#self.id && known.includes(id)),
    );
  }

  #followLeadership(): void {
    const { role, leaderId, term, log } = this.#raft;
    const before = this.#leadership;
    // What earlier leaders have left in the log has to be known before anything is decided.
    const isElected = role === 'leader';
    const knowsAll = (before.isLeader && before.term === term) || log.termOf(this.appliedIndex) === term;
    const isLeader = isElected && knowsAll;
    const found = this.#raft.configuration.members.find(({ id }) => id === leaderId);
    const leaderAddress = isLeader === isElected ? found?.address : undefined;
    const hasLost = this.#isElected && !isElected;
    this.#isElected = isElected;
    const isNews = before.isLeader !== isLeader || before.leaderAddress !== leaderAddress;
    this.#leadership = { isLeader, leaderAddress, term };
    if (hasLost) this.#onLeadershipLost(term > before.term);
    if (!isNews && before.term === term) return;
    if (isNews)
      logLog.info({ 'raft.term': term, 'raft.role': role, 'raft.leader': leaderAddress }, 'leadership');
    for (const listener of this.#listeners) listener(this.#leadership);
  }

  #onLeadershipLost(isReplaced: boolean): void {
    this.#waiters.rejectReads(this.#notLeader());
    this.#proposals.rejectWaiting(this.#notLeader());
    this.#lostLeadership?.();
    this.#lostLeadership = undefined;
    // Without a majority nobody decides it.
    if (!isReplaced) this.#proposals.abandon(leadershipLost());
    else this.#abandonLater(() => (this.#raft.role === 'leader' ? undefined : leadershipLost()));
  }

  /** What is in the log is usually decided by the next leader in a moment. If not, whoever waits is told `reason`. */
  #abandonLater(reason: () => SwarmError | undefined): void {
    const { tickMs, electionTicks } = this.#timing;
    this.#options.clock.after(tickMs * electionTicks * 2, () => {
      const error = reason();
      if (error !== undefined) this.#proposals.abandon(error);
    });
  }

  #onLost(peer: MemberId): void {
    if (this.#stop.signal.aborted) return;
    this.#raft.reportUnreachable(peer);
    if (this.#raft.leaderId === peer) this.#election.begin();
    this.#drain();
  }

  #onDiskFull(): void {
    logLog.error('the disk of the log is full: no change can be stored here until there is room');
    this.#proposals.rejectWaiting(diskFull());
    this.#abandonLater(() => (this.#writer.isFull ? diskFull() : undefined));
    this.#handOver.onFull();
    this.#drain();
  }

  #notLeader(): NotLeaderError {
    const { isLeader, leaderAddress } = this.#leadership;
    return new NotLeaderError(isLeader ? undefined : leaderAddress, explainQuorum(this.status));
  }

  #fail(error: unknown): void {
    if (this.#stop.signal.aborted) return;
    this.#stop.abort(error);
    this.#giveUp(error);
    this.#options.log.onFatal(error);
  }

  #giveUp(reason: unknown): void {
    this.#proposals.rejectWaiting(reason);
    this.#proposals.abandon(leadershipLost());
    this.#waiters.rejectReads(reason);
  }
}
