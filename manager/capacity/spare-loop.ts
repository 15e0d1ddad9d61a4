// Counts, now and then, the services of which something would find no place if any one node died. For the metric: who
// wants to know more asks for the capacity.

import { type Clock, sleep } from '../../core/clock.ts';
import type { ClusterBook } from '../placement/cluster-book.ts';
import type { Store } from '../store/store.ts';
import { type SpareSource, spareOf } from './spare.ts';

export interface SpareOptions {
  readonly store: Store;
  readonly clock: Clock;
  /** The scheduler's. */
  readonly book: ClusterBook;
  /** Undefined: this manager does not count any more. */
  readonly onCount: (services: number | undefined) => void;
}

// As often as Prometheus asks by default.
const PERIOD_MS = 60_000;
// Nobody waits for it, and with a thousand nodes it is seconds of work: it takes a tenth of the processor.
const REST_FACTOR = 9;

/** Runs until the signal aborts. */
export async function runSpareLoop(
  { store, onCount, ...options }: SpareOptions,
  signal: AbortSignal,
): Promise<void> {
  const { clock } = options;
  const source = { ...options, view: store.view, restFactor: REST_FACTOR };
  let countedIndex = -1;
  try {
    while (!signal.aborted) {
      if (store.index !== countedIndex) {
        countedIndex = store.index;
        onCount(await countServices(source, signal));
      }
      await sleep(clock, PERIOD_MS, signal);
    }
  } catch (error) {
    if (!signal.aborted) throw error;
  } finally {
    onCount(undefined);
  }
}

async function countServices(source: SpareSource, signal: AbortSignal): Promise<number> {
  const services = new Set<string>();
  for await (const { misfits } of spareOf(source, signal))
    for (const { serviceId } of misfits) services.add(serviceId);
  return services.size;
}
