// The state machine and how far it is: the index of its last entry, and the revision of etcd that wrote it. Whoever
// applies (the follower, or the leader's writer) does it here; whoever waits for a revision waits here.

import { assert } from '../../core/assert.ts';
import type { Clock } from '../../core/clock.ts';
import { SwarmError } from '../../core/errors.ts';
import type { ApplyResult, ObjectStateMachine } from '../store/replicated-log.ts';

export class Replica {
  readonly machine: ObjectStateMachine;
  readonly #clock: Clock;
  #index = 0;
  #revision = 0;
  #waiting: { readonly revision: number; readonly resolve: () => void }[] = [];

  constructor(machine: ObjectStateMachine, clock: Clock) {
    this.machine = machine;
    this.#clock = clock;
  }

  get index(): number {
    return this.#index;
  }

  /** Of the last commit that is contained. */
  get revision(): number {
    return this.#revision;
  }

  apply(index: number, payload: Uint8Array): ApplyResult {
    assert(index > this.#index, `entry ${index} after ${this.#index}`);
    this.#index = index;
    return this.machine.apply(index, payload);
  }

  /** Everything of the commit at this revision is applied. */
  complete(index: number, revision: number): void {
    this.#index = index;
    this.#revision = revision;
    const done = this.#waiting.filter((waiter) => waiter.revision <= revision);
    this.#waiting = this.#waiting.filter((waiter) => waiter.revision > revision);
    for (const { resolve } of done) resolve();
  }

  async restore(
    index: number,
    revision: number,
    records: AsyncIterable<readonly Uint8Array[]>,
  ): Promise<void> {
    await this.machine.restore(index, records);
    this.complete(index, revision);
  }

  /** Resolves once the commit of this revision is contained; rejects with `unavailable` after `limitMs`. */
  reached(revision: number, limitMs: number): Promise<void> {
    if (this.#revision >= revision) return Promise.resolve();
    return new Promise((resolve, reject) => {
      const cancel = this.#clock.after(limitMs, () => {
        this.#waiting = this.#waiting.filter((other) => other !== waiter);
        reject(new SwarmError('unavailable', 'this manager is behind etcd and does not catch up'));
      });
      const waiter = {
        revision,
        resolve: () => {
          cancel();
          resolve();
        },
      };
      this.#waiting.push(waiter);
    });
  }
}
