// The leader's end of a trunk: calls that a follower passes on, many on one stream. Each is let in, runs and ends as it would
// on a stream of its own.

import { SwarmError } from '../core/errors.ts';
import type { TrunkFrame, TrunkFrames, TrunkOpen, TrunkService } from '../proto/generated/trunk.ts';
import type { Service } from '../proto/wire.ts';
import type { Caller, forwardedCaller } from './caller.ts';
import { readAll, toBytes } from './raw-messages.ts';
import type { AnyHandler, CallContext, CallObserver, Handlers } from './server.ts';
import { type FrameClock, OutgoingFrames } from './trunk-frames.ts';
import { TrunkLine } from './trunk-line.ts';
import { toTrunkEnd } from './trunk-status.ts';

export interface CarriedMethod {
  readonly method: Service[string];
  readonly handle: AnyHandler;
}

type Metadata = Parameters<typeof forwardedCaller>[0];

export interface TrunkServerOptions {
  /** What may be called, by path: methods that stream both ways. */
  readonly methods: ReadonlyMap<string, CarriedMethod>;
  /** Whom a call is made for, when the manager at the other end of the trunk makes it. Throws for who may not. */
  readonly admit: (
    method: Service[string],
    from: Caller,
    metadata: Metadata,
  ) => Pick<CallContext, 'caller' | 'isForwarded'>;
  readonly observe?: CallObserver;
  readonly clock: FrameClock;
}

/** What answers a follower's trunk. */
export function trunkHandlers(options: TrunkServerOptions): Handlers<typeof TrunkService> {
  return {
    carry: (frames, context) => new CarriedCalls(options, context.caller).answer(frames, context.signal),
  };
}

interface Call {
  readonly line: TrunkLine;
  /** When the caller goes away, or the trunk breaks. */
  readonly gone: AbortController;
}

class CarriedCalls {
  readonly #options: TrunkServerOptions;
  readonly #from: Caller;
  readonly #out: OutgoingFrames;
  readonly #calls = new Map<number, Call>();
  #hasAllCome = false;
  #isBroken = false;

  constructor(options: TrunkServerOptions, from: Caller) {
    this.#options = options;
    this.#from = from;
    this.#out = new OutgoingFrames(options.clock);
  }

  answer(incoming: AsyncIterable<TrunkFrames>, signal: AbortSignal): AsyncIterable<TrunkFrames> {
    const onAbort = () => this.#break(signal.reason);
    if (signal.aborted) onAbort();
    signal.addEventListener('abort', onAbort, { once: true });
    void this.#receiveAll(incoming);
    return this.#out;
  }

  async #receiveAll(incoming: AsyncIterable<TrunkFrames>): Promise<void> {
    try {
      for await (const { frames } of incoming) {
        // Nobody would end a call that began now.
        if (this.#isBroken) return;
        for (const frame of frames) this.#receive(frame);
      }
      this.#hasAllCome = true;
      this.#endWhenDone();
    } catch (error) {
      this.#break(error);
    }
  }

  #receive(frame: TrunkFrame): void {
    const { call: id, open, requestsEnded, cancelled } = frame;
    if (open !== undefined) this.#open(id, open);
    const call = this.#calls.get(id);
    // It has ended while this was on its way.
    if (call === undefined) return;
    try {
      if (call.line.receive(frame)) return;
    } catch (error) {
      this.#endCall(id, error);
      return;
    }
    if (requestsEnded) call.line.receiveEnd();
    else if (cancelled) {
      this.#calls.delete(id);
      abandon(call, new SwarmError('cancelled', 'the client went away'));
      this.#endWhenDone();
    }
  }

  #open(id: number, open: TrunkOpen): void {
    const entry = this.#options.methods.get(open.path);
    if (entry === undefined) {
      this.#out.push(id, {
        ended: toTrunkEnd(new SwarmError('unimplemented', `${open.path} is not for a trunk`)),
      });
      return;
    }
    const call = { line: new TrunkLine(id, this.#out), gone: new AbortController() };
    this.#calls.set(id, call);
    void this.#run(id, call, entry, copyOf(open.metadata));
  }

  async #run(id: number, call: Call, entry: CarriedMethod, metadata: TrunkOpen['metadata']): Promise<void> {
    const { observe = () => {} } = this.#options;
    const startedMs = performance.now();
    let failure: unknown;
    try {
      await this.#answerCall(call, entry, (key) => metadata[key] as Buffer | undefined);
    } catch (error) {
      if (!call.gone.signal.aborted) failure = error;
    }
    observe(entry.method.path, performance.now() - startedMs, failure);
    this.#endCall(id, failure);
  }

  /** Sends what the handler yields, at the speed of the reader. */
  async #answerCall(
    { line, gone: { signal } }: Call,
    { method, handle }: CarriedMethod,
    metadata: Metadata,
  ): Promise<void> {
    const context = { signal, ...this.#options.admit(method, this.#from, metadata) };
    const requests = handle.takesBytes ? line : readAll(method.request, line);
    for await (const message of handle(requests as never, context) as AsyncIterable<unknown>) {
      if (signal.aborted) return;
      const hasRoom = line.send(toBytes(method.response, message));
      if (hasRoom !== undefined) await hasRoom;
    }
  }

  /** The last word of a call, unless it has had one. */
  #endCall(id: number, failure: unknown): void {
    const call = this.#calls.get(id);
    if (call === undefined) return;
    this.#calls.delete(id);
    this.#out.push(id, { ended: toTrunkEnd(failure) });
    abandon(call, failure ?? new SwarmError('cancelled', 'the call has ended'));
    this.#endWhenDone();
  }

  /** A follower opens no more calls after its last word. */
  #endWhenDone(): void {
    if (this.#hasAllCome && this.#calls.size === 0) this.#out.end();
  }

  #break(reason: unknown): void {
    this.#isBroken = true;
    this.#out.end();
    const calls = [...this.#calls.values()];
    this.#calls.clear();
    for (const call of calls) abandon(call, reason);
  }
}

/** A call may last for months, and what has come on the wire lies in a buffer with much else. */
function copyOf(metadata: TrunkOpen['metadata']): TrunkOpen['metadata'] {
  const copies = Object.entries(metadata).map(([key, value]) => {
    const copy = Buffer.allocUnsafeSlow(value.length);
    copy.set(value);
    return [key, copy];
  });
  return Object.fromEntries(copies);
}

/** Nobody hears a call's answers any more. */
function abandon({ line, gone }: Call, reason: unknown): void {
  line.close();
  gone.abort(reason);
  line.receiveEnd(reason);
}
