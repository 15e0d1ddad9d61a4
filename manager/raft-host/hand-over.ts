// When a leader hands leadership on by itself: its disk is slow, or is about to be full, and another manager is fit. What
// is decided is a pure function of what is known at one tick.

import { logLog } from '../log.ts';
import type { MemberId } from '../raft/message.ts';
import type { Raft } from '../raft/raft.ts';
import type { RaftTiming } from './host-options.ts';
import type { LogOnDisk } from './log-on-disk.ts';
import type { PeerNetwork } from './peers.ts';
import type { SpaceState } from './segment-supply.ts';
import { WriteTimes } from './write-times.ts';

export type HandOverReason = 'slow-disk' | 'low-disk' | 'full-disk';

/** Another voter, as the leader sees it. */
export interface Successor {
  readonly id: MemberId;
  readonly isConnected: boolean;
  /** It takes entries as they come. */
  readonly isReplicating: boolean;
  readonly match: number;
}

export interface LeaderView {
  readonly term: number;
  readonly committedIndex: number;
  readonly space: SpaceState;
  /** For how long most writes have been slow. */
  readonly slowForTicks: number;
  /** The last entry of a write that is slow and has not ended yet. */
  readonly overdueIndex: number | undefined;
  /** Since this member handed leadership on by itself. */
  readonly ticksSinceHandOver: number;
  /** When that was because of little room, and there has been no more since: the term in which it was. */
  readonly lowInTerm: number | undefined;
  readonly voters: readonly Successor[];
}

export interface HandOverLimits {
  readonly slowForTicks: number;
  readonly pauseTicks: number;
}

/**
 * To whom leadership should go, and why; undefined when it stays.
 *
 * A slow disk counts when another has what this one is still writing: where all are slow, leadership stays. Little room
 * counts once, until there is more: a leader to whom leadership comes back meanwhile is the best there is.
 */
export function planHandOver(
  view: LeaderView,
  limits: HandOverLimits,
): { to: MemberId; reason: HandOverReason } | undefined {
  if (view.ticksSinceHandOver < limits.pauseTicks) return undefined;
  const { committedIndex, overdueIndex, lowInTerm, term } = view;
  if (view.space === 'low' && (lowInTerm === undefined || lowInTerm === term)) {
    const to = bestSuccessor(view.voters, committedIndex);
    if (to !== undefined) return { to, reason: 'low-disk' };
  }
  if (overdueIndex === undefined || view.slowForTicks < limits.slowForTicks) return undefined;
  const to = bestSuccessor(view.voters, Math.max(committedIndex, overdueIndex));
  return to === undefined ? undefined : { to, reason: 'slow-disk' };
}

/** The voter with most of the log, of those that are reached and have it up to `index`. */
export function bestSuccessor(voters: readonly Successor[], index: number): MemberId | undefined {
  return voters
    .filter(({ isConnected, isReplicating, match }) => isConnected && isReplicating && match >= index)
    .sort((a, b) => b.match - a.match)[0]?.id;
}

export interface HandOverOptions {
  readonly raft: Raft;
  readonly network: () => PeerNetwork;
  readonly disk: LogOnDisk;
  readonly timing: RaftTiming;
}

// A vote or an acknowledgement that waits a quarter of the shortest election timeout for the disk, 250 ms, comes late for
// an election.
const SLOW_DIVISOR = 4;
// In election timeouts: what is looked back at, and how long it has to look bad. A hiccup is shorter.
const WINDOW_TIMEOUTS = 2;
const SLOW_TIMEOUTS = 3;
// Leadership does not wander about.
const PAUSE_MS = 60_000;
// Room can come and go without a new segment: the disk is not ours alone. Ten seconds at the usual tick.
const REVIEW_TICKS = 200;

export class HandOver {
  readonly counts: Record<HandOverReason, number> = { 'slow-disk': 0, 'low-disk': 0, 'full-disk': 0 };
  /** Of the writes of this member's log. */
  readonly times: WriteTimes;
  readonly #options: HandOverOptions;
  readonly #limits: HandOverLimits;
  #ticks = 0;
  #lastTick = Number.NEGATIVE_INFINITY;
  #lowInTerm: number | undefined;
  #space: SpaceState = 'ok';

  constructor(options: HandOverOptions) {
    this.#options = options;
    const { tickMs, electionTicks } = options.timing;
    this.times = new WriteTimes({
      slowTicks: Math.max(1, electionTicks / SLOW_DIVISOR),
      windowTicks: WINDOW_TIMEOUTS * electionTicks,
    });
    this.#limits = { slowForTicks: SLOW_TIMEOUTS * electionTicks, pauseTicks: PAUSE_MS / tickMs };
  }

  /** The connected voter with most of the log. */
  get successor(): MemberId | undefined {
    return bestSuccessor(
      this.#voters().map((voter) => ({ ...voter, isReplicating: true })),
      0,
    );
  }

  tick(): void {
    const { raft, disk } = this.#options;
    this.#ticks++;
    this.times.tick();
    this.#followSpace();
    if (this.#ticks % REVIEW_TICKS === 0 && disk.space !== 'full') void disk.reviewSpace();
    if (raft.role !== 'leader' || raft.transferTarget !== undefined) return;
    const plan = planHandOver(this.#view(), this.#limits);
    if (plan === undefined) return;
    this.#lastTick = this.#ticks;
    if (plan.reason === 'low-disk') this.#lowInTerm = raft.term;
    this.#begin(plan.to, plan.reason);
  }

  /** The disk is full: whoever is reached is better. */
  onFull(): void {
    const { raft } = this.#options;
    const to = this.successor;
    if (raft.role === 'leader' && to !== undefined) this.#begin(to, 'full-disk');
  }

  #begin(to: MemberId, reason: HandOverReason): void {
    this.counts[reason]++;
    logLog.warn({ 'raft.successor': to, reason }, 'leadership is handed on');
    this.#options.raft.transferLeadership(to);
  }

  #followSpace(): void {
    const { space } = this.#options.disk;
    if (space === this.#space) return;
    this.#space = space;
    if (space === 'ok') {
      this.#lowInTerm = undefined;
      logLog.info('there is room again on the disk of the log');
    } else if (space === 'low') logLog.warn('the disk of the log has little room left: make some soon');
  }

  #view(): LeaderView {
    const { raft, disk } = this.#options;
    return {
      term: raft.term,
      committedIndex: raft.log.committedIndex,
      space: disk.space,
      slowForTicks: this.times.slowForTicks,
      overdueIndex: this.times.overdue?.lastIndex,
      ticksSinceHandOver: this.#ticks - this.#lastTick,
      lowInTerm: this.#lowInTerm,
      voters: this.#voters(),
    };
  }

  #voters(): Successor[] {
    const { raft, network } = this.#options;
    return raft.configuration.voters
      .filter((id) => id !== raft.id)
      .map((id) => {
        const progress = raft.progressOf(id);
        return {
          id,
          isConnected: network().isConnected(id),
          isReplicating: progress?.state === 'replicate',
          match: progress?.match ?? 0,
        };
      });
  }
}
