// How long writes of the log take, counted in the host's ticks: a clock that is set cannot make a disk look slow, and a
// process that stood still does not blame its disk for it.

/** A write that has not ended. */
export interface PendingWrite {
  readonly sinceTick: number;
  /** The last entry that will be durable with it; 0 when it has none. */
  readonly lastIndex: number;
}

export interface WriteTimesLimits {
  /** A write that takes as long is slow. */
  readonly slowTicks: number;
  /** What is looked back at. */
  readonly windowTicks: number;
}

export class WriteTimes {
  readonly #limits: WriteTimesLimits;
  #tick = 0;
  /** In the order in which they began, which is also the one in which they end. */
  readonly #pending = new Set<PendingWrite>();
  /** Writes that ended, and the slow ones among them, in each tick of the window. */
  readonly #ended: number[];
  readonly #slow: number[];
  #endedSum = 0;
  #slowSum = 0;
  #slowForTicks = 0;

  constructor(limits: WriteTimesLimits) {
    this.#limits = limits;
    this.#ended = new Array<number>(limits.windowTicks).fill(0);
    this.#slow = new Array<number>(limits.windowTicks).fill(0);
  }

  begin(lastIndex: number): PendingWrite {
    const write = { sinceTick: this.#tick, lastIndex };
    this.#pending.add(write);
    return write;
  }

  end(write: PendingWrite): void {
    this.#pending.delete(write);
    const at = this.#tick % this.#limits.windowTicks;
    this.#ended[at] = (this.#ended[at] ?? 0) + 1;
    this.#endedSum++;
    if (!this.#isSlow(write)) return;
    this.#slow[at] = (this.#slow[at] ?? 0) + 1;
    this.#slowSum++;
  }

  /** It was refused: that says nothing about how fast the disk is. */
  drop(write: PendingWrite): void {
    this.#pending.delete(write);
  }

  tick(): void {
    this.#tick++;
    const at = this.#tick % this.#limits.windowTicks;
    this.#endedSum -= this.#ended[at] ?? 0;
    this.#slowSum -= this.#slow[at] ?? 0;
    this.#ended[at] = 0;
    this.#slow[at] = 0;
    const overdue = this.overdue === undefined ? 0 : 1;
    const isSlow = 2 * (this.#slowSum + overdue) > this.#endedSum + overdue;
    this.#slowForTicks = isSlow ? this.#slowForTicks + 1 : 0;
  }

  /** For how long, without a break, more than half of the writes in the window have been slow. */
  get slowForTicks(): number {
    return this.#slowForTicks;
  }

  /** The oldest write that has not ended, once it is slow. */
  get overdue(): PendingWrite | undefined {
    const [oldest] = this.#pending;
    return oldest !== undefined && this.#isSlow(oldest) ? oldest : undefined;
  }

  #isSlow({ sinceTick }: PendingWrite): boolean {
    return this.#tick - sinceTick >= this.#limits.slowTicks;
  }
}
