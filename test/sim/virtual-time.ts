// Time that passes only when told: callbacks in order of their due time, everything between two of them at once.

import type { Clock } from '../../core/clock.ts';

interface Event {
  readonly atMs: number;
  readonly order: number;
  readonly run: () => void;
}

export class VirtualTime {
  nowMs = 0;
  events = 0;
  /** A binary heap by due time, then by order of planning. */
  readonly #heap: Event[] = [];
  #planned = 0;

  after(delayMs: number, run: () => void): void {
    const event = { atMs: this.nowMs + Math.max(0, delayMs), order: ++this.#planned, run };
    let at = this.#heap.push(event) - 1;
    for (let parent = (at - 1) >> 1; at > 0 && isBefore(event, this.#heap[parent] as Event); ) {
      this.#heap[at] = this.#heap[parent] as Event;
      at = parent;
      parent = (at - 1) >> 1;
    }
    this.#heap[at] = event;
  }

  /** Runs what is due until `endMs`; promises that can go on do so before the next event. */
  async advanceTo(endMs: number): Promise<void> {
    for (let next = this.#heap[0]; next !== undefined && next.atMs <= endMs; next = this.#heap[0]) {
      this.#pop();
      this.nowMs = next.atMs;
      this.events++;
      next.run();
      await settle();
    }
    this.nowMs = endMs;
  }

  #pop(): void {
    const last = this.#heap.pop() as Event;
    if (this.#heap.length === 0) return;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= this.#heap.length) break;
      const right = this.#heap[child + 1];
      if (right !== undefined && isBefore(right, this.#heap[child] as Event)) child++;
      if (!isBefore(this.#heap[child] as Event, last)) break;
      this.#heap[at] = this.#heap[child] as Event;
      at = child;
    }
    this.#heap[at] = last;
  }
}

function isBefore(a: Event, b: Event): boolean {
  return a.atMs < b.atMs || (a.atMs === b.atMs && a.order < b.order);
}

/** Until no promise can go on by itself. */
function settle(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

/** The clock of one simulated process: it stops with the process, and goes at its own speed. */
export class ProcessClock implements Clock {
  readonly #time: VirtualTime;
  readonly #isAlive: () => boolean;
  readonly #speed: number;
  /** Until then the process does nothing: it was stopped and will go on. */
  pausedUntilMs = 0;

  constructor(time: VirtualTime, isAlive: () => boolean, speed: number) {
    this.#time = time;
    this.#isAlive = isAlive;
    this.#speed = speed;
  }

  nowMs(): number {
    return this.#time.nowMs * this.#speed;
  }

  elapsedMs(): number {
    return this.#time.nowMs * this.#speed;
  }

  after(delayMs: number, callback: () => void): () => void {
    let isCancelled = false;
    this.wake(delayMs / this.#speed, () => {
      if (!isCancelled) callback();
    });
    return () => {
      isCancelled = true;
    };
  }

  /** Calls back after real milliseconds, later when the process is paused, never when it is dead. */
  wake(delayMs: number, callback: () => void): void {
    const run = () => {
      if (!this.#isAlive()) return;
      if (this.pausedUntilMs > this.#time.nowMs) this.#time.after(this.pausedUntilMs - this.#time.nowMs, run);
      else callback();
    };
    this.#time.after(delayMs, run);
  }
}
