// Runs what only the leader may do, for as long as it leads: again and again, whenever leadership returns.

import type { ReplicatedLog } from './store/replicated-log.ts';

/** Runs `lead` while this manager leads; its signal aborts when that ends. Returns when `signal` aborts. */
export async function runWhileLeading(
  log: ReplicatedLog,
  lead: (signal: AbortSignal) => Promise<void>,
  signal: AbortSignal,
): Promise<void> {
  while (!signal.aborted) {
    await becomesLeader(log, signal);
    if (signal.aborted) return;
    const lost = new AbortController();
    const { term } = log.leadership;
    const unsubscribe = log.onLeadership((now) => {
      // Another term in between means that somebody else may have written.
      if (!now.isLeader || now.term !== term) lost.abort();
    });
    try {
      await lead(AbortSignal.any([signal, lost.signal]));
    } catch (error) {
      // A loop that is interrupted by the loss of leadership may fail of it.
      if (!lost.signal.aborted) throw error;
    } finally {
      unsubscribe();
    }
  }
}

function becomesLeader(log: ReplicatedLog, signal: AbortSignal): Promise<void> {
  if (log.leadership.isLeader || signal.aborted) return Promise.resolve();
  return new Promise((resolve) => {
    const done = () => {
      unsubscribe();
      signal.removeEventListener('abort', done);
      resolve();
    };
    const unsubscribe = log.onLeadership(({ isLeader }) => {
      if (isLeader) done();
    });
    signal.addEventListener('abort', done, { once: true });
  });
}
