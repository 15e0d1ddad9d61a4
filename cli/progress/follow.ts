// What a manager sends without end. When it goes, or the managers change their leader, another one is asked for the rest.

import { setTimeout as delay } from 'node:timers/promises';
import { hasCode, SwarmError } from '../../core/errors.ts';
import type { Connection, Control } from '../connection.ts';
import type { Io } from '../io.ts';
import { PAUSE_MS, SILENCE_LIMIT_MS } from './ask.ts';

export interface Following<T> {
  readonly connection: Connection;
  readonly io: Pick<Io, 'nowMs'>;
  /** Asked for what comes behind that which was sent already. */
  readonly open: (control: Control) => AsyncIterable<T>;
  /** A failure before anything was sent is told at once. */
  readonly isEager?: boolean;
}

/** Throws when no manager answers for half a minute. */
export async function* follow<T>({ connection, io, open, isEager = false }: Following<T>): AsyncIterable<T> {
  let hasBegun = !isEager;
  let lostAtMs: number | undefined;
  for (;;) {
    try {
      for await (const message of open(await connection.control())) {
        [hasBegun, lostAtMs] = [true, undefined];
        yield message;
      }
      throw new SwarmError('unavailable', 'the manager has ended the stream');
    } catch (error) {
      if (!hasBegun || !hasCode(error, 'unavailable')) throw error;
      lostAtMs ??= io.nowMs();
      if (io.nowMs() - lostAtMs > SILENCE_LIMIT_MS) throw error;
    }
    connection.reopen();
    await delay(PAUSE_MS);
  }
}
