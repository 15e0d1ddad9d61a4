// One member of a simulated cluster: the real core, a model of its disk, and a small state machine of registers.
// The disk keeps what was handed to it in order; a crash loses a suffix of what was not yet reported as durable.

import type { Append, Ready } from '../../manager/raft/contract.ts';
import type { ReplicationLimits } from '../../manager/raft/leader.ts';
import { newMessage } from '../../manager/raft/message.ts';
import { Raft } from '../../manager/raft/raft.ts';
import {
  type Entry,
  emptyHardState,
  type HardState,
  type Member,
  type RaftMessage,
  type SnapshotMark,
} from '../../proto/generated/raft.ts';
import type { CoreChecks } from './core-checks.ts';

/** A snapshot of the registers with its place in the log. */
export interface SimSnapshot {
  readonly mark: SnapshotMark;
  readonly registers: readonly number[];
}

/** What a member finds after a crash. */
export interface DiskImage {
  hardState: HardState;
  snapshot: SimSnapshot | undefined;
  entries: Entry[];
}

export const REGISTERS = 4;

/** What members of one world share. */
export interface MemberWorld {
  readonly chance: () => number;
  readonly checks: CoreChecks;
  readonly limits: ReplicationLimits;
  /** Committed entries that are applied at a time. */
  readonly applyBytesMax: number;
  /** What waits beyond them is applied when something else happens. */
  readonly appliesInTurns: boolean;
  readonly electionTicks: number;
  /** Puts a message on the wire. */
  send(message: RaftMessage, snapshot: SimSnapshot | undefined): void;
  /** The proposer has applied its entry. */
  applied(member: CoreMember, entry: Entry): void;
  readConfirmed(member: CoreMember, read: number, index: number): void;
  stopped(member: CoreMember): void;
}

interface Pending {
  readonly append: Append;
  readonly snapshot: SimSnapshot | undefined;
}

export class CoreMember {
  readonly id: number;
  readonly #world: MemberWorld;
  readonly disk: DiskImage = { hardState: emptyHardState, snapshot: undefined, entries: [] };
  raft: Raft | undefined;
  appliedIndex = 0;
  registers: number[] = new Array<number>(REGISTERS).fill(0);
  incarnation = 0;
  /** Until this step of the world the process stands still, or its clock, or its disk. */
  pausedUntil = 0;
  slowUntil = 0;
  stalledUntil = 0;
  #pending: Pending[] = [];
  /** Snapshots that arrived and wait for the core to take them. */
  #received: SimSnapshot | undefined;
  #snapshotting: SimSnapshot | undefined;

  constructor(id: number, world: MemberWorld, snapshot: SimSnapshot | undefined) {
    this.id = id;
    this.#world = world;
    this.disk.snapshot = snapshot;
    if (snapshot !== undefined)
      this.disk.hardState = { term: snapshot.mark.term, vote: 0, commit: snapshot.mark.index };
  }

  get isUp(): boolean {
    return this.raft !== undefined;
  }

  get pendingCount(): number {
    return this.#pending.length;
  }

  start(): void {
    const { hardState, snapshot, entries } = this.disk;
    this.incarnation++;
    this.appliedIndex = snapshot?.mark.index ?? 0;
    this.registers = [...(snapshot?.registers ?? new Array<number>(REGISTERS).fill(0))];
    this.raft = new Raft(
      {
        id: this.id,
        electionTicks: this.#world.electionTicks,
        heartbeatTicks: 2,
        random: this.#world.chance,
        limits: this.#world.limits,
        uncommittedBytesMax: 2_000,
      },
      { hardState, snapshot: snapshot?.mark, entries },
    );
    this.#world.checks.started(this);
    this.drain();
  }

