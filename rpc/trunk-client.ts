// The follower's end of a trunk: calls that are passed on to the leader share one stream. It is opened by the first of
// them and ends with the last, so that a connection which nobody uses any more can be closed.

import { hasCode, messageOf, SwarmError, toSwarmError } from '../core/errors.ts';
import { type TrunkFrame, type TrunkFrames, TrunkService } from '../proto/generated/trunk.ts';
import type { Service } from '../proto/wire.ts';
import { type BidiCall, type CallMetadata, type Channel, createClient } from './client.ts';
import { toBytes } from './raw-messages.ts';
import { type FrameClock, OutgoingFrames } from './trunk-frames.ts';
import { TrunkLine } from './trunk-line.ts';
import { fromTrunkEnd } from './trunk-status.ts';

interface OpenOptions {
  /** Who asks (caller.ts). */
  readonly metadata: CallMetadata;
  readonly signal: AbortSignal;
}

/** One trunk for each connection that calls are passed on over. */
export class Trunks {
  readonly #clock: FrameClock;
  readonly #open = new WeakMap<Channel, Trunk>();

  constructor(clock: FrameClock) {
    this.#clock = clock;
  }

  /** Calls a method at the other end of the channel. Requests are sent as the bytes that they may be; answers are bytes. */
  call(channel: Channel, method: Service[string], options: OpenOptions): BidiCall<unknown, unknown> {
    let trunk = this.#open.get(channel);
    if (trunk === undefined || trunk.isOver) {
      trunk = new Trunk(createClient(TrunkService, channel).carry(), this.#clock);
      this.#open.set(channel, trunk);
    }
    return trunk.open(method, options);
  }
}

interface Call {
  readonly line: TrunkLine;
  /** Ends the call for who has made it: its answers end, or throw `failure`. */
  readonly end: (failure?: SwarmError) => void;
}

class Trunk {
  readonly #stream: BidiCall<TrunkFrames, TrunkFrames>;
  readonly #out: OutgoingFrames;
  readonly #calls = new Map<number, Call>();
  #count = 0;
  isOver = false;

  constructor(stream: BidiCall<TrunkFrames, TrunkFrames>, clock: FrameClock) {
    this.#stream = stream;
    this.#out = new OutgoingFrames(clock);
    void this.#sendAll();
    void this.#receiveAll();
  }

  open(method: Service[string], { metadata, signal }: OpenOptions): BidiCall<unknown, unknown> {
    const id = ++this.#count;
    const line = new TrunkLine(id, this.#out);
    let over: SwarmError | undefined;
    const end = (failure?: SwarmError) => {
      if (over !== undefined) return;
      over = failure ?? new SwarmError('cancelled', 'the other side has ended the call');
      signal.removeEventListener('abort', cancel);
      line.close();
      line.receiveEnd(failure);
      this.#calls.delete(id);
      if (this.#calls.size === 0) this.#end();
    };
    const cancel = () => this.#cancel(id, new SwarmError('cancelled', 'the caller has left'));
    this.#calls.set(id, { line, end });
    this.#out.push(id, { open: { path: method.path, metadata: bytesOf(metadata) } });
    if (signal.aborted) cancel();
    else signal.addEventListener('abort', cancel, { once: true });
    return {
      send: async (message) => {
        try {
          if (over === undefined) await line.send(toBytes(method.request, message));
        } catch (error) {
          this.#cancel(id, toSwarmError(error));
        }
        if (over !== undefined) throw over;
      },
      end: () => {
        if (over === undefined) this.#out.push(id, { requestsEnded: true });
      },
      [Symbol.asyncIterator]: () => ({
        next: () => line.next(),
        return: async () => {
          cancel();
          return { done: true, value: undefined };
        },
      }),
    };
  }

  #cancel(id: number, failure: SwarmError): void {
    const call = this.#calls.get(id);
    if (call === undefined) return;
    this.#out.push(id, { cancelled: true });
    call.end(failure);
  }

  async #sendAll(): Promise<void> {
    try {
      for await (const frames of this.#out) await this.#stream.send(frames);
      this.#stream.end();
    } catch {
      // The answers end with the reason.
    }
  }

  async #receiveAll(): Promise<void> {
    try {
      for await (const { frames } of this.#stream) for (const frame of frames) this.#receive(frame);
      this.#break(new SwarmError('unavailable', 'the leader has ended the connection'));
    } catch (error) {
      // Whatever was wrong with the trunk, it was not what its callers have asked for.
      this.#break(
        hasCode(error, 'unavailable')
          ? error
          : new SwarmError('unavailable', `the way to the leader is lost: ${messageOf(error)}`, {
              cause: error,
            }),
      );
    }
  }

  #receive(frame: TrunkFrame): void {
    const { call: id, ended } = frame;
    const call = this.#calls.get(id);
    // It was cancelled while this was on its way.
    if (call === undefined) return;
    try {
      if (call.line.receive(frame)) return;
    } catch (error) {
      this.#cancel(id, toSwarmError(error));
      return;
    }
    if (ended !== undefined) call.end(fromTrunkEnd(ended));
  }

  /** What was pushed before still goes out, and the leader ends the stream when it has answered that. */
  #end(): void {
    this.isOver = true;
    this.#out.end();
  }

  #break(failure: SwarmError): void {
    this.#end();
    for (const { end } of [...this.#calls.values()]) end(failure);
  }
}

function bytesOf(metadata: CallMetadata): Record<string, Uint8Array> {
  return Object.fromEntries(
    Object.entries(metadata).map(([key, value]) => [
      key,
      typeof value === 'string' ? Buffer.from(value) : value,
    ]),
  );
}
