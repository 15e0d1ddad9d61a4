// What leaves one end of a trunk: frames of many calls, those of a moment together in one message. What a gRPC message costs
// is that somebody is woken by it: a frame that travels with others costs a small part of that.

import type { Clock } from '../core/clock.ts';
import { emptyTrunkFrame, type TrunkFrame, type TrunkFrames } from '../proto/generated/trunk.ts';

/** When it is. */
export type FrameClock = Pick<Clock, 'elapsedMs' | 'after'>;

/** What a frame counts beside its payload. */
export const FRAME_BYTES = 64;

// Between two messages. What comes after a silence goes at once; of what comes thick and fast, each frame waits for half of it on
// average. Without a pause there were one or two frames in a message until both ends were out of breath.
const PAUSE_MS = 4;
// Of one message; a larger frame goes alone.
const MESSAGE_BYTES = 1024 * 1024;
// Beyond it the connection is slow, and all calls wait for it.
const WAITING_BYTES_MAX = 4 * 1024 * 1024;

export class OutgoingFrames implements AsyncIterable<TrunkFrames> {
  readonly #clock: FrameClock;
  #pauseEndMs = 0;
  #frames: TrunkFrame[] = [];
  #bytes = 0;
  #isEnded = false;
  #wake: (() => void) | undefined;
  #waiting: (() => void)[] = [];

  constructor(clock: FrameClock) {
    this.#clock = clock;
  }

  get isFull(): boolean {
    return this.#bytes >= WAITING_BYTES_MAX && !this.#isEnded;
  }

  /** Never waits: who sends payloads looks at `isFull` before the next one. */
  push(call: number, content: Partial<TrunkFrame>): void {
    if (this.#isEnded) return;
    const frame = { ...emptyTrunkFrame, ...content, call };
    this.#frames.push(frame);
    this.#bytes += bytesOf(frame);
    this.#wake?.();
  }

  /** Calls back once, when something has gone out. */
  onRoom(callback: () => void): void {
    this.#waiting.push(callback);
  }

  /** What was pushed before still goes out. */
  end(): void {
    this.#isEnded = true;
    this.#wake?.();
    this.#release();
  }

  /** For one reader: the connection, at its speed. */
  async *[Symbol.asyncIterator](): AsyncGenerator<TrunkFrames, void, undefined> {
    for (;;) {
      if (this.#frames.length === 0) {
        if (this.#isEnded) return;
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
        this.#wake = undefined;
        continue;
      }
      const pauseMs = this.#pauseEndMs - this.#clock.elapsedMs();
      if (pauseMs > 0 && this.#bytes < MESSAGE_BYTES)
        await new Promise<void>((resolve) => this.#clock.after(pauseMs, resolve));
      this.#pauseEndMs = this.#clock.elapsedMs() + PAUSE_MS;
      yield { frames: this.#take() };
    }
  }

  #take(): TrunkFrame[] {
    let count = 0;
    let bytes = 0;
    for (const frame of this.#frames) {
      const size = bytesOf(frame);
      if (count > 0 && bytes + size > MESSAGE_BYTES) break;
      bytes += size;
      count++;
    }
    const taken = this.#frames;
    this.#frames = taken.splice(count);
    this.#bytes -= bytes;
    this.#release();
    return taken;
  }

  #release(): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const callback of waiting) callback();
  }
}

function bytesOf({ payload }: TrunkFrame): number {
  return FRAME_BYTES + (payload?.length ?? 0);
}
