// The lines of tasks as managers send them. Those that are followed go on where they were when the managers change their
// leader, or the one that is asked starts again.

import type { ServiceLogsRequest, ServiceLogsResponse } from '../../proto/generated/control.ts';
import type { Connection, Control } from '../connection.ts';
import type { Io } from '../io.ts';
import { follow } from '../progress/follow.ts';

/** Ends when all lines are there; never, with `follow`. Throws when no manager answers for half a minute. */
export async function* logMessages(
  connection: Connection,
  io: Pick<Io, 'nowMs'>,
  request: Omit<ServiceLogsRequest, 'resumed' | 'after'>,
): AsyncIterable<ServiceLogsResponse> {
  const startMs = io.nowMs();
  const after: Record<string, string> = {};
  let resumed = false;
  const open = (control: Control) => control.serviceLogs({ ...request, resumed, after });
  const messages = request.options.follow
    ? follow({ connection, io, open })
    : open(await connection.control());
  for await (const message of messages) {
    // Of those with lines from before, nothing but what comes after this command is wanted.
    if (!resumed && request.options.tail >= 0)
      for (const { id } of message.tasks) after[id] ??= lineTime(startMs);
    for (const { taskId, time } of message.lines) after[taskId] = time;
    resumed = true;
    yield message;
  }
}

/** As lines have it: they are compared as texts. */
function lineTime(ms: number): string {
  return new Date(ms).toISOString().replace('Z', '000000Z');
}
