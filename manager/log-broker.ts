// Brings log lines from agents to whoever asked for them, in the order of their times. A subscription is announced to the nodes
// that run its tasks; they publish on streams of their own, at the speed of the reader. A node that is followed and begins
// another session is told how far it was heard.

import type { Clock } from '../core/clock.ts';
import { SwarmError } from '../core/errors.ts';
import { newId, type RandomBytes } from '../core/ids.ts';
import type { LogBatch, LogLine, LogOptions, LogSubscription } from '../proto/generated/dispatcher.ts';
import { AsyncQueue } from '../rpc/queue.ts';
import { TimeMerge } from '../rpc/time-merge.ts';

type Announce = (subscription: LogSubscription) => void;

interface Subscription {
  readonly options: LogOptions;
  readonly resumed: ReadonlyMap<string, string> | undefined;
  readonly merge: TimeMerge<LogLine>;
  readonly warnings: string[];
  readonly feeds: Map<string, Feed>;
}

/** What one node sends to a subscription. */
interface Feed {
  readonly subscription: Subscription;
  readonly nodeId: string;
  /** Another one for each session: what an old stream still holds is not taken, since it is asked for again. */
  id: string;
  /** The session that was asked; undefined while there is none. */
  session: Announce | undefined;
  /** What the node has sent and nobody has read. */
  readonly queue: AsyncQueue<LogBatch>;
  /** Tasks asked for and not finished. */
  readonly asked: Set<string>;
  /** All that were ever asked for: of no others will lines be taken. */
  readonly granted: Set<string>;
  /** The time of the last line that was taken, by task. */
  readonly after: Map<string, string>;
}

/** What a reader holds. */
export interface LogReader extends AsyncIterable<readonly LogLine[]> {
  /** Asks a node for more tasks' lines; false when the node has no session. Who follows gets them when it has one.
   *  Of tasks that are new since the subscription began, all lines are wanted. */
  add(nodeId: string, taskIds: readonly string[], options?: { readonly isNew: boolean }): boolean;
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
  readonly #subscriptions = new Set<Subscription>();
  /** By the id that the node was told. */
  readonly #feeds = new Map<string, Feed>();

  constructor(clock: Clock, randomBytes: RandomBytes) {
    this.#clock = clock;
    this.#randomBytes = randomBytes;
  }

