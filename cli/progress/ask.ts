// Asks a manager again and again. Meanwhile managers change, and the one that is asked may go: it is asked for anew.

import { setTimeout as delay } from 'node:timers/promises';
import { hasCode } from '../../core/errors.ts';
import type { Connection, Control } from '../connection.ts';
import type { Io } from '../io.ts';

export const PAUSE_MS = 200;
// An election, with the loss of its first vote, is over by then.
export const SILENCE_LIMIT_MS = 30_000;

export interface Asking<T> {
  readonly connection: Connection;
  readonly io: Pick<Io, 'nowMs'>;
  /** Undefined: not yet. */
  readonly ask: (control: Control) => Promise<T | undefined>;
  /** Default: for ever. */
  readonly limitMs?: number;
  readonly signal?: AbortSignal;
}

/** The first answer that is one; undefined when there is none in time, or `signal` aborts. */
export async function askUntil<T>({
  connection,
  io,
  ask,
  limitMs = Number.POSITIVE_INFINITY,
  signal,
}: Asking<T>): Promise<T | undefined> {
  const startMs = io.nowMs();
  let lastAnswerMs = startMs;
  for (;;) {
    try {
      const answer = await ask(await connection.control());
      if (answer !== undefined) return answer;
      lastAnswerMs = io.nowMs();
    } catch (error) {
      if (!hasCode(error, 'unavailable') || io.nowMs() - lastAnswerMs > SILENCE_LIMIT_MS) throw error;
      connection.reopen();
    }
    if (signal?.aborted || io.nowMs() - startMs > limitMs) return undefined;
    await delay(PAUSE_MS, undefined, signal && { signal }).catch(() => {});
  }
}
