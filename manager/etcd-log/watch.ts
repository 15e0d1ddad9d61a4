// One watch of etcd on a stream of its own: hands out whole revisions, in order, until the stream ends for any reason.

import type { IEvent, IWatchResponse } from 'etcd3';
import { messageOf } from '../../core/errors.ts';
import { logLog } from '../log.ts';
import type { EtcdClient } from './etcd-client.ts';
import { type KeyRange, revisionOf } from './keys.ts';

export interface WatchOptions {
  readonly range: Pick<KeyRange, 'key'> & Partial<KeyRange>;
  readonly fromRevision: number;
  /** All events of one revision. May throw: the watch ends with that. */
  readonly onRevision: (revision: number, events: readonly IEvent[]) => void;
}

export type WatchEnd = 'compacted' | 'broken';

/** Resolves when the stream has ended; rejects with what `onRevision` threw. The signal ends it as `broken`. */
export async function watch(
  client: EtcdClient,
  { range, fromRevision, onRevision }: WatchOptions,
  signal: AbortSignal,
): Promise<WatchEnd> {
  const { member } = client;
  const stream = await member.watchClient.watch().catch((error: unknown) => {
    logLog.debug({ error: messageOf(error) }, 'etcd cannot be watched at this member');
    client.avoid(member);
  });
  if (stream === undefined) return 'broken';
  const { promise: ended, resolve, reject } = Promise.withResolvers<WatchEnd>();
  // A stream that has ended may still report errors.
  stream.on('error', (error: unknown) => {
    if (!signal.aborted) logLog.debug({ error: messageOf(error) }, 'watch of etcd broke off');
    client.avoid(member);
    resolve('broken');
  });
  stream.on('end', () => resolve('broken'));
  const collector = new RevisionCollector(onRevision);
  stream.on('data', (response: IWatchResponse) => {
    if (signal.aborted) return;
    if (response.canceled) return resolve(revisionOf(response.compact_revision) > 0 ? 'compacted' : 'broken');
    try {
      collector.add(response);
    } catch (error) {
      reject(error);
    }
  });
  const onAbort = () => resolve('broken');
  signal.addEventListener('abort', onAbort, { once: true });
  if (signal.aborted) onAbort();
  stream.write({
    create_request: { ...range, start_revision: fromRevision, fragment: true },
  });
  try {
    return await ended;
  } finally {
    signal.removeEventListener('abort', onAbort);
    stream.end();
    stream.cancel();
  }
}

export function isDelete({ type }: IEvent): boolean {
  return String(type).toUpperCase() === 'DELETE';
}

/** A revision may be spread over the fragments of a response. */
class RevisionCollector {
  readonly #onRevision: WatchOptions['onRevision'];
  #revision = 0;
  #events: IEvent[] = [];

  constructor(onRevision: WatchOptions['onRevision']) {
    this.#onRevision = onRevision;
  }

  add({ events, fragment }: IWatchResponse): void {
    for (const event of events) {
      const revision = revisionOf(event.kv.mod_revision);
      if (revision !== this.#revision) this.#flush();
      this.#revision = revision;
      this.#events.push(event);
    }
    if (!fragment) this.#flush();
  }

  #flush(): void {
    const events = this.#events;
    this.#events = [];
    if (events.length > 0) this.#onRevision(this.#revision, events);
  }
}
