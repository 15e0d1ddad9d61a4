// Carries task statuses to the manager: the latest of each task, one batch in flight, until acknowledged. A lone status
// goes at once; what comes while a batch is under way makes up the next.

import type { TaskStatus } from '../../core/generated/objects.ts';
import type { StatusBatch } from '../../proto/generated/dispatcher.ts';

export class StatusReporter {
  readonly #send: (batch: StatusBatch) => void;
  readonly #pending = new Map<string, TaskStatus>();
  #inFlight = false;
  #sequence = 0;

  /** For one session; `statuses` is all that there is to tell at its beginning. */
  constructor(statuses: readonly (readonly [string, TaskStatus])[], send: (batch: StatusBatch) => void) {
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

  #flush(): void {
    if (this.#inFlight || this.#pending.size === 0) return;
    this.#inFlight = true;
    const updates = [...this.#pending].map(([taskId, status]) => ({ taskId, status }));
    this.#pending.clear();
    this.#send({ sequence: ++this.#sequence, updates });
  }
}
