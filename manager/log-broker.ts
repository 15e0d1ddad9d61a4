// Brings log lines from agents to whoever asked for them. A subscription is announced to the nodes that run its tasks;
// they publish on streams of their own, at the speed of the reader.

import { SwarmError } from '../core/errors.ts';
import { newId, type RandomBytes } from '../core/ids.ts';
import type { LogBatch, LogOptions, LogSubscription } from '../proto/generated/dispatcher.ts';
import { AsyncQueue } from '../rpc/queue.ts';

type Announce = (subscription: LogSubscription) => void;

interface Subscription {
  readonly id: string;
  readonly options: LogOptions;
  readonly queue: AsyncQueue<LogBatch>;
  /** Tasks asked for and not finished, by node. */
  readonly asked: Map<string, Set<string>>;
  /** All that were ever asked for, by node: of no others will lines be taken. */
  readonly granted: Map<string, Set<string>>;
}

/** What a reader holds. */
export interface LogReader extends AsyncIterable<LogBatch> {
  /** Asks a node for more tasks' lines; false when the node has no session. */
  add(nodeId: string, taskIds: readonly string[]): boolean;
  /** No more batches are wanted. */
  close(): void;
}

// Batches that wait for a slow reader; then its agents wait.
const BATCHES_MAX = 16;

export class LogBroker {
  readonly #randomBytes: RandomBytes;
  readonly #nodes = new Map<string, Announce>();
  readonly #subscriptions = new Map<string, Subscription>();

  constructor(randomBytes: RandomBytes) {
    this.#randomBytes = randomBytes;
  }

  /** A node's session begins; the returned function ends it. */
  addNode(nodeId: string, announce: Announce): () => void {
    this.#nodes.set(nodeId, announce);
    return () => {
      if (this.#nodes.get(nodeId) === announce) this.#nodes.delete(nodeId);
      for (const subscription of this.#subscriptions.values()) failUnfinished(subscription, nodeId);
    };
  }

  subscribe(options: LogOptions): LogReader {
    const subscription: Subscription = {
      id: newId(this.#randomBytes),
      options,
      queue: new AsyncQueue(),
      asked: new Map(),
      granted: new Map(),
    };
    this.#subscriptions.set(subscription.id, subscription);
    return {
      add: (nodeId, taskIds) => this.#announce(subscription, nodeId, taskIds),
      close: () => this.#close(subscription),
      [Symbol.asyncIterator]: () => subscription.queue[Symbol.asyncIterator](),
    };
  }

  /**
   * Takes an agent's batches; returns when it has no more or nobody reads them any longer. Throws `permission-denied` for
   * lines that this node was not asked for.
   */
  async publish(nodeId: string, batches: AsyncIterable<LogBatch>): Promise<void> {
    for await (const batch of batches) {
      const subscription = this.#subscriptions.get(batch.subscriptionId);
      if (subscription === undefined) return;
      const granted = subscription.granted.get(nodeId);
      const foreign = batch.lines.find(({ taskId }) => !granted?.has(taskId));
      if (granted === undefined || foreign !== undefined)
        throw new SwarmError(
          'permission-denied',
          `node ${nodeId} was not asked for lines of task ${foreign?.taskId ?? ''}`,
        );
      await subscription.queue.offer(batch, BATCHES_MAX);
      for (const id of batch.finishedTaskIds) subscription.asked.get(nodeId)?.delete(id);
    }
  }

  #announce(
    { id, options, asked, granted }: Subscription,
    nodeId: string,
    taskIds: readonly string[],
  ): boolean {
    const announce = this.#nodes.get(nodeId);
    if (announce === undefined) return false;
    for (const tasks of [asked, granted])
      tasks.set(nodeId, new Set([...(tasks.get(nodeId) ?? []), ...taskIds]));
    announce({ id, taskIds, options, closed: false });
    return true;
  }

  #close({ id, options, queue, asked }: Subscription): void {
    this.#subscriptions.delete(id);
    queue.end();
    for (const nodeId of asked.keys()) this.#nodes.get(nodeId)?.({ id, taskIds: [], options, closed: true });
  }
}

/** Lines that were asked for can come no more. Who follows waits for other tasks as well; anyone else is told. */
function failUnfinished({ asked, options, queue }: Subscription, nodeId: string): void {
  const missing = asked.get(nodeId)?.size ?? 0;
  if (missing === 0 || options.follow) return;
  queue.end(
    new SwarmError(
      'unavailable',
      `node ${nodeId} has disconnected: the lines of ${missing} tasks are incomplete`,
    ),
  );
}
