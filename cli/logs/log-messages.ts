// The lines of tasks as managers send them. Those that are followed go on where they were when the managers change their
// leader, or the one that is asked starts again.

import { setTimeout as delay } from 'node:timers/promises';
import { hasCode } from '../../core/errors.ts';
import type { ServiceLogsRequest, ServiceLogsResponse } from '../../proto/generated/control.ts';
import type { Connection } from '../connection.ts';
import type { Io } from '../io.ts';
import { PAUSE_MS, SILENCE_LIMIT_MS } from '../progress/ask.ts';

/** Ends when all lines are there; never, with `follow`. Throws when no manager answers for half a minute. */
export async function* logMessages(
  connection: Connection,
  io: Pick<Io, 'nowMs'>,
  request: Omit<ServiceLogsRequest, 'resumed' | 'after'>,
): AsyncIterable<ServiceLogsResponse> {
  const { follow, tail } = request.options;
  const startMs = io.nowMs();
  const after: Record<string, string> = {};
  let failingSinceMs: number | undefined;
  for (let resumed = false; ; resumed = true) {
    try {
      const control = await connection.control();
      for await (const message of control.serviceLogs({ ...request, resumed, after })) {
        failingSinceMs = undefined;
        // Of those with lines from before, nothing but what comes after this command is wanted.
        if (!resumed && tail >= 0) for (const { id } of message.tasks) after[id] ??= lineTime(startMs);
        for (const { taskId, time } of message.lines) after[taskId] = time;
        yield message;
      }
      if (!follow) return;
    } catch (error) {
      failingSinceMs ??= io.nowMs();
      const isOver = io.nowMs() - failingSinceMs > SILENCE_LIMIT_MS;
      if (!follow || !hasCode(error, 'unavailable') || isOver) throw error;
    }
    connection.reopen();
    await delay(PAUSE_MS);
  }
}

/** As lines have it: they are compared as texts. */
function lineTime(ms: number): string {
  return new Date(ms).toISOString().replace('Z', '000000Z');
}
