// When a node renews its certificate: in its time, and again after a while when that has failed.

import type { Clock, Random } from '../core/clock.ts';
import { describeCertificate, renewalAt } from '../rpc/certificates.ts';

export interface RenewalOptions {
  readonly clock: Clock;
  readonly random: Random;
  /** PEM of the certificate that the node shows. */
  readonly certificate: () => string;
  /** Gets another one, and plans its renewal. When it rejects it is called again. */
  readonly renew: () => Promise<void>;
  readonly onFailure: (error: unknown, retryMs: number) => void;
}

// Swarm's, and doubled each time.
const RETRY_MIN_MS = 5_000;
const RETRY_MAX_MS = 3_600_000;
// An operator who lets expired certificates in does not wait for an hour.
const RETRY_EXPIRED_MS = 10_000;
// Timers take 31 bits of milliseconds, and do not notice that the time of day has jumped.
const TIMER_MAX_MS = 24 * 3_600_000;

export class RenewalTimer {
  readonly #options: RenewalOptions;
  readonly #signal: AbortSignal;
  #cancel = () => {};

  /** Nothing happens any more when the signal has aborted. */
  constructor(options: RenewalOptions, signal: AbortSignal) {
    this.#options = options;
    this.#signal = signal;
    signal.addEventListener('abort', () => this.#cancel(), { once: true });
  }

  /** For the certificate that is there now, in the place of what was planned before. */
  plan(): void {
    const { certificate, random } = this.#options;
    const { notBeforeMs, notAfterMs } = describeCertificate(certificate());
    this.#renewAt(renewalAt({ notBeforeMs, notAfterMs, random }), RETRY_MIN_MS);
  }

  #renewAt(atMs: number, retryMs: number): void {
    this.#cancel();
    if (this.#signal.aborted) return;
    const { clock, renew } = this.#options;
    const waitMs = Math.min(Math.max(0, atMs - clock.nowMs()), TIMER_MAX_MS);
    this.#cancel = clock.after(waitMs, () => {
      if (clock.nowMs() < atMs) this.#renewAt(atMs, retryMs);
      else void renew().catch((error) => this.#retry(error, retryMs));
    });
  }

  #retry(error: unknown, retryMs: number): void {
    if (this.#signal.aborted) return;
    const { clock, certificate, onFailure } = this.#options;
    const isExpired = describeCertificate(certificate()).notAfterMs < clock.nowMs();
    const waitMs = Math.min(retryMs, isExpired ? RETRY_EXPIRED_MS : RETRY_MAX_MS);
    onFailure(error, waitMs);
    this.#renewAt(clock.nowMs() + waitMs, retryMs * 2);
  }
}
