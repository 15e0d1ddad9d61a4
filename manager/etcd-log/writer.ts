// The leader's way to etcd: one transaction is in flight, and everything proposed meanwhile goes into the next. Each is
// made conditional on the key "leader" (still ours) and on the commit before it (still the last), so that asking etcd the
// same twice stores it once, and a leader that has been replaced stores nothing.

import type { ITxnResponse } from 'etcd3';
import { assert } from '../../core/assert.ts';
import { hasCode, messageOf, SwarmError } from '../../core/errors.ts';
import { EtcdCommitCodec } from '../../proto/generated/etcd.ts';
import { decode } from '../../proto/wire.ts';
import { logLog } from '../log.ts';
import type { ApplyResult, NotLeaderError } from '../store/replicated-log.ts';
import { type CommitPlan, planCommit } from './commit-record.ts';
import type { EtcdClient } from './etcd-client.ts';
import {
  found,
  get,
  isCreatedAt,
  isModifiedAt,
  type Keys,
  put,
  remove,
  revisionOf,
  transaction,
} from './keys.ts';
import type { Replica } from './replica.ts';

export interface WriterOptions {
  readonly client: EtcdClient;
  readonly keys: Keys;
  readonly replica: Replica;
  /** Runs a callback soon, after what is happening now: proposals of one moment go together. */
  readonly defer: (callback: () => void) => void;
  readonly notLeader: () => NotLeaderError;
  /** The transaction could not be brought to an end, or somebody else writes: this manager must not lead any more. */
  readonly stepDown: (reason: string) => void;
  readonly observe: (operation: 'transaction', durationMs: number) => void;
}

interface Proposal {
  readonly payload: Uint8Array;
  readonly startedMs: number;
  readonly resolve: (result: ApplyResult) => void;
  readonly reject: (error: unknown) => void;
}

/** While this manager leads. */
interface Term {
  readonly term: number;
  readonly signal: AbortSignal;
  /** Of the last commit. */
  revision: number;
}

// etcd answers in milliseconds. One that takes this long, while it renews leases, is in trouble.
const COMMIT_LIMIT_MS = 15_000;

export class Writer {
  readonly #options: WriterOptions;
  #waiting: Proposal[] = [];
  #term: Term | undefined;
  #isHeld = false;
  /** So many of those that wait go alone: etcd did not take them together. */
  #aloneCount = 0;
  #flushing: Promise<void> | undefined;

  constructor(options: WriterOptions) {
    this.#options = options;
  }