  /** A node's session begins; the returned function ends it. */
  addNode(nodeId: string, announce: Announce): () => void {
    this.#nodes.set(nodeId, announce);
    for (const { feeds, options } of this.#subscriptions) {
      const feed = feeds.get(nodeId);
      if (feed !== undefined && options.follow) this.#resume(feed, announce);
    }
    return () => {
      if (this.#nodes.get(nodeId) === announce) this.#nodes.delete(nodeId);
      for (const { feeds } of this.#subscriptions) {
        const feed = feeds.get(nodeId);
        if (feed?.session === announce) this.#interrupt(feed);
      }
    };
  }

  /** With `resumed`, by task the time of the last line that is known: of tasks not in it all lines are wanted. */
  subscribe(options: LogOptions, resumed?: ReadonlyMap<string, string>): LogReader {
    const subscription: Subscription = {
      options,
      resumed,
      merge: new TimeMerge({
        clock: this.#clock,
        timeOf: ({ time }) => time,
        bytesOf: ({ data }) => data.length,
        itemsMax: LINES_MAX,
        bytesMax: BYTES_MAX,
        patienceMs: options.follow ? PATIENCE_MS : undefined,
      }),
      warnings: [],
      feeds: new Map(),
    };
    this.#subscriptions.add(subscription);
    return {
      add: (nodeId, taskIds, { isNew = false } = { isNew: false }) =>
        this.#ask(subscription, nodeId, taskIds, isNew),
      complete: () => subscription.merge.complete(),
      takeWarnings: () => subscription.warnings.splice(0),
      close: () => this.#close(subscription),
      [Symbol.asyncIterator]: () => subscription.merge[Symbol.asyncIterator](),
    };
  }

  /** This manager does not lead any more: agents have no sessions here, so readers have to ask where they have. */
  interrupt(): void {
    const reason = new SwarmError('unavailable', 'the managers have changed their leader');
    for (const { merge } of this.#subscriptions) merge.fail(reason);
  }

  /**
   * Takes an agent's batches; returns when it has no more or nobody reads them any longer. Throws `permission-denied` for
   * lines that this node was not asked for.
   */
  async publish(nodeId: string, batches: AsyncIterable<LogBatch>): Promise<void> {
    for await (const batch of batches) {
      const feed = this.#feeds.get(batch.subscriptionId);
      if (feed === undefined) return;
      const foreign = batch.lines.find(({ taskId }) => !feed.granted.has(taskId));
      if (feed.nodeId !== nodeId || foreign !== undefined)
        throw new SwarmError(
          'permission-denied',
          `node ${nodeId} was not asked for ${foreign === undefined ? 'these lines' : `lines of task ${foreign.taskId}`}`,
        );
      for (const [taskId, time] of Object.entries(batch.passed))
        if (!feed.after.has(taskId)) feed.after.set(taskId, time);
      for (const { taskId, time } of batch.lines) feed.after.set(taskId, time);
      for (const id of batch.finishedTaskIds) feed.asked.delete(id);
      await feed.queue.offer(batch, BATCHES_MAX);
      if (feed.asked.size === 0 && !feed.subscription.options.follow) feed.queue.end();
    }
  }

  #ask(subscription: Subscription, nodeId: string, taskIds: readonly string[], isNew: boolean): boolean {
    const announce = this.#nodes.get(nodeId);
    if (announce === undefined && !subscription.options.follow) return false;
    const feed = subscription.feeds.get(nodeId) ?? this.#openFeed(subscription, nodeId);
    for (const id of taskIds) {
      feed.asked.add(id);
      feed.granted.add(id);
      const { resumed } = subscription;
      if (isNew || resumed !== undefined) feed.after.set(id, resumed?.get(id) ?? '');
    }
    feed.session = announce;
    announce?.(order(feed, taskIds));
    return announce !== undefined;
  }

  #openFeed(subscription: Subscription, nodeId: string): Feed {
    const feed: Feed = {
      subscription,
      nodeId,
      id: newId(this.#randomBytes),
      session: undefined,
      queue: new AsyncQueue(),
      asked: new Set(),
      granted: new Set(),
      after: new Map(),
    };
    this.#feeds.set(feed.id, feed);
    subscription.feeds.set(nodeId, feed);
    subscription.merge.add(linesOf(feed.queue, subscription));
    return feed;
  }

  /** The node has another session than the one that was asked. */
  #resume(feed: Feed, announce: Announce): void {
    this.#feeds.delete(feed.id);
    feed.id = newId(this.#randomBytes);
    this.#feeds.set(feed.id, feed);
    feed.session = announce;
    if (feed.asked.size > 0) announce(order(feed, [...feed.asked]));
  }

  /** Lines that were asked for can come no more in this session. Who does not follow is told instead of waiting. */
  #interrupt(feed: Feed): void {
    const { subscription, nodeId, asked, queue } = feed;
    feed.session = undefined;
    if (asked.size === 0 || subscription.options.follow) return;
    queue.end(
      new SwarmError(
        'unavailable',
        `node ${nodeId} has disconnected: the lines of ${asked.size} tasks are incomplete`,
      ),
    );
  }

  #close(subscription: Subscription): void {
    const { options, merge, feeds } = subscription;
    this.#subscriptions.delete(subscription);
    for (const { id, nodeId, queue } of feeds.values()) {
      this.#feeds.delete(id);
      queue.end();
      this.#nodes.get(nodeId)?.({ id, taskIds: [], options, after: {}, closed: true });
    }
    merge.complete();
  }
}

/** Asks for lines of tasks, from where each was heard last. */
function order({ id, after, subscription }: Feed, taskIds: readonly string[]): LogSubscription {
  const known = taskIds.flatMap((taskId) => {
    const time = after.get(taskId);
    return time === undefined ? [] : [[taskId, time] as const];
  });
  return { id, taskIds, options: subscription.options, after: Object.fromEntries(known), closed: false };
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
