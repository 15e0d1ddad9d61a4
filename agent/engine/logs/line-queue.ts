// Lines on their way to a log that others keep. Bounded: what does not fit while the other side is away is dropped and counted,
// and the container never waits.

import { setTimeout as delay } from 'node:timers/promises';

/** A way out of this machine's hands. */
export interface LineTransport {
  /** Resolves when the other side has taken it, as far as can be known. */
  send(message: Buffer): Promise<void>;
  close(): void;
}

const QUEUE_BYTES_MAX = 2 ** 20;
const RETRY_MIN_MS = 100;
const RETRY_MAX_MS = 5_000;
// A container that has ended leaves this long for what is still on its way.
const FINISH_LIMIT_MS = 2_000;

export class LineQueue {
  readonly #transport: LineTransport;
  #messages: Buffer[] = [];
  #bytes = 0;
  #dropped = 0;
  #running: Promise<void> | undefined;
  readonly #closed = new AbortController();

  constructor(transport: LineTransport) {
    this.#transport = transport;
  }

  offer(message: Buffer): void {
    if (this.#closed.signal.aborted || this.#bytes + message.length > QUEUE_BYTES_MAX) {
      this.#dropped += 1;
      return;
    }
    this.#messages.push(message);
    this.#bytes += message.length;
    this.#running ??= this.#run().finally(() => {
      this.#running = undefined;
    });
  }

  /** Lines that were dropped since this was last asked. */
  takeDropped(): number {
    const dropped = this.#dropped;
    this.#dropped = 0;
    return dropped;
  }

  /** No more lines come: what waits gets a moment to go out. */
  async finish(): Promise<void> {
    await Promise.race([this.#running, delay(FINISH_LIMIT_MS, undefined, { ref: false })]);
    this.close();
  }

  close(): void {
    this.#dropped += this.#messages.length;
    this.#messages = [];
    this.#bytes = 0;
    this.#closed.abort();
    this.#transport.close();
  }

  async #run(): Promise<void> {
    let retryMs = RETRY_MIN_MS;
    for (let next = this.#messages[0]; next !== undefined; next = this.#messages[0]) {
      try {
        await this.#transport.send(next);
        if (this.#closed.signal.aborted) return;
        this.#messages.shift();
        this.#bytes -= next.length;
        retryMs = RETRY_MIN_MS;
      } catch {
        // Away, or full: the line stays the first.
        await delay(retryMs, undefined, { ref: false, signal: this.#closed.signal }).catch(() => {});
        retryMs = Math.min(retryMs * 2, RETRY_MAX_MS);
      }
    }
  }
}
