// The shape of every control loop: look at everything once, then sleep until something relevant changed or a planned
// time has come, and look again. A loop decides nothing; its `pass` calls a pure planner and writes the plan.

import type { Clock } from '../core/clock.ts';
import { messageOf } from '../core/errors.ts';
import { loopLog } from './log.ts';
import type { FreshCommit, Store } from './store/store.ts';

export interface LoopOptions {
  readonly name: string;
  readonly store: Store;
  readonly clock: Clock;
  /** Called for every commit; true wakes the loop. Remember here what has to be looked at. */
  readonly isRelevant: (commit: FreshCommit) => boolean;
  /** One round. Returns when to come back even if nothing changes (Unix ms), or undefined. */
  readonly pass: () => Promise<number | undefined>;
  readonly onFailure?: (error: unknown) => void;
}

// A failed pass is repeated after this; the planner starts from the store again, so nothing is lost.
const RETRY_MS = 1_000;
// Timers take 32 bits; a loop that is woken too early just looks again.
const SLEEP_MAX_MS = 24 * 3_600_000;

/** Runs until the signal aborts. A pass that fails is logged, counted and repeated. */
export async function runLoop(options: LoopOptions, signal: AbortSignal): Promise<void> {
  const { store, clock, name } = options;
  let isDirty = true;
  let wake = () => {};
  const unsubscribe = store.subscribe((commit) => {
    if (!options.isRelevant(commit)) return;
    isDirty = true;
    wake();
  });
  const onAbort = () => wake();
  signal.addEventListener('abort', onAbort);
  try {
    while (!signal.aborted) {
      isDirty = false;
      const wakeAtMs = await runPass(options);
      if (isDirty || signal.aborted) continue;
      await new Promise<void>((resolve) => {
        const cancel =
          wakeAtMs === undefined
            ? () => {}
            : clock.after(Math.min(Math.max(0, wakeAtMs - clock.nowMs()), SLEEP_MAX_MS), resolve);
        wake = () => {
          cancel();
          resolve();
        };
      });
      wake = () => {};
    }
  } finally {
    unsubscribe();
    signal.removeEventListener('abort', onAbort);
    loopLog.debug({ loop: name }, 'loop ended');
  }
}

async function runPass({ name, clock, pass, onFailure }: LoopOptions): Promise<number | undefined> {
  try {
    return await pass();
  } catch (error) {
    loopLog.error({ loop: name, error: messageOf(error) }, 'pass failed, will retry');
    onFailure?.(error);
    return clock.nowMs() + RETRY_MS;
  }
}

/** The earlier of two times, either of which may be missing. */
export function earliest(a: number | undefined, b: number | undefined): number | undefined {
  if (a === undefined || b === undefined) return a ?? b;
  return Math.min(a, b);
}
