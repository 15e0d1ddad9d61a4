// Answers log subscriptions: reads the tasks' logs and sends their lines in batches, as fast as the manager takes them.

import { messageOf } from '../../core/errors.ts';
import type {
  DispatcherService,
  LogBatch,
  LogLine,
  LogOptions,
  LogSubscription,
  PublishLogsResponse,
} from '../../proto/generated/dispatcher.ts';
import type { Client, ClientStreamCall } from '../../rpc/client.ts';
import type { LogRecord } from '../engine/engine.ts';
import { sessionLog } from '../log.ts';

/** Where lines come from: the worker. */
export type LogSource = (
  taskId: string,
  options: LogOptions,
  signal: AbortSignal,
) => AsyncIterable<LogRecord>;

const LINES_PER_BATCH_MAX = 500;
const BYTES_PER_BATCH_MAX = 256 * 1024;

interface Publication {
  readonly call: ClientStreamCall<LogBatch, PublishLogsResponse>;
  readonly closed: AbortController;
  openTasks: number;
}

export class LogPublisher {
  readonly #client: Client<typeof DispatcherService>;
  readonly #source: LogSource;
  readonly #publications = new Map<string, Publication>();

  constructor(client: Client<typeof DispatcherService>, source: LogSource) {
    this.#client = client;
    this.#source = source;
  }

  handle(subscription: LogSubscription): void {
    const { id, taskIds, options, closed } = subscription;
    if (closed) {
      this.#end(id);
      return;
    }
    const publication = this.#open(id);
    publication.openTasks += taskIds.length;
    for (const taskId of taskIds) void this.#publish(id, taskId, options, publication);
  }

  /** The session has ended: nobody listens any more. */
  close(): void {
    for (const id of [...this.#publications.keys()]) this.#end(id);
  }

  #open(id: string): Publication {
    const known = this.#publications.get(id);
    if (known !== undefined) return known;
    const closed = new AbortController();
    const publication = { call: this.#client.publishLogs({ signal: closed.signal }), closed, openTasks: 0 };
    this.#publications.set(id, publication);
    return publication;
  }

  #end(id: string): void {
    this.#publications.get(id)?.closed.abort();
    this.#publications.delete(id);
  }

  async #publish(id: string, taskId: string, options: LogOptions, publication: Publication): Promise<void> {
    const { call, closed } = publication;
    try {
      const records = this.#source(taskId, options, closed.signal);
      for await (const lines of inBatches(taskId, records, closed.signal))
        await call.send({ subscriptionId: id, lines, finishedTaskIds: [] });
    } catch (error) {
      if (!closed.signal.aborted)
        sessionLog.warn({ 'task.id': taskId, error: messageOf(error) }, 'log cannot be read');
    }
    if (closed.signal.aborted) return;
    try {
      await call.send({ subscriptionId: id, lines: [], finishedTaskIds: [taskId] });
    } catch (error) {
      sessionLog.debug({ 'task.id': taskId, error: messageOf(error) }, 'log subscription has ended');
    }
    if (--publication.openTasks > 0 || options.follow) return;
    call.end();
    this.#publications.delete(id);
  }
}

/** Joins what is there at the moment; never waits for more. */
async function* inBatches(
  taskId: string,
  records: AsyncIterable<LogRecord>,
  signal: AbortSignal,
): AsyncIterable<LogLine[]> {
  const iterator = records[Symbol.asyncIterator]();
  const read = () => {
    const next = iterator.next();
    // It may fail while the batch before it is still being sent; whoever awaits it hears of that.
    next.catch(() => {});
    return next;
  };
  let next = read();
  try {
    while (!signal.aborted) {
      const first = await next;
      if (first.done) return;
      const batch = [toLine(taskId, first.value)];
      let bytes = first.value.line.length;
      next = read();
      while (batch.length < LINES_PER_BATCH_MAX && bytes < BYTES_PER_BATCH_MAX) {
        const more = await Promise.race([next, idle()]);
        if (more === undefined || more.done) break;
        batch.push(toLine(taskId, more.value));
        bytes += more.value.line.length;
        next = read();
      }
      yield batch;
    }
  } finally {
    // Not awaited: a log that is followed answers only when its next line comes.
    iterator.return?.()?.catch(() => {});
  }
}

function idle(): Promise<undefined> {
  return new Promise((resolve) => setImmediate(() => resolve(undefined)));
}

function toLine(taskId: string, { stream, time, line }: LogRecord): LogLine {
  return { taskId, stream, time, data: Buffer.from(line) };
}
