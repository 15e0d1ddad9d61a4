// Carries task statuses to the manager: the latest of each task, one batch in flight, until acknowledged. A lone status
// goes at once; what comes soon after a batch, or while it is under way, makes up the next.

import type { Clock } from '../../core/clock.ts';
import type { TaskStatus } from '../../core/generated/objects.ts';
import type { StatusBatch } from '../../proto/generated/dispatcher.ts';

// A batch costs both ends about a millisecond, whatever is in it. With many tasks on the move this makes their steps share
// batches, and a task that climbs quickly tells fewer of them.
const INTERVAL_MS = 25;

export class StatusReporter {
  readonly #clock: Clock;
  readonly #send: (batch: StatusBatch) => void;
  readonly #pending = new Map<string, TaskStatus>();
  #inFlight = false;
  #isClosed = false;
  #sequence = 0;
  #notBeforeMs = 0;
  #cancelTimer: (() => void) | undefined;

  /** For one session; `statuses` is all that there is to tell at its beginning. */
  constructor(
    clock: Clock,
    statuses: readonly (readonly [string, TaskStatus])[],
    send: (batch: StatusBatch) => void,
  ) {
    this.#clock = clock;
    this.#send = send;
    for (const [id, status] of statuses) this.#pending.set(id, status);
    this.#flush();
  }

  report(taskId: string, status: TaskStatus): void {
    this.#pending.set(taskId, status);
    this.#flush();
  }

  acknowledge(sequence: number): void {
    if (sequence !== this.#sequence) return;
    this.#inFlight = false;
    this.#flush();
  }

  /** The session has ended. */
  close(): void {
    this.#cancelTimer?.();
    this.#isClosed = true;
  }

  #flush(): void {
    if (this.#isClosed || this.#inFlight || this.#pending.size === 0) return;
    if (this.#cancelTimer !== undefined) return;
    const waitMs = this.#notBeforeMs - this.#clock.elapsedMs();
    if (waitMs > 0) {
      this.#cancelTimer = this.#clock.after(waitMs, () => {
        this.#cancelTimer = undefined;
        this.#flush();
      });
      return;
    }
    this.#notBeforeMs = this.#clock.elapsedMs() + INTERVAL_MS;
    this.#inFlight = true;
    const updates = [...this.#pending].map(([taskId, status]) => ({ taskId, status }));
    this.#pending.clear();
    this.#send({ sequence: ++this.#sequence, updates });
  }
}
