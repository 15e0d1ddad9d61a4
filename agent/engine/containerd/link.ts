// Keeps the engine in touch with containerd: one loop that has containerd running, follows its events and starts over
// when either fails. There is no history of events, so every new subscription is followed by a full look.

import { setTimeout as delay } from 'node:timers/promises';
import { messageOf } from '../../../core/errors.ts';
import {
  type TaskExitEvent,
  TaskExitEventCodec,
  TaskOomEventCodec,
} from '../../../proto/generated/containerd-events.ts';
import { decode } from '../../../proto/wire.ts';
import type { Logger } from '../../../rpc/logger.ts';
import type { Containerd } from './connection.ts';
import type { ContainerdSupervisor } from './supervisor.ts';

interface LinkHandlers {
  onExit(event: TaskExitEvent): void;
  onOutOfMemory(containerId: string): void;
  /** Called when events flow (again). What happened before must be looked up now; what happens later is an event. */
  onConnected(version: string): Promise<void>;
}

export interface LinkOptions extends LinkHandlers {
  readonly containerd: Containerd;
  readonly supervisor: ContainerdSupervisor;
  readonly log: Logger;
}

const MARK_TOPIC = '/tsswarm/mark';
const MARK_RETRY_MS = 50;
const RETRY_MS = 50;

/** Runs until aborted. Rejects only when containerd cannot be started at all. */
export async function followContainerd(options: LinkOptions, signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    const version = await options.supervisor.ensure(signal);
    try {
      await followOnce(options, version, signal);
    } catch (error) {
      if (signal.aborted) return;
      options.log.warn({ reason: messageOf(error) }, 'connection to containerd lost');
      await delay(RETRY_MS);
    }
  }
}

async function followOnce(options: LinkOptions, version: string, signal: AbortSignal): Promise<void> {
  const { containerd } = options;
  const stop = new AbortController();
  const either = AbortSignal.any([signal, stop.signal]);
  const filters = ['/tasks/exit', '/tasks/oom', MARK_TOPIC].map(
    (topic) => `namespace==${containerd.namespace},topic==${JSON.stringify(topic)}`,
  );
  const marked = Promise.withResolvers<void>();
  const reading = (async () => {
    for await (const { topic, event } of containerd.events.subscribe({ filters }, { signal: either })) {
      if (topic === MARK_TOPIC) marked.resolve();
      else if (event !== undefined) dispatch(options, topic, event.value);
    }
  })();
  try {
    await Promise.race([reading, untilMarked(containerd, marked.promise, either)]);
    await Promise.race([reading, options.onConnected(version)]);
    await reading;
  } finally {
    stop.abort();
    await reading.catch(() => {});
  }
}

function dispatch(handlers: LinkHandlers, topic: string, value: Uint8Array): void {
  if (topic === '/tasks/oom') {
    handlers.onOutOfMemory(decode(TaskOomEventCodec, value).containerId);
    return;
  }
  const exit = decode(TaskExitEventCodec, value);
  // An exec's exit carries its own id.
  if (exit.id === exit.containerId) handlers.onExit(exit);
}

/** containerd does not say when a subscription has taken effect; an event of our own that comes back does. */
async function untilMarked(
  containerd: Containerd,
  marked: Promise<void>,
  signal: AbortSignal,
): Promise<void> {
  for (let isMarked = false; !isMarked && !signal.aborted; ) {
    const event = { typeUrl: 'containerd.events.TaskOOM', value: new Uint8Array(0) };
    await containerd.events.publish({ topic: MARK_TOPIC, event }, { signal });
    isMarked = await Promise.race([marked.then(() => true), delay(MARK_RETRY_MS, false)]);
  }
}
