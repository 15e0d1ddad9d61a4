// Watches every member of a simulated cluster and fails at the first step that breaks a safety property. The numbers
// are those of manager/raft/SPEC.md.

import type { Raft } from '../../manager/raft/raft.ts';
import type {
  Configuration,
  Entry,
  HardState,
  RaftMessage,
  SnapshotMark,
} from '../../proto/generated/raft.ts';
import { isQuorum, problemBetween, problemOf, votes } from './configuration-checks.ts';
import type { CoreMember, SimSnapshot } from './core-member.ts';

/** A property of the specification does not hold. */
export class Violation extends Error {
  override readonly name = 'Violation';
  readonly rule: string;

  constructor(rule: string, message: string) {
    super(`${rule}: ${message}`);
    this.rule = rule;
  }
}

interface Seen {
  term: number;
  commit: number;
  configuration: Configuration;
  /** The last term in which the member stood for election, and the last that it led. */
  stoodTerm: number;
  ledTerm: number;
}

export class CoreChecks {
  readonly members = new Map<number, CoreMember>();
  /** What is committed, by index; whoever commits first decides. */
  readonly committed: Entry[] = [];
  /** The term of the leader that committed it. */
  readonly #committedBy: number[] = [];
  /** Index of the last configuration entry up to each committed index. */
  readonly #configurationAt: number[] = [];
  readonly #configurations = new Map<number, Configuration>();
  readonly #leaders = new Map<number, number>();
  readonly #written = new Map<number, { entry: Entry; previousTerm: number }>();
  readonly #seen = new Map<number, Seen>();
  readonly #states = new Map<number, string>();

  get committedIndex(): number {
    return Math.max(0, this.committed.length - 1);
  }

  /** What a cluster begins with. */
  founded(entry: Entry): void {
    this.committed[entry.index] = entry;
    this.#configurationAt[entry.index] = entry.index;
  }

  started(member: CoreMember): void {
    const { hardState, entries } = member.disk;
    const raft = member.raft as Raft;
    this.members.set(member.id, member);
    const { configuration } = raft;
    this.#seen.set(member.id, { term: hardState.term, commit: 0, configuration, stoodTerm: 0, ledTerm: 0 });
    this.#configured(member.id, raft);
    const open = entries.filter(({ kind, index }) => kind === 'configuration' && index > hardState.commit);
    check(
      open.length <= 1,
      'R11',
      `member ${member.id} does not know that a change before its last is committed`,
    );
  }

  /** After each input to a core. */
  observed(member: CoreMember, raft: Raft): void {
    const seen = this.#seen.get(member.id) as Seen;
    const { term, role, log, configuration } = raft;
    if (term !== seen.term)
      check(term > seen.term, 'R1', `member ${member.id}: term fell from ${seen.term} to ${term}`);
    if (log.committedIndex !== seen.commit) {
      check(log.committedIndex > seen.commit, 'R2', `member ${member.id}: commit index fell`);
      this.#committedBySomebody(member, raft, seen);
    }
    if (role === 'candidate' && seen.stoodTerm !== term) this.#stands(member, raft, seen);
    if (role === 'leader' && seen.ledTerm !== term) this.#elected(member, raft, seen);
    if (configuration !== seen.configuration) {
      this.#configured(member.id, raft);
      if (role === 'leader')
        check(votes(configuration, member.id), 'R12', `member ${member.id} leads, but has no vote`);
    }
    seen.term = term;
    seen.commit = log.committedIndex;
    seen.configuration = configuration;
  }

  /** An entry is handed to a member's disk. */
  appended({ raft, id }: CoreMember, entry: Entry): void {
    const previousTerm = raft?.log.termOf(entry.index - 1) ?? 0;
    const key = entry.index * 2 ** 20 + entry.term;
    const known = this.#written.get(key);
    if (known === undefined) this.#written.set(key, { entry, previousTerm });
    else {
      const isSame = known.entry === entry && (known.previousTerm === previousTerm || entry.index === 1);
      check(isSame, 'R4', `member ${id}: entry ${entry.index}/t${entry.term} is not what it was elsewhere`);
    }
    if (entry.kind === 'configuration' && raft !== undefined) this.#isOnlyChange(id, raft, entry);
  }

