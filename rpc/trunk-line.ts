// One call of a trunk, at either of its ends: what has come and is not read yet, and how much more may go out. Each way has a
// window, like a stream of HTTP/2: who does not read holds up who talks to it, nobody else, and no end keeps more than a window
// for it.

import { SwarmError } from '../core/errors.ts';
import type { TrunkFrame } from '../proto/generated/trunk.ts';
import { FRAME_BYTES, type OutgoingFrames } from './trunk-frames.ts';

/** What may be on its way to a reader; one message more when it begins below that. */
export const WINDOW_BYTES = 256 * 1024;

// What gRPC takes in one message, less what stands around the payload.
const PAYLOAD_BYTES_MAX = 64 * 2 ** 20 - 1024;

export class TrunkLine implements AsyncIterableIterator<Uint8Array> {
  readonly #call: number;
  readonly #out: OutgoingFrames;
  /** What is being read, from `#at` on, and what has come since. */
  #reading: Uint8Array[] = [];
  #at = 0;
  #arrived: Uint8Array[] = [];
  /** Of the other end's window. */
  #usedBytes = 0;
  #takenBytes = 0;
  #hasAllCome = false;
  #failure: unknown;
  #wakeReader: (() => void) | undefined;
  /** Of our window, by what has gone out. */
  #unreadBytes = 0;
  #isClosed = false;
  #wakeSender: (() => void) | undefined;

  constructor(call: number, out: OutgoingFrames) {
    this.#call = call;
    this.#out = out;
  }

  /**
   * What a frame has of the call's messages, or says of those that went out; false: it says something else. Throws
   * `resource-exhausted` when the other end does not keep to the window.
   */
  receive({ payload, takenBytes }: Pick<TrunkFrame, 'payload' | 'takenBytes'>): boolean {
    if (payload !== undefined) this.#receivePayload(payload);
    else if (takenBytes > 0) this.#noteRead(takenBytes);
    else return false;
    return true;
  }

  #receivePayload(payload: Uint8Array): void {
    if (this.#hasAllCome) return;
    if (this.#usedBytes >= WINDOW_BYTES)
      throw new SwarmError('resource-exhausted', `more than ${WINDOW_BYTES} bytes wait for their reader`);
    this.#usedBytes += FRAME_BYTES + payload.length;
    this.#arrived.push(payload);
    this.#wakeReader?.();
  }

  /** The reader gets what has come before, then the end (or `failure` thrown). */
  receiveEnd(failure?: unknown): void {
    if (this.#hasAllCome) return;
    this.#hasAllCome = true;
    this.#failure = failure;
    this.#wakeReader?.();
  }

  async next(): Promise<IteratorResult<Uint8Array, undefined>> {
    for (;;) {
      if (this.#at === this.#reading.length) {
        this.#reading = this.#arrived;
        this.#arrived = [];
        this.#at = 0;
      }
      const value = this.#reading[this.#at];
      if (value !== undefined) {
        this.#at++;
        this.#noteTaken(FRAME_BYTES + value.length);
        return { done: false, value };
      }
      if (this.#hasAllCome) {
        const failure = this.#failure;
        this.#failure = undefined;
        if (failure !== undefined) throw failure;
        return { done: true, value: undefined };
      }
      await new Promise<void>((resolve) => {
        this.#wakeReader = resolve;
      });
      this.#wakeReader = undefined;
    }
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  /** Sends a message of the call. A promise: the next one has to wait for it. */
  send(payload: Uint8Array): Promise<void> | undefined {
    if (this.#isClosed) return undefined;
    if (payload.length > PAYLOAD_BYTES_MAX)
      throw new SwarmError('resource-exhausted', `a message of ${payload.length} bytes is too large`);
    this.#unreadBytes += FRAME_BYTES + payload.length;
    this.#out.push(this.#call, { payload });
    return this.#hasRoom ? undefined : this.#awaitRoom();
  }

  /** The other end has read this much of what was sent. */
  #noteRead(bytes: number): void {
    this.#unreadBytes -= bytes;
    if (this.#hasRoom) this.#wakeSender?.();
  }

  /** Nothing goes out any more, and nobody waits for room. */
  close(): void {
    this.#isClosed = true;
    this.#wakeSender?.();
  }

  get #hasRoom(): boolean {
    return this.#isClosed || (this.#unreadBytes < WINDOW_BYTES && !this.#out.isFull);
  }

  async #awaitRoom(): Promise<void> {
    while (!this.#hasRoom)
      await new Promise<void>((resolve) => {
        this.#wakeSender = resolve;
        if (this.#out.isFull) this.#out.onRoom(resolve);
      });
    this.#wakeSender = undefined;
  }

  /** Half a window at a time: a word for each message would cost as much as the message. */
  #noteTaken(bytes: number): void {
    this.#takenBytes += bytes;
    if (this.#takenBytes < WINDOW_BYTES / 2 || this.#isClosed) return;
    this.#usedBytes -= this.#takenBytes;
    this.#out.push(this.#call, { takenBytes: this.#takenBytes });
    this.#takenBytes = 0;
  }
}
