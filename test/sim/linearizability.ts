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

  run(): readonly Operation[] | undefined {
    return this.#continue(0, INITIAL) ? this.#order : undefined;
  }

  /** Places the rest. Everything before `first` is placed; the register holds `value`. */
  #continue(first: number, value: number): boolean {
    if (this.#placed === this.#calls.length) return true;
    const key = this.#keyOf(first, value);
    if (this.#seen.has(key)) return false;
    this.#seen.add(key);
    // Who began after another had its answer comes after it.
    const end = this.#earliestAnswer(first);
    for (let at = first; at < this.#calls.length; at++) {
      const call = this.#calls[at] as Operation;
      if (call.invoked > end) break;
      if (!this.#isPlaced[at] && this.#tryPlacing(call, at, { first, value, end })) return true;
    }
    return false;
  }

  #tryPlacing(call: Operation, at: number, now: { first: number; value: number; end: number }): boolean {
    let source: Operation | undefined;
    if (call.kind === 'read' && call.value !== now.value) {
      // Open writes of one value are worth the same: none has to be over before anything.
      const position = this.#open.findIndex(
        ({ value, invoked }) => value === call.value && invoked <= now.end,
      );
      if (position < 0) return false;
      [source] = this.#open.splice(position, 1);
    }
    const length = this.#order.length;
    if (source !== undefined) this.#order.push(source);
    this.#order.push(call);
    this.#isPlaced[at] = true;
    this.#placed++;
    let next = now.first;
    while (this.#isPlaced[next]) next++;
    if (this.#continue(next, call.value)) return true;
    this.#isPlaced[at] = false;
    this.#placed--;
    this.#order.length = length;
    if (source !== undefined) this.#open.push(source);
    return false;
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