  applying(member: CoreMember, raft: Raft, entry: Entry): void {
    const { id, appliedIndex, disk } = member;
    const { index } = entry;
    check(index === appliedIndex + 1, 'R6', `member ${id} applies ${index} after ${appliedIndex}`);
    check(index <= raft.log.committedIndex, 'R6', `member ${id} applies ${index}, which is not committed`);
    const base = disk.snapshot?.mark.index ?? 0;
    const isDurable = index <= base || disk.entries[index - base - 1] === entry;
    check(isDurable, 'R7', `member ${id} applies ${index}, which is not on its disk`);
    check(
      this.committed[index] === entry,
      'R6',
      `member ${id} applies another entry than was committed at ${index}`,
    );
  }

  /** A message leaves for somebody else: what it says must be on the disk. */
  sending({ id, disk, raft }: CoreMember, message: RaftMessage): void {
    const { type, term, to, rejected, logIndex } = message;
    if (rejected) return;
    if (type === 'append') {
      const inFlight = raft?.progressOf(to)?.inFlight ?? 0;
      check(
        inFlight <= (raft?.limits.window.messagesMax ?? 0),
        'F1',
        `member ${id} has ${inFlight} appends on their way to ${to}`,
      );
    } else if (type === 'timeout-now') {
      // What is durable here: a joint configuration may be left by a younger entry meanwhile.
      const index = raft?.log.stableIndex ?? 0;
      const isOutdated = (this.members.get(to)?.disk.hardState.term ?? 0) > term;
      const has = isOutdated || this.hasDurable(to, index, raft?.log.termOf(index) ?? 0);
      check(has, 'T2', `member ${id} hands leadership to ${to}, which lacks entries`);
    }
    if (type === 'vote' || type === 'vote-response') {
      const { hardState } = disk;
      const isDurable = hardState.term === term && hardState.vote === (type === 'vote' ? id : to);
      check(isDurable, 'R7', `member ${id} says ${type} in term ${term} before that is on its disk`);
    } else if (type === 'append-response' && logIndex > 0) this.#acknowledging(id, message);
  }

  /** A member is about to replace its state by a snapshot. */
  installed(
    { id, appliedIndex, raft }: CoreMember,
    mark: SnapshotMark,
    snapshot: SimSnapshot | undefined,
  ): void {
    check(snapshot?.mark.index === mark.index, 'R9', `member ${id} installs a snapshot it has not received`);
    check(mark.index > appliedIndex, 'R9', `member ${id} goes back from ${appliedIndex} to ${mark.index}`);
    const known = this.committed[mark.index];
    check(
      known?.term === mark.term,
      'R9',
      `member ${id} installs a snapshot of another log at ${mark.index}`,
    );
    this.stateAt(id, mark.index, snapshot?.registers ?? []);
    this.#configured(id, raft as Raft);
  }

  /** The state machines of all members are equal at equal index. */
  stateAt(id: number, index: number, registers: readonly number[]): void {
    const state = registers.join();
    const known = this.#states.get(index);
    if (known === undefined) this.#states.set(index, state);
    else check(known === state, 'R9', `member ${id} at ${index}: ${state}, elsewhere ${known}`);
  }

  writing({ id, disk }: CoreMember, hardState: HardState | undefined): void {
    if (hardState === undefined) return;
    const { term, vote } = disk.hardState;
    check(hardState.term >= term, 'R1', `member ${id} forgets term ${term}`);
    const isSecondVote = hardState.term === term && vote !== 0 && hardState.vote !== vote;
    check(!isSecondVote, 'R3', `member ${id} votes for ${vote} and ${hardState.vote} in term ${term}`);
  }

  /** Everybody whose log is asked for an entry has it on disk. */
  hasDurable(id: number, index: number, term: number): boolean {
    const disk = this.members.get(id)?.disk;
    if (disk === undefined) return false;
    const base = disk.snapshot?.mark.index ?? 0;
    return index <= base || disk.entries[index - base - 1]?.term === term;
  }

