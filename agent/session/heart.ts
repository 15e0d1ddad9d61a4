// The heartbeats of a session, and when to give it up: when the manager is silent for long, and as soon as the network
// between is back after a cut, because a connection that was cut waits for seconds before it tries again.

import { type Clock, sleep } from '../../core/clock.ts';

// Silence of the manager for this many heartbeat periods: it hangs or is cut off, another session may reach a better one.
// The managers take a node for down after three, so there is time left to find one.
const SILENCE_PERIODS_MAX = 2.5;
/** A heartbeat that is not answered for so long is looked into. */
const DOUBT_MS = 1_000;
const LOOK_PERIOD_MS = 300;
/** After a cut: what the old connection has to say may be on its way. */
const PATIENCE_MS = 300;

export interface HeartOptions {
  readonly clock: Clock;
  readonly pulse: () => void;
  /** The session is worth nothing any more. */
  readonly onLost: () => void;
  /** Whether the machine of the manager takes a new connection; absent when there is no network between. */
  readonly reach?: ((signal: AbortSignal) => Promise<boolean>) | undefined;
}

export class Heart {
  readonly #options: HeartOptions;
  #quiet = new AbortController();
  #stopped = new AbortController();

  constructor(options: HeartOptions) {
    this.#options = options;
  }

  /** Something came from the manager: nothing is wrong with the session. */
  hear(): void {
    this.#quiet.abort();
  }

  /** The manager has said in which period it wants to hear of this node. */
  beat(periodMs: number): void {
    this.stop();
    const { clock, pulse, onLost } = this.#options;
    const stopped = this.#stopped;
    const cancels = [
      clock.after(periodMs, () => {
        pulse();
        void this.#listen(stopped.signal);
      }),
      clock.after(periodMs * SILENCE_PERIODS_MAX, onLost),
    ];
    stopped.signal.addEventListener('abort', () => {
      for (const cancel of cancels) cancel();
    });
  }

  stop(): void {
    this.#stopped.abort();
    this.#stopped = new AbortController();
  }

  /** A manager that is only busy is left alone: its machine takes connections all the while. */
  async #listen(stopped: AbortSignal): Promise<void> {
    const { clock, reach, onLost } = this.#options;
    if (reach === undefined) return;
    this.#quiet = new AbortController();
    const signal = AbortSignal.any([this.#quiet.signal, stopped]);
    const pause = (ms: number) => sleep(clock, ms, signal);
    try {
      await pause(DOUBT_MS);
      let wasCut = false;
      for (;;) {
        const isThere = await reach(signal);
        if (isThere && wasCut) break;
        wasCut = !isThere;
        await pause(isThere ? DOUBT_MS : LOOK_PERIOD_MS);
      }
      await pause(PATIENCE_MS);
      onLost();
    } catch (error) {
      if (!signal.aborted) throw error;
    }
  }
}
