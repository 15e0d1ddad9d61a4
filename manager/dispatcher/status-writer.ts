// Stores what agents report. One write is in flight; all reports that arrive meanwhile make up the next one, so a
// burst of a thousand statuses costs a few log entries and a lone one no delay.

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

export class StatusWriter {
  readonly #store: Store;
  #reports: Report[] = [];
  #isWriting = false;

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
      this.#reports.push({ nodeId, updates, resolve, reject });
      if (!this.#isWriting) void this.#flush();
    });
  }

  async #flush(): Promise<void> {
    this.#isWriting = true;
    while (this.#reports.length > 0) {
      const reports = this.#reports;
      this.#reports = [];
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
    this.#isWriting = false;
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