  /** Whoever acknowledges an index to a leader has that leader's entries on disk. */
  #acknowledging(id: number, { term, to, logIndex }: RaftMessage): void {
    const disk = this.members.get(id)?.disk;
    const durable = disk?.entries.at(-1)?.index ?? disk?.snapshot?.mark.index ?? 0;
    check(logIndex <= durable, 'R7', `member ${id} acknowledges ${logIndex}, durable is ${durable}`);
    check(
      (disk?.hardState.term ?? 0) >= term,
      'R7',
      `member ${id} acknowledges in term ${term}, which its disk has not`,
    );
    const leader = this.members.get(to)?.raft;
    if (leader?.role !== 'leader' || leader.term !== term) return;
    const leaderTerm = leader.log.termOf(logIndex);
    if (leaderTerm === undefined) return;
    check(
      this.hasDurable(id, logIndex, leaderTerm),
      'R7',
      `member ${id} acknowledges another entry at ${logIndex}`,
    );
  }

  /** No change follows another before that is known to be committed: not even in a log that never commits either. */
  #isOnlyChange(id: number, { log }: Raft, { index }: Entry): void {
    for (let before = log.committedIndex + 1; before < index; before++)
      check(
        log.slice(before, before, 1)?.[0]?.kind !== 'configuration',
        'R11',
        `member ${id} has a change at ${index}, and that at ${before} is not committed`,
      );
  }

  #configured(id: number, { configuration, log }: Raft): void {
    const at = this.#configurationAt[log.handedOutIndex];
    if (at === undefined) return;
    const known = this.#configurations.get(at);
    if (known === configuration) return;
    if (known !== undefined) {
      const isSame = JSON.stringify(known) === JSON.stringify(configuration);
      check(
        isSame,
        'R10',
        `member ${id} has another configuration at ${log.handedOutIndex} than was elsewhere`,
      );
      return;
    }
    this.#configurations.set(at, configuration);
    const problem = problemOf(configuration);
    check(problem === undefined, 'R10', `the configuration of ${at}: ${problem}`);
    const before = this.#configurations.get(this.#configurationAt[at - 1] ?? 0);
    if (before === undefined) return;
    const gap = problemBetween(before, configuration);
    check(gap === undefined, 'R10', `the configuration of ${at} does not follow the one before: ${gap}`);
  }

  #stands({ id }: CoreMember, { term, log, configuration }: Raft, seen: Seen): void {
    seen.stoodTerm = term;
    check(votes(configuration, id), 'R12', `member ${id} stands for election, but has no vote`);
    const at = this.#configurationAt[log.committedIndex] ?? 0;
    check(at <= log.handedOutIndex, 'R12', `member ${id} stands before it has applied the change at ${at}`);
  }

  #elected(member: CoreMember, raft: Raft, seen: Seen): void {
    const { term } = raft;
    seen.ledTerm = term;
    const other = this.#leaders.get(term);
    check(other === undefined, 'R3', `members ${other} and ${member.id} lead term ${term}`);
    this.#leaders.set(term, member.id);
    check(votes(raft.configuration, member.id), 'R12', `member ${member.id} is elected, but has no vote`);
    const hasVoted = (id: number) => {
      const hardState = this.members.get(id)?.disk.hardState;
      if (hardState === undefined) return false;
      return hardState.term > term || (hardState.term === term && hardState.vote === member.id);
    };
    check(
      isQuorum(raft.configuration, hasVoted),
      'R3',
      `member ${member.id} leads term ${term} without a quorum`,
    );
    let index = this.committedIndex;
    while (index > 0 && (this.#committedBy[index] ?? 0) >= term) index--;
    if (index < raft.log.firstIndex) return;
    const has = raft.log.termOf(index) === this.committed[index]?.term;
    check(has, 'R5', `member ${member.id} leads term ${term} without the committed entry ${index}`);
  }

  #committedBySomebody(member: CoreMember, raft: Raft, seen: Seen): void {
    for (let index = Math.max(1, this.committed.length); index <= raft.log.committedIndex; index++) {
      const [entry] = raft.log.slice(index, index, 1) ?? [];
      check(entry !== undefined, 'R6', `member ${member.id} commits ${index}, which it has not`);
      this.committed[index] = entry;
      this.#committedBy[index] = raft.term;
      this.#configurationAt[index] =
        entry.kind === 'configuration' ? index : (this.#configurationAt[index - 1] ?? 0);
      const isDurable = (id: number) => this.hasDurable(id, index, entry.term);
      const isSafe = isQuorum(seen.configuration, isDurable) || isQuorum(raft.configuration, isDurable);
      check(isSafe, 'R7', `entry ${index} is committed in term ${raft.term} but no quorum has it on disk`);
    }
    const at = raft.log.committedIndex;
    const term = raft.log.termOf(at);
    check(term === this.committed[at]?.term, 'R6', `member ${member.id} commits another entry at ${at}`);
  }
}

/** Throws a Violation of property `rule` unless `condition` holds. */
export function check(condition: boolean, rule: string, message: string): asserts condition {
  if (!condition) throw new Violation(rule, message);
}
