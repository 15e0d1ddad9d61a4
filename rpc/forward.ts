// Calls that only the leader can answer: whichever manager is asked passes them on. The caller's identity goes along, and
// nobody passes a call on twice. What goes both ways is passed on without being read: a manager has the sessions of a
// thousand agents.

import { type Clock, sleep } from '../core/clock.ts';
import { hasCode, SwarmError } from '../core/errors.ts';
import type { Method, Service } from '../proto/wire.ts';
import { auditedMetadata, forwardingMetadata } from './caller.ts';
import {
  type CallMetadata,
  type Channel,
  type ClientStreamCall,
  createClient,
  createRelay,
  type Outgoing,
} from './client.ts';
import { readAll } from './raw-messages.ts';
import type { CallContext, Handlers } from './server.ts';
import { Trunks } from './trunk-client.ts';

/** Where the leader is. */
export interface LeaderLink {
  readonly clock: Clock;
  /** Undefined when it is this manager. Waits for an election; throws `unavailable` when there is no leader in time. */
  find(signal: AbortSignal): Promise<Channel | undefined>;
}

// A call that meets a change of leaders is asked again where the new one is, this often and this long at most. It takes a
// manager a moment to hear who leads now.
const AGAIN_MS = 25;
const AGAIN_LIMIT_MS = 5_000;

// Methods whose callers are written down.
const AUDITED: readonly string[] = ['reach', 'createService', 'updateService'];

// Methods with many calls of few small messages: to the leader they share one stream. Bulk data has streams of its own.
const CARRIED: readonly string[] = ['session'];

type AnyCall = (request: unknown, context: unknown) => unknown;

/** The handlers, for a manager that may not be the leader. */
export function onLeader<S extends Service>(
  service: S,
  handlers: Handlers<S>,
  leader: LeaderLink,
): Handlers<S> {
  const trunks = new Trunks(leader.clock);
  const wrapped = Object.entries(service).map(([name, method]) => [
    name,
    forwarder(
      { service, name, method, leader, trunks },
      (handlers as Record<string, AnyCall>)[name] as AnyCall,
    ),
  ]);
  return Object.fromEntries(wrapped) as Handlers<S>;
}

interface Forwarded {
  readonly service: Service;
  readonly name: string;
  readonly method: Method<unknown, unknown>;
  readonly leader: LeaderLink;
  readonly trunks: Trunks;
}

function forwarder({ service, name, method, leader, trunks }: Forwarded, handle: AnyCall): AnyCall {
  const { shape, isReadOnly } = method;
  /** Where the leader is and what it has to know of the caller, or undefined when this manager leads. */
  const way = async ({ signal, caller, isForwarded }: CallContext) => {
    const channel = await leader.find(signal);
    if (channel === undefined) return undefined;
    if (isForwarded)
      throw new SwarmError('unavailable', 'the manager that was asked does not lead any more', {
        isUndone: true,
      });
    return {
      channel,
      metadata: AUDITED.includes(name) ? auditedMetadata(caller) : forwardingMetadata(caller),
    };
  };
  /** The leader's method. */
  const find = async (context: CallContext) => {
    const to = await way(context);
    if (to === undefined) return undefined;
    const client = createClient(service, to.channel, to.metadata);
    return (client as Record<string, AnyCall>)[name] as AnyCall;
  };
  switch (shape) {
    case 'unary':
      return (async (request: unknown, context: CallContext) => {
        const startedMs = leader.clock.nowMs();
        for (;;) {
          try {
            const remote = await find(context);
            return await (remote ?? handle)(
              request,
              remote === undefined ? context : { signal: context.signal },
            );
          } catch (error) {
            const isUndone = error instanceof SwarmError && error.isUndone;
            const mayRepeat = isUndone || (isReadOnly && hasCode(error, 'unavailable'));
            // Whoever passed the call on asks again; it may know more by now.
            if (!mayRepeat || context.isForwarded || leader.clock.nowMs() - startedMs > AGAIN_LIMIT_MS)
              throw error;
            await sleep(leader.clock, AGAIN_MS, context.signal);
          }
        }
      }) as AnyCall;
    case 'server-stream':
      return async function* (request: unknown, context: CallContext) {
        const remote = await find(context);
        yield* (remote ?? handle)(
          request,
          remote === undefined ? context : { signal: context.signal },
        ) as AsyncIterable<unknown>;
      } as AnyCall;
    case 'client-stream':
      return (async (requests: AsyncIterable<unknown>, context: CallContext) => {
        const remote = await find(context);
        if (remote === undefined) return handle(requests, context);
        const call = remote({ signal: context.signal }, undefined) as ClientStreamCall<unknown, unknown>;
        await sendAll(requests, call);
        return call.response;
      }) as AnyCall;
    case 'bidi':
      return relay(method, handle, { way, ...(CARRIED.includes(name) && { trunks }) });
  }
}

interface Way {
  readonly channel: Channel;
  readonly metadata: CallMetadata;
}

interface RelayOptions {
  readonly way: (context: CallContext) => Promise<Way | undefined>;
  /** Undefined: each call has a stream of its own. */
  readonly trunks?: Trunks;
}

function relay(method: Method<unknown, unknown>, handle: AnyCall, { way, trunks }: RelayOptions): AnyCall {
  const answers = async (requests: AsyncIterable<unknown>, context: CallContext) => {
    const to = await way(context);
    if (to === undefined) return handle(readAll(method.request, requests), context) as AsyncIterable<unknown>;
    const { channel, metadata } = to;
    const { signal } = context;
    const call =
      trunks?.call(channel, method, { metadata, signal }) ??
      createRelay(method, channel, metadata)({ signal });
    // A failure shows on the answers as well, which are what ends this call.
    sendAll(requests, call).catch(() => call.end());
    return call;
  };
  const passOn = (requests: AsyncIterable<unknown>, context: CallContext) =>
    onceFound(() => answers(requests, context));
  return Object.assign(passOn as AnyCall, { takesBytes: true });
}

/** What has to be asked for first. There is no loop of our own about it: each message would wait for three promises more. */
function onceFound(find: () => Promise<AsyncIterable<unknown>>): AsyncIterable<unknown> {
  return {
    [Symbol.asyncIterator]() {
      let found: AsyncIterator<unknown> | undefined;
      const first = async () => {
        found = (await find())[Symbol.asyncIterator]();
        return found.next();
      };
      return {
        next: () => found?.next() ?? first(),
        return: async () => (await found?.return?.()) ?? { done: true, value: undefined },
      };
    },
  };
}

async function sendAll(requests: AsyncIterable<unknown>, call: Outgoing<unknown>): Promise<void> {
  for await (const request of requests) await call.send(request);
  call.end();
}
