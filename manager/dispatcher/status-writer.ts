// Stores what agents report. While a write is in flight, what arrives makes up the next one, so a burst of a thousand statuses
// costs a few log entries and a lone one no delay. What fills an entry does not wait: a few of them are in flight at once.

import { isDeepStrictEqual } from 'node:util';
import { messageOf, SwarmError } from '../../core/errors.ts';
import type { TaskStatus } from '../../core/generated/objects.ts';
import { compareTaskStates } from '../../core/task-state.ts';
import {
  type StatusBatch,
  StatusBatchCodec,
  type TaskStatusUpdate,
} from '../../proto/generated/dispatcher.ts';
import { decode } from '../../proto/wire.ts';
import { dispatcherLog } from '../log.ts';
import type { Store } from '../store/store.ts';
import type { Transaction } from '../store/transaction.ts';

/** A batch of an agent, in its bytes: thousands may wait, and objects that wait are copied again and again. */
interface Report {
  readonly nodeId: string;
  readonly bytes: Uint8Array;
  readonly resolve: (sequence: number) => void;
  readonly reject: (error: unknown) => void;
}

interface ReadReport extends Report {
  readonly batch: StatusBatch;
}

/** What an entry of the log takes; larger reports take several. */
const UPDATES_PER_WRITE = 500;
/** About as many: a status and the id of its task. */
const BYTES_PER_WRITE = UPDATES_PER_WRITE * 100;
const WRITES_IN_FLIGHT_MAX = 4;

export class StatusWriter {
  readonly #store: Store;
  readonly #waiting: Report[] = [];
  #waitingBytes = 0;
  #writes = 0;

  constructor(store: Store) {
    this.#store = store;
  }

  /**
   * Resolves with the sequence number of the batch when its statuses are stored; those of tasks that are no more are
   * ignored. Rejects with `permission-denied` when one is of a task of another node, and stores none; with
   * `invalid-argument` when the bytes are no batch.
   */
  write(nodeId: string, bytes: Uint8Array): Promise<number> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ nodeId, bytes, resolve, reject });
      this.#waitingBytes += bytes.length;
      this.#writeMore();
    });
  }

  #writeMore(): void {
    const isFull = this.#waitingBytes >= BYTES_PER_WRITE;
    if (this.#waiting.length === 0 || this.#writes >= (isFull ? WRITES_IN_FLIGHT_MAX : 1)) return;
    const reports = this.#take();
    this.#writes++;
    void this.#write(reports).finally(() => {
      this.#writes--;
      this.#writeMore();
    });
  }

  /** The oldest, as many as go into one entry, at least one. */
  #take(): readonly ReadReport[] {
    const taken: ReadReport[] = [];
    let updates = 0;
    let end = 0;
    for (const report of this.#waiting) {
      const batch = readBatch(report);
      updates += batch?.updates.length ?? 0;
      if (taken.length > 0 && updates > UPDATES_PER_WRITE) break;
      end++;
      this.#waitingBytes -= report.bytes.length;
      if (batch !== undefined && this.#isOfItsNode(report, batch)) taken.push({ ...report, batch });
    }
    this.#waiting.splice(0, end);
    return taken;
  }

  async #write(reports: readonly ReadReport[]): Promise<void> {
    const steps = reports.flatMap(({ nodeId, batch }) =>
      batch.updates.map((update) => (tx: Transaction) => applyStatus(tx, nodeId, update)),
    );
    try {
      await this.#store.batch(steps);
      for (const { resolve, batch } of reports) resolve(batch.sequence);
    } catch (error) {
      for (const { reject } of reports) reject(error);
    }
  }

  /** Refuses it if not. */
  #isOfItsNode({ nodeId, reject }: Report, { updates }: StatusBatch): boolean {
    const foreign = updates.find(({ taskId }) => {
      const place = this.#store.view.nodeOfTask(taskId);
      return place !== undefined && place !== nodeId;
    });
    if (foreign === undefined) return true;
    const { taskId } = foreign;
    dispatcherLog.warn({ 'node.id': nodeId, 'task.id': taskId }, 'status of a foreign task refused');
    reject(new SwarmError('permission-denied', `task ${taskId} is not on node ${nodeId}`));
    return false;
  }
}

/** Undefined when it is none, which its sender is told. */
function readBatch({ bytes, reject }: Report): StatusBatch | undefined {
  try {
    return decode(StatusBatchCodec, bytes);
  } catch (error) {
    reject(new SwarmError('invalid-argument', `statuses: not a batch of them: ${messageOf(error)}`));
    return undefined;
  }
}

function applyStatus(tx: Transaction, nodeId: string, { taskId, status }: TaskStatusUpdate): void {
  const stored = tx.taskReport(taskId);
  if (stored?.nodeId === nodeId && isNews(stored.status, status)) tx.updateStatus(taskId, status);
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
