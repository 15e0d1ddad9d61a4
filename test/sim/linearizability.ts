// Is there one order of all calls that explains what every client saw, in which each call takes effect between its start
// and its answer? The search of Wing and Gong (1993) with the memo of Lowe (2017), one register at a time; a state of the
// search is which calls have taken effect, and the value. Every write has a value of its own.

import type { Operation } from './core-clients.ts';

export type Verdict =
  | { readonly isLinearizable: true }
  | {
      readonly isLinearizable: false;
      readonly register: number;
      /** The calls that could not be put in order, after all before them were. */
      readonly stuckAt: readonly Operation[];
    };

interface Call {
  readonly operation: Operation;
  readonly invoked: number;
  /** Infinity: never answered, so it may take effect at any time or never. */
  readonly returned: number;
}

interface State {
  /** All calls before this one have taken effect, */
  readonly prefix: number;
  /** and these of the later ones. */
  readonly extra: ReadonlySet<number>;
  readonly value: number;
}

/** Checks the history of registers that begin at 0. Reads without an answer say nothing and are ignored. */
export function checkLinearizable(history: readonly Operation[]): Verdict {
  for (const register of new Set(history.map((operation) => operation.register))) {
    const calls = callsOf(history.filter((operation) => operation.register === register));
    const stuck = search(calls);
    if (stuck !== undefined) return { isLinearizable: false, register, stuckAt: stuck };
  }
  return { isLinearizable: true };
}

function callsOf(history: readonly Operation[]): Call[] {
  const read = new Set(history.filter(({ kind }) => kind === 'read').map(({ value }) => value));
  return (
    history
      // An unanswered write that nobody read need not have happened.
      .filter(({ kind, returned, value }) => returned !== undefined || (kind === 'write' && read.has(value)))
      .map((operation) => ({
        operation,
        invoked: operation.invoked,
        returned: operation.returned ?? Number.POSITIVE_INFINITY,
      }))
      .sort((a, b) => a.invoked - b.invoked)
  );
}

/** Undefined when there is an order; else the calls at the furthest point that was reached. */
function search(calls: readonly Call[]): readonly Operation[] | undefined {
  const visited = new Set<string>();
  const stack: State[] = [{ prefix: 0, extra: new Set(), value: 0 }];
  let furthest: State | undefined;
  for (let state = stack.pop(); state !== undefined; state = stack.pop()) {
    const key = `${state.prefix}|${[...state.extra].sort((a, b) => a - b).join()}|${state.value}`;
    if (visited.has(key)) continue;
    visited.add(key);
    if (furthest === undefined || state.prefix > furthest.prefix) furthest = state;
    const candidates = candidatesOf(calls, state);
    if (
      candidates.every((index) => calls[index]?.returned === Number.POSITIVE_INFINITY) &&
      isDone(calls, state)
    )
      return undefined;
    for (const index of candidates) {
      const { kind, value } = (calls[index] as Call).operation;
      if (kind === 'read' && value !== state.value) continue;
      stack.push(advance(state, index, kind === 'write' ? value : state.value));
    }
  }
  const { prefix = 0 } = furthest ?? {};
  return calls.slice(prefix, prefix + 10).map(({ operation }) => operation);
}

/** Calls that may take effect next: those that began before the first of the others was answered. */
function candidatesOf(calls: readonly Call[], { prefix, extra }: State): number[] {
  let firstReturn = Number.POSITIVE_INFINITY;
  const candidates: number[] = [];
  for (let index = prefix; index < calls.length; index++) {
    const call = calls[index] as Call;
    if (call.invoked > firstReturn) break;
    if (extra.has(index)) continue;
    candidates.push(index);
    firstReturn = Math.min(firstReturn, call.returned);
  }
  return candidates.filter((index) => (calls[index] as Call).invoked < firstReturn);
}

function isDone(calls: readonly Call[], { prefix, extra }: State): boolean {
  return calls.every(
    ({ returned }, index) => index < prefix || extra.has(index) || returned === Number.POSITIVE_INFINITY,
  );
}

function advance({ prefix, extra }: State, index: number, value: number): State {
  const next = new Set(extra).add(index);
  let end = prefix;
  while (next.delete(end)) end++;
  return { prefix: end, extra: next, value };
}
