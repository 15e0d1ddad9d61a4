// The heartbeats of a session, and when to give it up: when the manager is silent for long, and as soon as the network
// between is back after a cut, because a connection that was cut waits for seconds before it tries again.

import { type Clock, sleep } from '../../core/clock.ts';

// Silence of the manager for this many heartbeat periods: it hangs or is cut off, another session may reach a better one.
// The managers take a node for down after three, so there is time left to find one.
const SILENCE_PERIODS_MAX = 2.5;
/** The kernel asks after a second without anything: by then, two answers are overdue. */
const DOUBT_MS = 1_500;
/** For the answer to a registration, before a period is known: as long as managers wait for a node at first. */
const ANSWER_LIMIT_MS = 15_000;
const LOOK_PERIOD_MS = 250;
/** What falls into a cut is lost: attempts do not wait for each other. */
const ATTEMPT_PERIOD_MS = 150;
/** For the answer to a heartbeat. What was lost in the cut comes after up to as long as the cut was, and so does what follows. */
const PATIENCE_MS = 300;

export interface HeartOptions {
  readonly clock: Clock;
  readonly pulse: () => void;
  /** The session is worth nothing any more. */
  readonly onLost: () => void;
  /** For how long the machine of the manager has been silent; undefined where nobody knows. */
  readonly silenceMs: () => number | undefined;
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

  /** The manager was asked for a session. */
  begin(): void {
    const { clock, onLost } = this.#options;
    this.#stopped.signal.addEventListener('abort', clock.after(ANSWER_LIMIT_MS, onLost));
  }

  /** Something came from the manager: nothing is wrong with the session. */
  hear(): void {
    this.#quiet.abort();
  }

  /** The manager has said in which period it wants to hear of this node. */
  beat(periodMs: number): void {
    this.stop();
    const { clock, pulse, onLost } = this.#options;
    const { signal } = this.#stopped;
    const cancels = [clock.after(periodMs, pulse), clock.after(periodMs * SILENCE_PERIODS_MAX, onLost)];
    signal.addEventListener('abort', () => {
      for (const cancel of cancels) cancel();
    });
    void this.#watch(signal);
  }

  stop(): void {
    this.#stopped.abort();
    this.#stopped = new AbortController();
  }

  /** A manager that is only busy is left alone: its machine is heard of all the while. */
  async #watch(stopped: AbortSignal): Promise<void> {
    const { clock, silenceMs, reach } = this.#options;
    if (reach === undefined) return;
    try {
      for (;;) {
        await sleep(clock, LOOK_PERIOD_MS, stopped);
        if ((silenceMs() ?? 0) > DOUBT_MS) await this.#findOut(reach, stopped);
      }
    } catch (error) {
      if (!stopped.aborted) throw error;
    }
  }

  /** Returns when something comes from the manager. */
  async #findOut(reach: NonNullable<HeartOptions['reach']>, stopped: AbortSignal): Promise<void> {
    const { clock, pulse, onLost } = this.#options;
    this.#quiet = new AbortController();
    const signal = AbortSignal.any([this.#quiet.signal, stopped]);
    try {
      let isThere = false;
      while (!isThere) {
        void reach(signal).then((isReached) => {
          isThere ||= isReached;
        });
        await sleep(clock, ATTEMPT_PERIOD_MS, signal);
      }
      pulse();
      await sleep(clock, PATIENCE_MS, signal);
    } catch (error) {
      if (signal.aborted) return;
      throw error;
    }
    onLost();
  }
}
