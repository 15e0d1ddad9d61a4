// Puts what many sources say in the order of its times. Of each source one piece is held at most; the next one is asked for
// when all of it has gone on, so a slow reader holds up the sources instead of filling memory.

import type { Clock } from '../core/clock.ts';

export interface TimeMergeOptions<T> {
  readonly clock: Clock;
  /** Times compare as strings. */
  readonly timeOf: (item: T) => string;
  readonly bytesOf: (item: T) => number;
  /** What is yielded at once. */
  readonly itemsMax: number;
  readonly bytesMax: number;
  /** So long the others wait for a source that says nothing; undefined: until it says something or ends. */
  readonly patienceMs: number | undefined;
}

interface Source<T> {
  readonly iterator: AsyncIterator<readonly T[]>;
  items: readonly T[];
  at: number;
}

export class TimeMerge<T> implements AsyncIterable<readonly T[]> {
  readonly #options: TimeMergeOptions<T>;
  /** With something to say: a heap by the time of that. */
  readonly #ready: Source<T>[] = [];
  /** Since when each was asked, the oldest first. */
  readonly #asked = new Map<Source<T>, number>();
  #isComplete = false;
  #failure: { readonly reason: unknown } | undefined;
  #wake = () => {};

  constructor(options: TimeMergeOptions<T>) {
    this.#options = options;
  }

  /** What a source yields is in order. */
  add(source: AsyncIterable<readonly T[]>): void {
    this.#ask({ iterator: source[Symbol.asyncIterator](), items: [], at: 0 });
  }

  /** No more sources will be added: the merge ends with those that there are. */
  complete(): void {
    this.#isComplete = true;
    this.#wake();
  }

  /** The merge ends with this. */
  fail(reason: unknown): void {
    this.#failure ??= { reason };
    this.#wake();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<readonly T[], void, undefined> {
    try {
      for (;;) {
        if (this.#failure !== undefined) throw this.#failure.reason;
        const waitMs = this.#waitMs();
        if (waitMs > 0) {
          await this.#sleep(waitMs);
          continue;
        }
        const batch = this.#take();
        if (batch.length > 0) yield batch;
        else if (this.#isComplete && this.#asked.size === 0) return;
        else await this.#sleep(Number.POSITIVE_INFINITY);
      }
    } finally {
      // Not awaited: a source that is silent answers only when it says something.
      for (const { iterator } of [...this.#ready, ...this.#asked.keys()]) iterator.return?.().catch(() => {});
    }
  }

  /** How long to wait for sources that may have something earlier. */
  #waitMs(): number {
    const oldest = this.#latestAsked();
    if (oldest === undefined) return 0;
    const { clock, patienceMs } = this.#options;
    if (patienceMs === undefined) return Number.POSITIVE_INFINITY;
    return this.#ready.length === 0 ? 0 : Math.max(0, oldest + patienceMs - clock.elapsedMs());
  }

  /** When the one was asked that was asked last: those before it have had their time when it has. */
  #latestAsked(): number | undefined {
    let latest: number | undefined;
    for (const askedMs of this.#asked.values()) latest = askedMs;
    return latest;
  }

  #take(): readonly T[] {
    const { timeOf, bytesOf, itemsMax, bytesMax } = this.#options;
    const batch: T[] = [];
    let bytes = 0;
    while (batch.length < itemsMax && bytes < bytesMax) {
      const source = this.#ready[0];
      if (source === undefined) break;
      const item = source.items[source.at] as T;
      batch.push(item);
      bytes += bytesOf(item);
      source.at += 1;
      if (source.at < source.items.length) sink(this.#ready, timeOf);
      else {
        removeFirst(this.#ready, timeOf);
        this.#ask(source);
        break;
      }
    }
    return batch;
  }

  #ask(source: Source<T>): void {
    this.#asked.delete(source);
    this.#asked.set(source, this.#options.clock.elapsedMs());
    source.iterator.next().then(
      (next) => {
        if (!next.done && next.value.length === 0) return this.#ask(source);
        this.#asked.delete(source);
        if (!next.done) {
          source.items = next.value;
          source.at = 0;
          insert(this.#ready, source, this.#options.timeOf);
        }
        this.#wake();
      },
      (reason) => {
        this.#asked.delete(source);
        this.#failure ??= { reason };
        this.#wake();
      },
    );
  }

  async #sleep(waitMs: number): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const cancel = Number.isFinite(waitMs) ? this.#options.clock.after(waitMs, resolve) : () => {};
    this.#wake = resolve;
    await promise;
    cancel();
  }
}

type TimeOf<T> = (item: T) => string;

function isBefore<T>(a: Source<T>, b: Source<T>, timeOf: TimeOf<T>): boolean {
  return timeOf(a.items[a.at] as T) < timeOf(b.items[b.at] as T);
}

function insert<T>(heap: Source<T>[], source: Source<T>, timeOf: TimeOf<T>): void {
  let at = heap.length;
  heap.push(source);
  while (at > 0) {
    const above = (at - 1) >> 1;
    if (!isBefore(source, heap[above] as Source<T>, timeOf)) break;
    heap[at] = heap[above] as Source<T>;
    at = above;
  }
  heap[at] = source;
}

function removeFirst<T>(heap: Source<T>[], timeOf: TimeOf<T>): void {
  const last = heap.pop();
  if (heap.length === 0 || last === undefined) return;
  heap[0] = last;
  sink(heap, timeOf);
}

/** Moves the first to its place. */
function sink<T>(heap: Source<T>[], timeOf: TimeOf<T>): void {
  const source = heap[0] as Source<T>;
  let at = 0;
  for (;;) {
    let below = 2 * at + 1;
    if (below >= heap.length) break;
    if (below + 1 < heap.length && isBefore(heap[below + 1] as Source<T>, heap[below] as Source<T>, timeOf))
      below += 1;
    if (!isBefore(heap[below] as Source<T>, source, timeOf)) break;
    heap[at] = heap[below] as Source<T>;
    at = below;
  }
  heap[at] = source;
}
