// The store: tables that change only through the replicated log. `update` is the one way to write, `view` the one to
// read, `subscribe` and `watch` the ways to hear of changes. Proposals pipeline: no lock is held while the log works,
// and two writers of the same object find out when their entries are applied.

import type { Clock } from '../../core/clock.ts';
import { hasCode, SwarmError } from '../../core/errors.ts';
import { ChangeCodec, type LogEntry, LogEntryCodec } from '../../proto/generated/log.ts';
import { decode, encode, newEncoder } from '../../proto/wire.ts';
import { AsyncQueue } from '../../rpc/queue.ts';
import { storeLog } from '../log.ts';
import { applyEntry, objectOf, type StoreEvent, snapshotRecord } from './apply-entry.ts';
import { DECIDE_MS_MAX, DecideTurns } from './decide-turns.ts';
import { RecentCommits } from './recent-commits.ts';
import { TablesRehearsal } from './rehearsal.ts';
import type { ApplyResult, ObjectStateMachine, Rehearsal, ReplicatedLog } from './replicated-log.ts';
import { KINDS, type Kind, type Kinds, Tables, type TablesView, type TableView } from './tables.ts';
import { TaskEvent } from './task-events.ts';
import { Transaction } from './transaction.ts';

/** All events of one log entry, in its order. */
export interface Commit {
  readonly index: number;
  readonly events: readonly StoreEvent[];
}

/** A commit in the moment in which it is applied. */
export interface FreshCommit extends Commit {
  /** Its events without remarks of agents, by which nobody decides anything: where tasks run, most of what happens. */
  readonly decisive: readonly StoreEvent[];
}

export interface WatchOptions<T> {
  /**
   * Called for every commit as it is applied: must be quick and must not throw. What it returns waits for the reader, and
   * no more than that; undefined: nothing of this commit.
   */
  readonly select: (commit: Commit) => T | undefined;
  /** A log index that was seen before: the watch resumes there. */
  readonly after?: number | undefined;
}

/** How long things took, for metrics. */
export type StoreObserver = (operation: 'write-tx' | 'batch', durationMs: number) => void;

// Swarm's limit of one proposal; larger ones are split by `batch` or refused.
const ENTRY_BYTES_MAX = 1.5 * 2 ** 20;
// Applying an entry holds up everything else: some milliseconds. With Swarm's 200 a third fewer placements are committed.
const CHANGES_PER_ENTRY_MAX = 500;
// Two writers of one object take turns; whoever loses this often has met a bug.
const ATTEMPTS_MAX = 20;
// A watcher with this much unread is told to start again rather than kept in memory.
const WATCH_BACKLOG_MAX = 10_000;

export class Store implements ObjectStateMachine {
  #tables = new Tables();
  readonly #log: ReplicatedLog;
  readonly #clock: Clock;
  readonly #observe: StoreObserver;
  readonly #listeners = new Set<(commit: FreshCommit) => void>();
  readonly #recent = new RecentCommits();
  readonly #watches = new Set<(failure?: unknown) => void>();
  readonly #turns: DecideTurns;
  /** What this manager has proposed, by its payload: applied as it is, without being read again. */
  readonly #proposed = new Map<Uint8Array, LogEntry>();
  #newestMs = 0;

  constructor(log: ReplicatedLog, clock: Clock, observe: StoreObserver = () => {}) {
    this.#log = log;
    this.#clock = clock;
    this.#observe = observe;
    this.#turns = new DecideTurns(clock);
  }

  /** Loads what was stored before. */
  open(): Promise<void> {
    return this.#log.open(this);
  }

  get view(): TablesView {
    return this.#tables;
  }

  /** Index of the last entry that the tables contain. */
  get index(): number {
    return this.#log.appliedIndex;
  }

  /**
   * The latest time of an entry, by the clocks of those who wrote them; of a snapshot, when its newest object was written. 0 when
   * there is nothing.
   */
  get newestMs(): number {
    return this.#newestMs;
  }

  /**
   * Runs `decide` on the current state and stores what it wrote, all or nothing. When another writer was faster on
   * one of the objects, `decide` runs again on the new state; it must have no other effect than its writes.
   */
  async update<T>(decide: (tx: Transaction) => T): Promise<T> {
    const startedMs = performance.now();
    for (let attempt = 1; ; attempt++) {
      const { result, changes, guards } = this.#turns.spend(() => this.#decide(decide));
      if (changes.length === 0) return result;
      const outcome = await this.#propose({ timeMs: this.#clock.nowMs(), changes, guards });
      if (outcome.applied) {
        this.#observe('write-tx', performance.now() - startedMs);
        return result;
      }
      if (attempt === ATTEMPTS_MAX)
        throw new SwarmError('out-of-sequence', `gave up after ${attempt} attempts: ${outcome.reason}`);
      storeLog.debug({ attempt, reason: outcome.reason }, 'transaction repeated');
    }
  }

