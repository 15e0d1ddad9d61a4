// Brings log lines from agents to whoever asked for them, in the order of their times. A subscription is announced to the nodes
// that run its tasks; they publish on streams of their own, at the speed of the reader.

import type { Clock } from '../core/clock.ts';
import { SwarmError } from '../core/errors.ts';
import { newId, type RandomBytes } from '../core/ids.ts';
import type { LogBatch, LogLine, LogOptions, LogSubscription } from '../proto/generated/dispatcher.ts';
import { AsyncQueue } from '../rpc/queue.ts';
import { TimeMerge } from '../rpc/time-merge.ts';

type Announce = (subscription: LogSubscription) => void;

interface Subscription {
  readonly id: string;
  readonly options: LogOptions;
  readonly merge: TimeMerge<LogLine>;
  /** What nodes have sent and nobody has read. */
  readonly queues: Map<string, AsyncQueue<LogBatch>>;
  readonly warnings: string[];
  /** Tasks asked for and not finished, by node. */
  readonly asked: Map<string, Set<string>>;
  /** All that were ever asked for, by node: of no others will lines be taken. */
  readonly granted: Map<string, Set<string>>;
}

/** What a reader holds. */
export interface LogReader extends AsyncIterable<readonly LogLine[]> {
  /** Asks a node for more tasks' lines; false when the node has no session. */
  add(nodeId: string, taskIds: readonly string[]): boolean;
  /** No more tasks will be asked for: the lines end with those that were. */
  complete(): void;
  /** What agents could not read, since this was last asked. */
  takeWarnings(): readonly string[];
  /** No more lines are wanted. */
  close(): void;
}

// Batches of a node that wait for a slow reader; then the node waits.
const BATCHES_MAX = 1;
// What is handed on at once.
const LINES_MAX = 500;
const BYTES_MAX = 64 * 1024;
// How long the lines of other nodes wait for those of one that is followed: longer than the way from it takes.
const PATIENCE_MS = 100;

export class LogBroker {
  readonly #clock: Clock;
  readonly #randomBytes: RandomBytes;
  readonly #nodes = new Map<string, Announce>();
  readonly #subscriptions = new Map<string, Subscription>();

  constructor(clock: Clock, randomBytes: RandomBytes) {
    this.#clock = clock;
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
      merge: new TimeMerge({
        clock: this.#clock,
        timeOf: ({ time }) => time,
        bytesOf: ({ data }) => data.length,
        itemsMax: LINES_MAX,
        bytesMax: BYTES_MAX,
        patienceMs: options.follow ? PATIENCE_MS : undefined,
      }),
      queues: new Map(),
      warnings: [],
      asked: new Map(),
      granted: new Map(),
    };
    this.#subscriptions.set(subscription.id, subscription);
    return {
      add: (nodeId, taskIds) => this.#announce(subscription, nodeId, taskIds),
      complete: () => subscription.merge.complete(),
      takeWarnings: () => subscription.warnings.splice(0),
      close: () => this.#close(subscription),
      [Symbol.asyncIterator]: () => subscription.merge[Symbol.asyncIterator](),
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
      const queue = subscription.queues.get(nodeId);
      await queue?.offer(batch, BATCHES_MAX);
      const asked = subscription.asked.get(nodeId);
      for (const id of batch.finishedTaskIds) asked?.delete(id);
      if (asked?.size === 0 && !subscription.options.follow) queue?.end();
    }
  }

  #announce(subscription: Subscription, nodeId: string, taskIds: readonly string[]): boolean {
    const { id, options, asked, granted, queues, merge } = subscription;
    const announce = this.#nodes.get(nodeId);
    if (announce === undefined) return false;
    if (!queues.has(nodeId)) {
      const queue = new AsyncQueue<LogBatch>();
      queues.set(nodeId, queue);
      merge.add(linesOf(queue, subscription));
    }
    for (const tasks of [asked, granted])
      tasks.set(nodeId, new Set([...(tasks.get(nodeId) ?? []), ...taskIds]));
    announce({ id, taskIds, options, closed: false });
    return true;
  }

  #close({ id, options, queues, merge, asked }: Subscription): void {
    this.#subscriptions.delete(id);
    for (const queue of queues.values()) queue.end();
    merge.complete();
    for (const nodeId of asked.keys()) this.#nodes.get(nodeId)?.({ id, taskIds: [], options, closed: true });
  }
}

/** Lines that were asked for can come no more. Who follows waits for other tasks as well; anyone else is told. */
function failUnfinished({ asked, options, queues }: Subscription, nodeId: string): void {
  const missing = asked.get(nodeId)?.size ?? 0;
  if (missing === 0 || options.follow) return;
  queues
    .get(nodeId)
    ?.end(
      new SwarmError(
        'unavailable',
        `node ${nodeId} has disconnected: the lines of ${missing} tasks are incomplete`,
      ),
    );
}

async function* linesOf(
  queue: AsyncQueue<LogBatch>,
  { warnings }: Subscription,
): AsyncIterable<readonly LogLine[]> {
  for await (const batch of queue) {
    warnings.push(...batch.warnings);
    yield batch.lines;
  }
}
