// Counts, now and then, the services of which something would find no place if any one node died. For the metric: who
// wants to know more asks for the capacity.

import { type Clock, sleep } from '../../core/clock.ts';
import { ClusterBook } from '../placement/cluster-book.ts';
import type { Store } from '../store/store.ts';
import { withoutNode } from './spare.ts';

export interface SpareOptions {
  readonly store: Store;
  readonly clock: Clock;
  /** Undefined: this manager does not count any more. */
  readonly onCount: (services: number | undefined) => void;
}

// As often as Prometheus asks by default.
const PERIOD_MS = 60_000;
// The loops go on in between.
const NODES_AT_A_TIME = 10;

/** Runs until the signal aborts. */
export async function runSpareLoop(
  { store, clock, onCount }: SpareOptions,
  signal: AbortSignal,
): Promise<void> {
  let countedIndex = -1;
  try {
    while (!signal.aborted) {
      if (store.index !== countedIndex) {
        countedIndex = store.index;
        onCount(await countServices(store, clock, signal));
      }
      await sleep(clock, PERIOD_MS, signal);
    }
  } catch (error) {
    if (!signal.aborted) throw error;
  } finally {
    onCount(undefined);
  }
}

async function countServices(store: Store, clock: Clock, signal: AbortSignal): Promise<number> {
  const services = new Set<string>();
  const { view } = store;
  let turns = 0;
  const pause = async () => {
    if (++turns % NODES_AT_A_TIME === 0) await sleep(clock, 0, signal);
  };
  const counting = ClusterBook.counting(view);
  let counted = counting.next();
  for (; !counted.done; counted = counting.next()) await pause();
  const book = counted.value;
  for (const { node } of book.nodes) {
    if (node.status.state === 'down') continue;
    const choice = { nowMs: clock.nowMs(), isSurvey: true };
    for (const { serviceId } of withoutNode(view, node, choice, book).misfits) services.add(serviceId);
    await pause();
  }
  return services.size;
}
