// Do all managers have the same state? Each keeps a hash of everything that applying did, and the leader asks now and then
// what the others have after one entry. A bit that turned over in memory, or code that is not deterministic, shows as a
// difference; whoever is not of the majority's opinion ends, before anything else is built on what it believes.

import { crc32 } from 'node:zlib';
import { SwarmError } from '../../core/errors.ts';
import type { Entry, RaftMessage } from '../../proto/generated/raft.ts';
import type { MemberId } from '../raft/message.ts';
import type { Raft } from '../raft/raft.ts';
import type { ApplyResult } from '../store/replicated-log.ts';

/** The hash after an entry is applied, from the one before: 32 bits, of the entry and of what became of it. */
export function nextHash(hash: number, { index, payload }: Entry, result: ApplyResult | undefined): number {
  const ofEntry = mix(crc32(payload, hash), index);
  if (result === undefined) return ofEntry;
  return result.applied ? mix(ofEntry, result.digest ?? 0) : crc32(result.reason, ofEntry);
}

/** A hash of two numbers, of which only the lower 32 bits count. */
export function mix(hash: number, value: number): number {
  // 2^32 divided by the golden ratio.
  const product = Math.imul(hash ^ value, 0x9e3779b1);
  return (product ^ (product >>> 15)) >>> 0;
}

/**
 * The hash that the majority of the voters has. When all have answered and none has a majority it is the leader's, so that
 * the others follow somebody; undefined while it is open.
 */
export function agreedHash(
  voters: readonly MemberId[],
  leader: MemberId,
  answers: ReadonlyMap<MemberId, number>,
): number | undefined {
  const counts = new Map<number, number>();
  let answered = 0;
  for (const voter of voters) {
    const answer = answers.get(voter);
    if (answer === undefined) continue;
    answered++;
    const count = (counts.get(answer) ?? 0) + 1;
    counts.set(answer, count);
    if (2 * count > voters.length) return answer;
  }
  return answered === voters.length ? answers.get(leader) : undefined;
}

// A difference is found within so many entries. More often would find it no sooner than the next question comes.
const INTERVAL = 1_000;
// A question stands so long: time to answer, and for all to hear what came of it. A second at the usual tick.
const QUESTION_TICKS = 20;
// Of as many entries are the hashes kept: a follower may be ahead of a question by what is applied in a second.
const KEPT_MAX = 256;
// "Not known": no hash that is sent is 0.
const UNKNOWN = 0;

export interface StateHashOptions {
  readonly raft: Raft;
  /** Entries between two that may be asked for; a simulator has its own. */
  readonly interval?: number;
  /** This member is not of the majority's opinion. */
  readonly onDiverged: (error: SwarmError) => void;
}

interface Question {
  readonly index: number;
  readonly term: number;
  readonly answers: Map<MemberId, number>;
  ticks: number;
}

export class StateHash {
  readonly #options: StateHashOptions;
  readonly #interval: number;
  #hash = 0;
  /** By index, every so many entries. */
  readonly #kept = new Map<number, number>();
  #lastKept = 0;
  #question: Question | undefined;
  /** What the leader has asked this follower for. */
  #asked = 0;
  /** What the others agree on, until this member has come as far. */
  #agreed: { readonly index: number; readonly hash: number } | undefined;
  /** The last entry after which this member was found to have what the majority has. */
  verifiedIndex = 0;

  constructor(options: StateHashOptions) {
    this.#options = options;
    this.#interval = options.interval ?? INTERVAL;
  }

  /** Of all that is applied; what a snapshot remembers. */
  get value(): number {
    return this.#hash;
  }

  applied(entry: Entry, result: ApplyResult | undefined): void {
    this.#hash = nextHash(this.#hash, entry, result);
    if (entry.index % this.#interval === 0) this.#keep(entry.index);
  }

  /** The state is that of a snapshot now. */
  restored(index: number, hash: number): void {
    this.#hash = hash;
    this.#kept.clear();
    this.#lastKept = 0;
    this.#question = undefined;
    if (index % this.#interval === 0) this.#keep(index);
  }

  tick(): void {
    const { raft } = this.#options;
    const isLeader = raft.role === 'leader';
    if (this.#question !== undefined) this.#question.ticks++;
    if (!isLeader || this.#question?.term !== raft.term) this.#question = undefined;
    if (!isLeader || this.#lastKept === 0) return;
    if (this.#question !== undefined) {
      if (this.#question.ticks < QUESTION_TICKS || this.#question.index === this.#lastKept) return;
    }
    this.#question = { index: this.#lastKept, term: raft.term, answers: new Map(), ticks: 0 };
    this.#answer(raft.id, this.#kept.get(this.#lastKept) ?? UNKNOWN);
  }

  /** Adds question, verdict or answer to what is sent. */
  stamp(message: RaftMessage): RaftMessage {
    if (message.type === 'heartbeat' && this.#question !== undefined) {
      const { index } = this.#question;
      const { raft } = this.#options;
      const agreed = agreedHash(raft.configuration.voters, raft.id, this.#question.answers);
      return { ...message, checkedIndex: index, stateHash: agreed ?? UNKNOWN };
    }
    if (message.type === 'heartbeat-response' && this.#asked !== 0)
      return {
        ...message,
        checkedIndex: this.#asked,
        stateHash: this.#kept.get(this.#asked) ?? UNKNOWN,
      };
    return message;
  }

  /** Reads what others have added. */
  receive({ type, from, term, checkedIndex, stateHash }: RaftMessage): void {
    if (checkedIndex === 0) return;
    if (type === 'heartbeat') {
      this.#asked = checkedIndex;
      if (stateHash !== UNKNOWN) this.#compare({ index: checkedIndex, hash: stateHash });
    }
    const { index, term: askedIn } = this.#question ?? {};
    if (type === 'heartbeat-response' && index === checkedIndex && askedIn === term)
      this.#answer(from, stateHash);
  }

  #answer(from: MemberId, hash: number): void {
    const { raft } = this.#options;
    if (this.#question === undefined || hash === UNKNOWN) return;
    const { index, answers } = this.#question;
    answers.set(from, hash);
    const agreed = agreedHash(raft.configuration.voters, raft.id, answers);
    if (agreed !== undefined) this.#compare({ index, hash: agreed });
  }

  #keep(index: number): void {
    this.#kept.set(index, this.#hash === UNKNOWN ? 1 : this.#hash);
    this.#lastKept = index;
    if (this.#kept.size > KEPT_MAX) {
      const [oldest] = this.#kept.keys();
      this.#kept.delete(oldest ?? 0);
    }
    if (this.#agreed?.index === index) this.#compare(this.#agreed);
  }

  #compare(agreed: { index: number; hash: number }): void {
    const { index, hash } = agreed;
    const own = this.#kept.get(index);
    this.#agreed = own === undefined && index > this.#lastKept ? agreed : undefined;
    if (own === undefined) return;
    if (own === hash) this.verifiedIndex = Math.max(this.verifiedIndex, index);
    else this.#options.onDiverged(diverged(index, own, hash));
  }
}

function diverged(index: number, own: number, agreed: number): SwarmError {
  const hex = (hash: number) => hash.toString(16).padStart(8, '0');
  return new SwarmError(
    'internal',
    `the state of this manager is not that of the others: after entry ${index} it is ${hex(own)}, theirs ${hex(agreed)}`,
    {
      hint:
        'It starts again from its disk, which mends what went wrong in memory. When this repeats, check the memory of ' +
        'the machine, then run "tsswarm leave --force" here and join the cluster again: it gets the state of the others.',
    },
  );
}
