// Waiting in tests: until something is so, with a bound.

import { setTimeout as delay } from 'node:timers/promises';
import { messageOf } from '../../core/errors.ts';

const POLL_MS = 15;

/** Repeats `check` until it neither throws nor returns false or undefined; fails with its last word after `limitMs`. */
export async function eventually<T>(
  check: () => T | Promise<T>,
  limitMs = 10_000,
  pollMs = POLL_MS,
): Promise<Exclude<T, false | undefined>> {
  const deadlineMs = Date.now() + limitMs;
  for (let last = 'it was false'; ; await delay(pollMs)) {
    try {
      const result = await check();
      if (result !== false && result !== undefined) return result as Exclude<T, false | undefined>;
    } catch (error) {
      last = messageOf(error);
    }
    if (Date.now() > deadlineMs) throw new Error(`not so after ${limitMs} ms: ${last}`);
  }
}
