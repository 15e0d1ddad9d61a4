// A replicated log in memory that commits at once, or when told to, so that proposals can overlap.

import type { ApplyResult, ReplicatedLog, StateMachine } from '../../manager/store/replicated-log.ts';

export class MemoryLog implements ReplicatedLog {
  appliedIndex = 0;
  isHeld = false;
  #machine!: StateMachine;
  #waiting: (() => void)[] = [];

  async open(machine: StateMachine): Promise<void> {
    this.#machine = machine;
  }

  propose(payload: Uint8Array): Promise<ApplyResult> {
    return new Promise((resolve) => {
      this.#waiting.push(() => resolve(this.#machine.apply(++this.appliedIndex, payload)));
      if (!this.isHeld) this.release();
    });
  }

  async readBarrier(): Promise<void> {}

  readonly leadership = { isLeader: true, leaderAddress: 'localhost:2377', term: 1 };

  onLeadership(): () => void {
    return () => {};
  }

  async transferLeadership(): Promise<void> {}

  release(): void {
    this.isHeld = false;
    for (const commit of this.#waiting.splice(0)) commit();
  }

  async [Symbol.asyncDispose](): Promise<void> {}
}