  /**
   * Runs each step in a transaction of its own size: several steps share an entry up to the limits of one. Steps are
   * independent: a crash between two entries leaves some done and some not.
   */
  async batch(steps: readonly ((tx: Transaction) => void)[]): Promise<void> {
    const startedMs = performance.now();
    let stepsMax = steps.length;
    for (let done = 0; done < steps.length; ) {
      let next = done;
      try {
        while (this.#turns.isSpent) await this.#turns.over();
        await this.update((tx) => {
          const end = Math.min(steps.length, done + stepsMax);
          const untilMs = this.#clock.elapsedMs() + DECIDE_MS_MAX;
          const isRoom = () => tx.size < CHANGES_PER_ENTRY_MAX && this.#clock.elapsedMs() < untilMs;
          next = done;
          do steps[next++]?.(tx);
          while (next < end && isRoom());
        });
        done = next;
      } catch (error) {
        // Few objects can be big as well: fewer steps share an entry then.
        if (!hasCode(error, 'resource-exhausted') || next - done === 1) throw error;
        stepsMax = Math.ceil((next - done) / 2);
      }
    }
    this.#observe('batch', performance.now() - startedMs);
  }

  /** Calls back after every applied entry, from within the apply: the listener must be quick and must not throw. */
  subscribe(listener: (commit: FreshCommit) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /**
   * What `select` takes of every commit after the current state, without gap. Read `view` before the first await for the
   * matching snapshot. A reader that falls too far behind, or resumes from too long ago, gets `resource-exhausted` and has
   * to start again.
   */
  watch<T>(signal: AbortSignal, { select, after = this.index }: WatchOptions<T>): AsyncIterable<T> {
    const queue = new AsyncQueue<T>();
    if (after < this.#recent.forgottenIndex)
      queue.end(
        new SwarmError('resource-exhausted', `the changes after ${after} are not kept any more`, {
          hint: 'Watch again from a new snapshot.',
        }),
      );
    const pushSelected = (commit: Commit) => {
      const selected = select(commit);
      if (selected !== undefined) queue.push(selected);
    };
    this.#recent.after(after).forEach(pushSelected);
    const unsubscribe = this.subscribe((commit) => {
      if (queue.size < WATCH_BACKLOG_MAX) pushSelected(commit);
      else
        stop(
          new SwarmError('resource-exhausted', 'the watcher is too slow: watch again from a new snapshot'),
        );
    });
    const stop = (failure?: unknown) => {
      unsubscribe();
      this.#watches.delete(stop);
      queue.end(failure);
    };
    this.#watches.add(stop);
    if (signal.aborted) stop();
    else signal.addEventListener('abort', () => stop(), { once: true });
    return queue;
  }

  apply(index: number, payload: Uint8Array): ApplyResult {
    const entry = this.#proposed.get(payload) ?? decode(LogEntryCodec, payload);
    const outcome = applyEntry(this.#tables, index, entry);
    if (!outcome.applied) return { applied: false, index, reason: outcome.reason };
    this.#newestMs = Math.max(this.#newestMs, entry.timeMs);
    const { events, tasks } = outcome;
    const decisive = events.filter((event) => !(event instanceof TaskEvent && event.isRemark));
    const commit = { index, events, decisive };
    this.#recent.push(commit, tasks);
    for (const listener of this.#listeners) listener(commit);
    return { applied: true, index, digest: outcome.digest };
  }

  rehearse(): Rehearsal {
    return new TablesRehearsal(this.#tables);
  }

  snapshot(): Iterable<Uint8Array> {
    // Copies of the references, taken at once: objects never change, so the snapshot is of this moment.
    const tables = this.#tables;
    const tasks = tables.taskSnapshot();
    return encodeObjects(
      KINDS.map((kind) => [kind, kind === 'task' ? tasks : valuesOf<Kinds[Kind]>(tables[kind])] as const),
    );
  }

  async restore(index: number, records: AsyncIterable<readonly Uint8Array[]>): Promise<void> {
    // Readers keep the old state until all of the new one is there.
    const tables = new Tables();
    let newestMs = 0;
    for await (const chunk of records)
      for (const record of chunk) {
        const change = decode(ChangeCodec, record);
        const object = objectOf(change);
        const kind = change.kind as Kind;
        if (object === undefined) continue;
        tables.put(kind, object as Kinds[Kind]);
        newestMs = Math.max(newestMs, object.meta.updatedAtMs);
      }
    this.#tables = tables;
    this.#newestMs = newestMs;
    this.#recent.clear(index);
    const reason = new SwarmError(
      'resource-exhausted',
      'the manager took over a snapshot: watch again from a new one',
    );
    for (const stop of this.#watches) stop(reason);
  }

  /** Nothing of the transaction but its changes is held while the log works. */
  #decide<T>(decide: (tx: Transaction) => T): Omit<LogEntry, 'timeMs'> & { readonly result: T } {
    const tx = new Transaction(this.#tables);
    return { result: decide(tx), changes: tx.changes(), guards: tx.guards() };
  }

  async #propose(entry: LogEntry): Promise<ApplyResult> {
    const payload = this.#turns.spend(() => encode(LogEntryCodec, entry));
    const bytesMax = Math.min(ENTRY_BYTES_MAX, this.#log.payloadBytesMax ?? ENTRY_BYTES_MAX);
    if (payload.length > bytesMax)
      throw new SwarmError(
        'resource-exhausted',
        `the change has ${payload.length} bytes, more than the ${bytesMax} of one log entry`,
      );
    this.#proposed.set(payload, entry);
    try {
      return await this.#log.propose(payload);
    } finally {
      this.#proposed.delete(payload);
    }
  }
}

function* encodeObjects(objects: readonly (readonly [Kind, Iterable<Kinds[Kind]>])[]): Iterable<Uint8Array> {
  const encode = newEncoder();
  for (const [kind, values] of objects)
    for (const object of values) yield snapshotRecord(kind, object, encode);
}

/** The values as an array that is made in one piece: one that grows leaves several times its size as garbage. */
function valuesOf<T>(table: Pick<TableView<T>, 'size' | 'values'>): T[] {
  const values = new Array<T>(table.size);
  let count = 0;
  for (const value of table.values()) values[count++] = value;
  return values;
}
