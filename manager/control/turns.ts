// One after the other: for decisions that rest on objects which they do not write. An entry of the log guards only what
// it changes, so two of them could both find an address free that only one may have.

export type TakeTurn = <T>(act: () => Promise<T>) => Promise<T>;

/** A queue of its own; an action that fails does not hold up the next. */
export function newTurns(): TakeTurn {
  let last: Promise<unknown> = Promise.resolve();
  return (act) => {
    const mine = last.then(act);
    // Who asked for it gets the failure.
    last = mine.catch(() => {});
    return mine;
  };
}
