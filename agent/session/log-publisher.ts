// Answers log subscriptions: reads the tasks' logs, puts their lines in the order of their times, and sends them in batches, one
// after the other, as fast as the manager takes them. A batch and one read of each log is all that is held.

import type { Clock } from '../../core/clock.ts';
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
import { TimeMerge } from '../../rpc/time-merge.ts';
import type { LogRecord } from '../engine/engine.ts';
import { sessionLog } from '../log.ts';

/** Where lines come from: the worker. With `after`, those behind the one of that time. */
export type LogSource = (
  taskId: string,
  options: LogOptions & { readonly after?: string | undefined },
  signal: AbortSignal,
) => AsyncIterable<readonly LogRecord[]>;

const LINES_PER_BATCH_MAX = 500;
const BYTES_PER_BATCH_MAX = 32 * 1024;
// Lines that are written at the same moment come in order; a silent task holds up the others no longer.
const PATIENCE_MS = 20;

interface Publication {
  readonly id: string;
  readonly call: ClientStreamCall<LogBatch, PublishLogsResponse>;
  readonly closed: AbortController;
  readonly merge: TimeMerge<LogLine>;
  /** To be told with the next batch. */
  finished: string[];
  warnings: string[];
  passed: Record<string, string>;
}

export class LogPublisher {
  readonly #client: Client<typeof DispatcherService>;
  readonly #source: LogSource;
  readonly #clock: Clock;
  readonly #publications = new Map<string, Publication>();

  constructor(client: Client<typeof DispatcherService>, source: LogSource, clock: Clock) {
    this.#client = client;
    this.#source = source;
    this.#clock = clock;
  }

  handle({ id, taskIds, options, after, closed }: LogSubscription): void {
    if (closed) {
      this.#end(id);
      return;
    }
    const publication = this.#publications.get(id) ?? this.#open(id, options);
    for (const taskId of taskIds)
      publication.merge.add(this.#lines(taskId, { ...options, after: after[taskId] }, publication));
    // Those who do not follow have named all tasks by now.
    if (!options.follow) publication.merge.complete();
  }

  /** The session has ended: nobody listens any more. */
  close(): void {
    for (const id of [...this.#publications.keys()]) this.#end(id);
  }

  #open(id: string, { follow }: LogOptions): Publication {
    const closed = new AbortController();
    const merge = new TimeMerge<LogLine>({
      clock: this.#clock,
      timeOf: ({ time }) => time,
      bytesOf: ({ data }) => data.length,
      itemsMax: LINES_PER_BATCH_MAX,
      bytesMax: BYTES_PER_BATCH_MAX,
      patienceMs: follow ? PATIENCE_MS : undefined,
    });
    const call = this.#client.publishLogs({ signal: closed.signal });
    const publication = { id, call, closed, merge, finished: [], warnings: [], passed: {} };
    this.#publications.set(id, publication);
    this.#publish(publication).catch((error) =>
      sessionLog.debug({ error: messageOf(error) }, 'log subscription has ended'),
    );
    return publication;
  }

  #end(id: string): void {
    const publication = this.#publications.get(id);
    publication?.closed.abort();
    publication?.merge.complete();
    this.#publications.delete(id);
  }

  async #publish(publication: Publication): Promise<void> {
    const { id, call, merge, closed } = publication;
    try {
      for await (const lines of merge) {
        closed.signal.throwIfAborted();
        await this.#send(publication, lines);
      }
      await this.#send(publication, []);
      call.end();
    } catch (error) {
      closed.abort();
      throw error;
    } finally {
      this.#publications.delete(id);
    }
  }

  #send(publication: Publication, lines: readonly LogLine[]): Promise<void> {
    const { id, finished, warnings, passed, call } = publication;
    publication.finished = [];
    publication.warnings = [];
    publication.passed = {};
    return call.send({ subscriptionId: id, lines, finishedTaskIds: finished, warnings, passed });
  }

  /** A log that cannot be read ends its task, and nothing else. */
  async *#lines(
    taskId: string,
    options: LogOptions & { readonly after: string | undefined },
    publication: Publication,
  ): AsyncIterable<readonly LogLine[]> {
    const { signal } = publication.closed;
    try {
      const after = options.after ?? (await this.#passedBy(taskId, options, signal));
      if (after !== undefined) {
        publication.passed[taskId] = after;
        // Should the session end before there is a line, this is where the next one begins.
        await this.#send(publication, []);
      }
      for await (const records of this.#source(taskId, { ...options, after }, signal)) {
        if (signal.aborted) return;
        yield records.map((record) => toLine(taskId, record));
      }
    } catch (error) {
      if (signal.aborted) return;
      sessionLog.warn({ 'task.id': taskId, error: messageOf(error) }, 'log cannot be read');
      publication.warnings.push(`the log of task ${taskId} cannot be read: ${messageOf(error)}`);
    } finally {
      publication.finished.push(taskId);
    }
  }

  /** The time of the line before those at the end that are to be followed; empty: all are. */
  async #passedBy(
    taskId: string,
    { follow, tail }: LogOptions,
    signal: AbortSignal,
  ): Promise<string | undefined> {
    if (!follow || tail < 0) return undefined;
    const query = { follow: false, tail: tail + 1, sinceMs: 0, untilMs: 0 };
    let first = '';
    let lines = 0;
    for await (const records of this.#source(taskId, query, signal)) {
      if (lines === 0) first = records[0]?.time ?? '';
      lines += records.length;
    }
    return lines > tail ? first : '';
  }
}

function toLine(taskId: string, { stream, time, line, details = {} }: LogRecord): LogLine {
  return { taskId, stream, time, data: Buffer.from(line), details };
}
