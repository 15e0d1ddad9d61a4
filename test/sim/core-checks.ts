// Watches every member of a simulated cluster and fails at the first step that breaks a safety property. The numbers
// are those of manager/raft/SPEC.md.

import { hasQuorum } from '../../manager/raft/configuration.ts';
import type { Raft } from '../../manager/raft/raft.ts';
import type { Configuration, Entry, HardState, SnapshotMark } from '../../proto/generated/raft.ts';
import type { CoreMember, SimSnapshot } from './core-member.ts';

/** A property of the specification does not hold. */
export class Violation extends Error {
  override readonly name = 'Violation';
}

interface Seen {
  incarnation: number;
  term: number;
  commit: number;
  configuration: Configuration;
  ledTerm: number;
}

export class CoreChecks {
  readonly members = new Map<number, CoreMember>();
  /** What is committed, by index; whoever commits or applies first decides. */
  readonly committed: Entry[] = [];
  /** The term of the leader that committed it. */
  readonly #committedBy: number[] = [];
  readonly #leaders = new Map<number, number>();
  readonly #written = new Map<number, { entry: Entry; previousTerm: number }>();
  readonly #seen = new Map<number, Seen>();
  readonly #states = new Map<number, string>();
  /** Entries in the order in which clients were told of them. */
  acknowledgedIndex = 0;

  started(member: CoreMember): void {
    const { hardState } = member.disk;
    this.members.set(member.id, member);
    this.#seen.set(member.id, {
      incarnation: member.incarnation,
      term: hardState.term,
      commit: 0,
      configuration: (member.raft as Raft).configuration,
      ledTerm: 0,
    });
  }

  /** After each input to a core. */
  observed(member: CoreMember, raft: Raft): void {
    const seen = this.#seen.get(member.id) as Seen;
    check(raft.term >= seen.term, 'R1', `member ${member.id}: term fell from ${seen.term} to ${raft.term}`);
    check(raft.log.committedIndex >= seen.commit, 'R2', `member ${member.id}: commit index fell`);
    if (raft.role === 'leader' && seen.ledTerm !== raft.term) this.#elected(member, raft, seen);
    if (raft.log.committedIndex > seen.commit) this.#committedBySomebody(member, raft, seen);
    seen.term = raft.term;
    seen.commit = raft.log.committedIndex;
    seen.configuration = raft.configuration;
  }

  /** An entry is handed to a member's disk. */
  appended({ raft, id }: CoreMember, entry: Entry): void {
    const previousTerm = raft?.log.termOf(entry.index - 1) ?? 0;
    const key = entry.index * 2 ** 20 + entry.term;
    const known = this.#written.get(key);
    if (known === undefined) this.#written.set(key, { entry, previousTerm });
    else {
      const isSame = known.entry === entry && (known.previousTerm === previousTerm || entry.index === 1);
      check(
        isSame,
        'R4',
        `member ${id}: entry ${entry.index} of term ${entry.term} is not what it was elsewhere`,
      );
    }
  }

  applying(member: CoreMember, raft: Raft, entry: Entry): void {
    const { id, appliedIndex, disk } = member;
    check(
      entry.index === appliedIndex + 1,
      'R6',
      `member ${id} applies ${entry.index} after ${appliedIndex}`,
    );
    check(entry.index <= raft.log.committedIndex, 'R6', `member ${id} applies what is not committed`);
    const durable = disk.entries.at(-1)?.index ?? disk.snapshot?.mark.index ?? 0;
    check(entry.index <= durable, 'R7', `member ${id} applies ${entry.index}, durable is ${durable}`);
    const known = this.committed[entry.index];
    check(known === entry, 'R6', `member ${id} applies another entry at ${entry.index} than was committed`);
  }

  /** A member is about to replace its state by a snapshot. */
  installed({ id }: CoreMember, mark: SnapshotMark, snapshot: SimSnapshot | undefined): void {
    check(snapshot?.mark.index === mark.index, 'R9', `member ${id} installs a snapshot it has not received`);
    const known = this.committed[mark.index];
    check(
      known?.term === mark.term,
      'R9',
      `member ${id} installs a snapshot of another log at ${mark.index}`,
    );
    this.stateAt(id, mark.index, snapshot?.registers ?? []);
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

  #elected(member: CoreMember, raft: Raft, seen: Seen): void {
    seen.ledTerm = raft.term;
    const other = this.#leaders.get(raft.term);
    check(other === undefined, 'R3', `members ${other} and ${member.id} lead term ${raft.term}`);
    this.#leaders.set(raft.term, member.id);
    let index = this.committed.length - 1;
    while (index > 0 && (this.#committedBy[index] ?? 0) >= raft.term) index--;
    if (index < raft.log.firstIndex) return;
    const has = raft.log.termOf(index) === this.committed[index]?.term;
    check(has, 'R5', `member ${member.id} leads term ${raft.term} without the committed entry ${index}`);
  }

  #committedBySomebody(member: CoreMember, raft: Raft, seen: Seen): void {
    for (let index = Math.max(1, this.committed.length); index <= raft.log.committedIndex; index++) {
      const [entry] = raft.log.slice(index, index, 1) ?? [];
      check(entry !== undefined, 'R6', `member ${member.id} commits ${index}, which it has not`);
      this.committed[index] = entry as Entry;
      this.#committedBy[index] = raft.term;
      const isDurable = (id: number) => this.#hasDurable(id, index, (entry as Entry).term);
      const isSafe = [seen.configuration, raft.configuration].some((who) => hasQuorum(who, isDurable));
      check(isSafe, 'R7', `entry ${index} is committed in term ${raft.term} but no quorum has it on disk`);
    }
    const at = raft.log.committedIndex;
    const term = raft.log.termOf(at);
    check(term === this.committed[at]?.term, 'R6', `member ${member.id} commits another entry at ${at}`);
  }

  #hasDurable(id: number, index: number, term: number): boolean {
    const disk = this.members.get(id)?.disk;
    if (disk === undefined) return false;
    const base = disk.snapshot?.mark.index ?? 0;
    return index <= base || disk.entries[index - base - 1]?.term === term;
  }
}

/** Throws a Violation of property `rule` unless `condition` holds. */
export function check(condition: boolean, rule: string, message: string): asserts condition {
  if (!condition) throw new Violation(`${rule}: ${message}`);
}
