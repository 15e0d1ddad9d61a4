// Decides whether a history of calls to registers could have come from one register at a time, each call taking effect
// at one moment between its beginning and its answer (Wing and Gong's search, with Lowe's memory of where it has been:
// the same set of calls and the same value need no second look). Registers are independent: each is searched alone.

/** One call as its client saw it. */
export interface Operation {
  readonly client: number;
  readonly kind: 'write' | 'read';
  readonly register: number;
  /** Written, or read once it has returned. */
  value: number;
  readonly invoked: number;
  /** Undefined: never answered. A write may have happened at any time since, or never. */
  returned: number | undefined;
}

/** What a register holds before anybody writes. */
const INITIAL = 0;

/** The register whose calls have no order that explains them, or undefined when the history is linearizable. */
export function unexplainedRegister(history: readonly Operation[]): number | undefined {
  const registers = Map.groupBy(history, ({ register }) => register);
  for (const [register, calls] of registers) if (linearize(calls) === undefined) return register;
  return undefined;
}

/** An order in which the calls of one register could have taken effect, or undefined. */
export function linearize(history: readonly Operation[]): readonly Operation[] | undefined {
  const calls = [...history].sort((a, b) => a.invoked - b.invoked);
  return new Search(calls).run();
}

/** The first `count` calls as they looked then: what was answered later is still open. */
export function beginningOf(history: readonly Operation[], count: number): readonly Operation[] {
  if (history.length <= count) return history;
  const end = history[count]?.invoked ?? 0;
  return history
    .slice(0, count)
    .map((call) => ((call.returned ?? 0) < end ? call : { ...call, returned: undefined }));
}

/** One step of the search: what was placed here, and where to look on. */
interface Frame {
  readonly first: number;
  readonly value: number;
  readonly end: number;
  at: number;
  source: Operation | undefined;
  readonly length: number;
}

class Search {
  /** Answered calls in the order of their beginning, and which of them have their place in the order. */
  readonly #calls: readonly Operation[];
  readonly #isPlaced: boolean[];
  /** Writes without an answer. One that no read needs may as well not have happened: only reads place them. */
  readonly #open: Operation[];
  readonly #order: Operation[] = [];
  readonly #seen = new Set<string>();
  #placed = 0;

  constructor(calls: readonly Operation[]) {
    this.#calls = calls.filter(({ returned }) => returned !== undefined);
    this.#isPlaced = this.#calls.map(() => false);
    this.#open = calls.filter(({ kind, returned }) => kind === 'write' && returned === undefined);
  }

  /** Depth first, with a stack of its own: histories are longer than call stacks are deep. */
  run(): readonly Operation[] | undefined {
    const frames: Frame[] = [];
    let frame = this.#enter(0, INITIAL);
    while (this.#placed < this.#calls.length) {
      const next = frame === undefined ? undefined : this.#placeNext(frame);
      if (frame !== undefined && next !== undefined) {
        frames.push(frame);
        frame = next === 'seen' ? undefined : next;
        continue;
      }
      frame = frames.pop();
      if (frame === undefined) return undefined;
      this.#undo(frame);
    }
    return this.#order;
  }

  /** Everything before `first` is placed; the register holds `value`. Undefined when that was tried before. */
  #enter(first: number, value: number): Frame | undefined {
    const key = this.#keyOf(first, value);
    if (this.#seen.has(key)) return undefined;
    this.#seen.add(key);
    // Who began after another had its answer comes after it.
    const end = this.#earliestAnswer(first);
    return { first, value, end, at: first, source: undefined, length: this.#order.length };
  }

  /** Places the next call that can come here; undefined when there is none. */
  #placeNext(frame: Frame): Frame | 'seen' | undefined {
    for (; frame.at < this.#calls.length; frame.at++) {
      const call = this.#calls[frame.at] as Operation;
      if (call.invoked > frame.end) return undefined;
      if (!this.#isPlaced[frame.at] && this.#place(call, frame)) {
        let next = frame.first;
        while (this.#isPlaced[next]) next++;
        return this.#enter(next, call.value) ?? 'seen';
      }
    }
    return undefined;
  }

  #place(call: Operation, frame: Frame): boolean {
    frame.source = undefined;
    if (call.kind === 'read' && call.value !== frame.value) {
      // Open writes of one value are worth the same: none has to be over before anything.
      const position = this.#open.findIndex(
        ({ value, invoked }) => value === call.value && invoked <= frame.end,
      );
      if (position < 0) return false;
      [frame.source] = this.#open.splice(position, 1);
    }
    if (frame.source !== undefined) this.#order.push(frame.source);
    this.#order.push(call);
    this.#isPlaced[frame.at] = true;
    this.#placed++;
    return true;
  }

  /** Takes back what this frame placed, and goes on with the next call. */
  #undo(frame: Frame): void {
    this.#isPlaced[frame.at] = false;
    this.#placed--;
    this.#order.length = frame.length;
    if (frame.source !== undefined) this.#open.push(frame.source);
    frame.at++;
  }

  #earliestAnswer(first: number): number {
    let earliest = Number.POSITIVE_INFINITY;
    for (let at = first; at < this.#calls.length; at++) {
      const { returned, invoked } = this.#calls[at] as Operation;
      if (invoked > earliest) break;
      if (!this.#isPlaced[at]) earliest = Math.min(earliest, returned ?? earliest);
    }
    return earliest;
  }

  #keyOf(first: number, value: number): string {
    let key = `${value}:${first}`;
    let left = this.#placed - first;
    for (let at = first + 1; left > 0; at++) {
      if (!this.#isPlaced[at]) continue;
      key += `,${at}`;
      left--;
    }
    // Which open writes are used up: not only how many, but of which values.
    const open = this.#open.map((call) => `${call.invoked}=${call.value}`).sort();
    return `${key};${open}`;
  }
}