  lead(term: number, revision: number, signal: AbortSignal): void {
    this.#term = { term, revision, signal };
    this.#isHeld = false;
    this.#aloneCount = 0;
    signal.addEventListener('abort', () => this.#rejectWaiting(), { once: true });
  }

  propose(payload: Uint8Array): Promise<ApplyResult> {
    if (this.#leadingTerm() === undefined) return Promise.reject(this.#options.notLeader());
    return new Promise((resolve, reject) => {
      this.#waiting.push({ payload, startedMs: performance.now(), resolve, reject });
      this.#flushSoon();
    });
  }

  /** Begins no more transactions in this term; resolves when none is in flight. */
  async hold(): Promise<void> {
    this.#isHeld = true;
    await this.#flushing;
  }

  #leadingTerm(): Term | undefined {
    return this.#term === undefined || this.#term.signal.aborted ? undefined : this.#term;
  }

  #rejectWaiting(): void {
    for (const { reject } of this.#waiting.splice(0)) reject(this.#options.notLeader());
  }

  #flushSoon(): void {
    this.#flushing ??= this.#flush().finally(() => {
      this.#flushing = undefined;
      if (this.#waiting.length > 0 && !this.#isHeld && this.#leadingTerm() !== undefined) this.#flushSoon();
    });
  }

  async #flush(): Promise<void> {
    while (this.#waiting.length > 0 && !this.#isHeld) {
      await new Promise<void>((resolve) => {
        this.#options.defer(resolve);
      });
      const term = this.#leadingTerm();
      if (term === undefined || this.#waiting.length === 0) return;
      await this.#commitNext(term);
    }
  }

  async #commitNext(term: Term): Promise<void> {
    const { replica } = this.#options;
    const position = { index: replica.index, term: term.term };
    const candidates = this.#aloneCount > 0 ? this.#waiting.slice(0, 1) : this.#waiting;
    this.#aloneCount = Math.max(0, this.#aloneCount - 1);
    const payloads = candidates.map(({ payload }) => payload);
    const plan = planCommit(replica.machine, position, payloads);
    const proposals = candidates.slice(0, plan.results.length);
    this.#waiting = this.#waiting.slice(proposals.length);
    try {
      term.revision = await this.#store(term, plan);
    } catch (error) {
      if (proposals.length > 1 && isRefusal(error)) {
        // One of them may be too much; the others shall not suffer for it.
        this.#waiting = [...proposals, ...this.#waiting];
        this.#aloneCount = proposals.length;
      } else for (const { reject } of proposals) reject(error);
      return;
    }
    this.#apply(proposals, plan, { index: position.index, revision: term.revision });
  }

  #apply(proposals: readonly Proposal[], plan: CommitPlan, after: { index: number; revision: number }): void {
    const { replica, observe } = this.#options;
    proposals.forEach(({ payload, startedMs, resolve }, offset) => {
      const result = replica.apply(after.index + offset + 1, payload);
      assert(result.applied === plan.results[offset]?.applied, 'an entry did what was not rehearsed');
      observe('transaction', performance.now() - startedMs);
      resolve(result);
    });
    replica.complete(plan.index, after.revision);
  }

  /** Resolves with the revision of the commit. Rejects with NotLeaderError when it is certainly not stored. */
  async #store(term: Term, plan: CommitPlan): Promise<number> {
    const { client, keys, notLeader, stepDown } = this.#options;
    const request = transaction(
      [isCreatedAt(keys.leader, term.term), isModifiedAt(keys.commit, term.revision)],
      [put(keys.commit, plan.commit), ...plan.objects.map((object) => operationOf(keys, object))],
      [get(keys.leader), get(keys.commit)],
    );
    let attempts = 0;
    let answer: ITxnResponse;
    try {
      answer = await client.call(
        'store a change',
        (member, options) => {
          attempts++;
          return member.kv.txn(request, options);
        },
        { limitMs: COMMIT_LIMIT_MS, signal: term.signal },
      );
    } catch (error) {
      // Refused outright and never sent before: nothing has happened.
      const isRefused = attempts === 1 && error instanceof SwarmError && error.code !== 'unavailable';
      if (isRefused && !term.signal.aborted) throw error;
      stepDown(messageOf(error));
      throw outcomeUnknown(error);
    }
    if (term.signal.aborted) throw outcomeUnknown(term.signal.reason);
    if (answer.succeeded) return revisionOf(answer.header.revision);
    const commit = found(answer.responses[1]);
    // An earlier attempt has stored it, and only its answer was lost.
    if (attempts > 1 && commit !== undefined && isCommit(commit.value, term, plan))
      return revisionOf(commit.mod_revision);
    logLog.warn({ 'etcd.term': term.term }, 'another manager leads: nothing was stored');
    stepDown('another manager leads');
    throw attempts > 1 ? outcomeUnknown() : notLeader();
  }
}

function operationOf(keys: Keys, { kind, id, record }: CommitPlan['objects'][number]) {
  const key = keys.object(kind, id);
  return record === undefined ? remove({ key }) : put(key, record);
}

/** Nothing was stored, and it is not for want of a leader. */
function isRefusal(error: unknown): boolean {
  return hasCode(error, 'resource-exhausted') || hasCode(error, 'internal');
}

function isCommit(value: Buffer, { term }: Term, { index }: CommitPlan): boolean {
  const commit = decode(EtcdCommitCodec, value);
  return commit.term === term && commit.index === index;
}

function outcomeUnknown(cause?: unknown): SwarmError {
  return new SwarmError(
    'unavailable',
    'leadership was lost while a change was under way: it may have been stored',
    {
      hint: 'Look at the object before you repeat the change.',
      cause,
    },
  );
}
