// Stores what agents report. While a write is in flight, what arrives makes up the next one, so a burst of a thousand statuses
// costs a few log entries and a lone one no delay. What fills an entry does not wait: a few of them are in flight at once.

import { isDeepStrictEqual } from 'node:util';
import { SwarmError } from '../../core/errors.ts';
import type { TaskStatus } from '../../core/generated/objects.ts';
import { compareTaskStates } from '../../core/task-state.ts';
import type { TaskStatusUpdate } from '../../proto/generated/dispatcher.ts';
import { dispatcherLog } from '../log.ts';
import type { Store } from '../store/store.ts';
import type { Transaction } from '../store/transaction.ts';

interface Report {
  readonly nodeId: string;
  readonly updates: readonly TaskStatusUpdate[];
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

/** What an entry of the log takes; larger reports take several. */
const UPDATES_PER_WRITE = 500;
const WRITES_IN_FLIGHT_MAX = 4;

export class StatusWriter {
  readonly #store: Store;
  readonly #waiting: Report[] = [];
  #waitingUpdates = 0;
  #writes = 0;

  constructor(store: Store) {
    this.#store = store;
  }

  /**
   * Resolves when the statuses are stored; those of tasks that are no more are ignored. Rejects with `permission-denied`
   * when one is of a task of another node, and stores none.
   */
  write(nodeId: string, updates: readonly TaskStatusUpdate[]): Promise<void> {
    const foreign = updates.find(({ taskId }) => {
      const place = this.#store.view.nodeOfTask(taskId);
      return place !== undefined && place !== nodeId;
    });
    if (foreign !== undefined) {
      dispatcherLog.warn(
        { 'node.id': nodeId, 'task.id': foreign.taskId },
        'status of a foreign task refused',
      );
      return Promise.reject(
        new SwarmError('permission-denied', `task ${foreign.taskId} is not on node ${nodeId}`),
      );
    }
    return new Promise((resolve, reject) => {
      this.#waiting.push({ nodeId, updates, resolve, reject });
      this.#waitingUpdates += updates.length;
      this.#writeMore();
    });
  }

  #writeMore(): void {
    const isFull = this.#waitingUpdates >= UPDATES_PER_WRITE;
    if (this.#waiting.length === 0 || this.#writes >= (isFull ? WRITES_IN_FLIGHT_MAX : 1)) return;
    const reports = this.#take();
    this.#writes++;
    void this.#write(reports).finally(() => {
      this.#writes--;
      this.#writeMore();
    });
  }

  /** The oldest, as many as go into one entry, at least one. */
  #take(): readonly Report[] {
    let updates = 0;
    let end = 0;
    for (const report of this.#waiting) {
      if (end > 0 && updates + report.updates.length > UPDATES_PER_WRITE) break;
      updates += report.updates.length;
      end++;
    }
    this.#waitingUpdates -= updates;
    return this.#waiting.splice(0, end);
  }

  async #write(reports: readonly Report[]): Promise<void> {
    const steps = reports.flatMap(({ nodeId, updates }) =>
      updates.map((update) => (tx: Transaction) => applyStatus(tx, nodeId, update)),
    );
    try {
      await this.#store.batch(steps);
      for (const report of reports) report.resolve();
    } catch (error) {
      for (const report of reports) report.reject(error);
    }
  }
}

function applyStatus(tx: Transaction, nodeId: string, { taskId, status }: TaskStatusUpdate): void {
  const task = tx.get('task', taskId);
  if (task === undefined || task.nodeId !== nodeId || !isNews(task.status, status)) return;
  tx.update('task', { ...task, status });
}

/** A state never goes back; within one state a newer word replaces an older one. */
function isNews(stored: TaskStatus, reported: TaskStatus): boolean {
  const order = compareTaskStates(reported.state, stored.state);
  if (order !== 0) return order > 0;
  return (
    reported.timestampMs >= stored.timestampMs &&
    (reported.message !== stored.message ||
      reported.error !== stored.error ||
      reported.container?.pid !== stored.container?.pid ||
      !isDeepStrictEqual(reported.files, stored.files))
  );
}
