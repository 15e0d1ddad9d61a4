// The log that makes all managers agree. The store sees only this interface; a single-member log on disk stands
// behind it now, and drivers that replicate fit in the same place.

/** What the log feeds: the store's tables. */
export interface StateMachine {
  /** Applies one committed entry, in log order. The result goes back to the proposer. */
  apply(index: number, payload: Uint8Array): ApplyResult;
  /** The records of a snapshot of the state as it is now; later changes must not show in it. */
  snapshot(): Iterable<Uint8Array>;
  /** Replaces the whole state by the records of a snapshot taken after entry `index`. */
  restore(index: number, records: Iterable<Uint8Array>): void;
}

export type ApplyResult =
  | { readonly applied: true; readonly index: number }
  /** A guard of the entry did not hold: nothing of it was applied. */
  | { readonly applied: false; readonly index: number; readonly reason: string };

export interface ReplicatedLog extends AsyncDisposable {
  /** Restores and replays what was committed before; afterwards `propose` may be called. */
  open(machine: StateMachine): Promise<void>;
  /** Resolves when the entry is durable, committed and applied. Many may be in flight; they keep their order. */
  propose(payload: Uint8Array): Promise<ApplyResult>;
  /** Index of the last applied entry; 0 before the first. */
  readonly appliedIndex: number;
}
