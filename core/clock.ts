// Time and chance as parameters. Everything in manager/ and in the agent's session and worker takes a Clock and
// a Random instead of touching the globals, so that the simulator can own both.

/** Wall-clock milliseconds, a stopwatch, and timers. */
export interface Clock {
  /** What the machine takes for the time of day: it may jump, back as well. For what is shown or kept. */
  nowMs(): number;
  /** Since some moment of this process, never back and never by a jump: for how long something took or is to take. */
  elapsedMs(): number;
  /** Calls back once, `delayMs` from now; the returned function cancels. */
  after(delayMs: number, callback: () => void): () => void;
}

/** Uniform random numbers in [0, 1). */
export type Random = () => number;

/** Resolves after `delayMs` of `clock`; rejects at once when `signal` aborts. */
export function sleep(clock: Clock, delayMs: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) {
      reject(signal.reason);
      return;
    }
    const onAbort = () => {
      cancel();
      reject(signal?.reason);
    };
    const cancel = clock.after(delayMs, () => {
      signal?.removeEventListener('abort', onAbort);
      resolve();
    });
    signal?.addEventListener('abort', onAbort, { once: true });
  });
}

/** A clock that only moves when told to. */
export class FakeClock implements Clock {
  /** The wall's clock less the stopwatch. */
  #offsetMs: number;
  #elapsedMs = 0;
  #timers: { atMs: number; callback: () => void }[] = [];

  constructor(startMs = 1_700_000_000_000) {
    this.#offsetMs = startMs;
  }

  nowMs(): number {
    return this.#offsetMs + this.#elapsedMs;
  }

  elapsedMs(): number {
    return this.#elapsedMs;
  }

  /** Somebody sets the machine's clock: timers and the stopwatch do not notice. */
  setBy(byMs: number): void {
    this.#offsetMs += byMs;
  }

  after(delayMs: number, callback: () => void): () => void {
    const timer = { atMs: this.#elapsedMs + Math.max(0, delayMs), callback };
    this.#timers.push(timer);
    return () => {
      this.#timers = this.#timers.filter((other) => other !== timer);
    };
  }

  /** When the next timer is due; undefined when there is none. */
  get nextAtMs(): number | undefined {
    if (this.#timers.length === 0) return undefined;
    return this.#offsetMs + Math.min(...this.#timers.map(({ atMs }) => atMs));
  }

  /** Moves time forward, firing timers in order of their due time. */
  advance(byMs: number): void {
    const endMs = this.#elapsedMs + byMs;
    for (;;) {
      const next = this.#timers
        .filter((timer) => timer.atMs <= endMs)
        .reduce<{ atMs: number; callback: () => void } | undefined>(
          (first, timer) => (first === undefined || timer.atMs < first.atMs ? timer : first),
          undefined,
        );
      if (next === undefined) break;
      this.#timers = this.#timers.filter((timer) => timer !== next);
      this.#elapsedMs = next.atMs;
      next.callback();
    }
    this.#elapsedMs = endMs;
  }
}