  /** Ends at once. Of the writes in flight only the first `survivors` reach the disk. */
  crash(survivors: number): void {
    for (const pending of this.#pending.slice(0, survivors)) this.#write(pending);
    this.#pending = [];
    this.#received = undefined;
    this.#snapshotting = undefined;
    this.raft = undefined;
    this.#world.stopped(this);
  }

  receive(message: RaftMessage, snapshot: SimSnapshot | undefined): void {
    if (snapshot !== undefined) this.#received = snapshot;
    this.raft?.step(message);
    this.drain();
    this.#received = undefined;
  }

  /** The oldest write in flight reaches the disk. */
  completeWrite(): void {
    const pending = this.#pending.shift();
    if (pending === undefined || this.raft === undefined) return;
    this.#write(pending);
    this.raft.persisted(pending.append);
    this.drain();
  }

  /** Begins a snapshot, or ends the one that was begun. */
  snapshotStep(keep: number): void {
    // Nobody makes a snapshot of a state whose own snapshot is still on its way to the disk.
    if (this.raft === undefined || this.#pending.some(({ snapshot }) => snapshot !== undefined)) return;
    const ready = this.#snapshotting;
    if (ready !== undefined) {
      this.#snapshotting = undefined;
      const { index } = ready.mark;
      if (index <= (this.disk.snapshot?.mark.index ?? 0)) return;
      this.disk.snapshot = ready;
      this.disk.entries = this.disk.entries.filter((entry) => entry.index > index);
      this.raft.compact(Math.max(this.raft.log.firstIndex - 1, index - keep));
      return;
    }
    const term = this.raft.log.termOf(this.appliedIndex);
    if (term === undefined || this.appliedIndex === 0) return;
    const mark = {
      index: this.appliedIndex,
      term,
      configuration: this.raft.configuration,
      stateHash: 0,
    };
    this.#snapshotting = { mark, registers: [...this.registers] };
  }

  /** Carries out everything that the core wants. */
  drain(): void {
    const { raft } = this;
    if (raft === undefined) return;
    this.#world.checks.observed(this, raft);
    const { applyBytesMax, appliesInTurns } = this.#world;
    // In turns, who lags behind catches up, as in a host.
    let bytesMax = applyBytesMax * (appliesInTurns ? 1 + raft.log.waitingCount / 4 : 1);
    for (;;) {
      const ready = raft.takeReady(bytesMax);
      if (ready === undefined) break;
      if (appliesInTurns && ready.committed.length > 0) bytesMax = 0;
      // Handing out a change of members may commit more at once.
      this.#world.checks.observed(this, raft);
      this.#carryOut(raft, ready);
    }
    this.#world.checks.observed(this, raft);
  }

  #carryOut(raft: Raft, { append, messages, committed, reads }: Ready): void {
    if (append !== undefined) this.#takeAppend(append);
    for (const message of messages) this.#send(message);
    for (const entry of committed) this.#apply(raft, entry);
    for (const { read, index } of reads) this.#world.readConfirmed(this, read, index);
  }

  #takeAppend(append: Append): void {
    const snapshot = append.snapshot === undefined ? undefined : this.#received;
    if (append.snapshot !== undefined) {
      this.#world.checks.installed(this, append.snapshot, snapshot);
      this.appliedIndex = append.snapshot.index;
      this.registers = [...(snapshot?.registers ?? [])];
      this.#snapshotting = undefined;
    }
    for (const entry of append.entries) this.#world.checks.appended(this, entry);
    this.#pending.push({ append, snapshot });
  }

  #send(message: RaftMessage): void {
    this.#world.checks.sending(this, message);
    if (message.type !== 'snapshot') {
      this.#world.send(message, undefined);
      return;
    }
    const snapshot = this.disk.snapshot;
    // The core never compacts beyond what a durable snapshot contains.
    if (snapshot === undefined) throw new Error(`member ${this.id} has no snapshot to send`);
    this.#world.send({ ...message, snapshot: snapshot.mark }, snapshot);
  }

  #apply(raft: Raft, entry: Entry): void {
    this.#world.checks.applying(this, raft, entry);
    this.appliedIndex = entry.index;
    if (entry.kind === 'normal') {
      const [register = 0, low = 0, high = 0] = entry.payload;
      this.registers[register] = low + high * 256 + (entry.payload[3] ?? 0) * 65_536;
    }
    this.#world.applied(this, entry);
  }

  #write({ append: { hardState, entries, snapshot }, snapshot: content }: Pending): void {
    const { disk } = this;
    this.#world.checks.writing(this, hardState);
    if (snapshot !== undefined && content !== undefined) {
      disk.snapshot = content;
      disk.entries = [];
    }
    const [first] = entries;
    if (first !== undefined) {
      while ((disk.entries.at(-1)?.index ?? 0) >= first.index) disk.entries.pop();
      for (const entry of entries) disk.entries.push(entry);
    }
    if (hardState !== undefined) disk.hardState = hardState;
  }
}

/** A snapshot message as the receiver's host steps it once the content is there. */
export function snapshotArrival(message: RaftMessage): RaftMessage {
  return {
    ...newMessage('snapshot', message.to),
    from: message.from,
    term: message.term,
    snapshot: message.snapshot as SnapshotMark,
  };
}

export function aMember(id: number): Member {
  return { id, nodeId: `node-${id}`, address: `10.0.0.${id}:2377` };
}
