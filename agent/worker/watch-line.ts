// What an operator sees of tasks from outside: their processes, what they use.

import os from 'node:os';
import { type Clock, sleep } from '../../core/clock.ts';
import { hasCode, messageOf } from '../../core/errors.ts';
import {
  emptyReachEnd,
  type ReachEnd,
  type StatsCommand,
  type TaskStats,
} from '../../proto/generated/reach.ts';
import type { Containers } from '../engine/engine.ts';
import { workerLog } from '../log.ts';
import type { ReachLine } from '../session/reach-lines.ts';

export async function runTop(
  containers: Pick<Containers, 'processes'>,
  containerId: string,
  line: ReachLine,
): Promise<ReachEnd> {
  await line.send({ processes: await containers.processes(containerId) });
  return emptyReachEnd;
}

/** Sends figures of all tasks that run, again and again until the operator leaves. */
export async function runStats(
  containers: Pick<Containers, 'stats'>,
  { taskIds, periodMs }: StatsCommand,
  line: ReachLine,
  clock: Clock,
): Promise<ReachEnd> {
  const left = new AbortController();
  void untilEnd(line).then(() => left.abort());
  for (;;) {
    const all = await Promise.all(taskIds.map((taskId) => statsOf(containers, taskId)));
    await line.send({ stats: all.flat() });
    if (periodMs === 0 || left.signal.aborted) return emptyReachEnd;
    await sleep(clock, periodMs, left.signal).catch(() => {});
    if (left.signal.aborted) return emptyReachEnd;
  }
}

/** None when it does not run here. */
async function statsOf(containers: Pick<Containers, 'stats'>, taskId: string): Promise<TaskStats[]> {
  try {
    return [{ taskId, cpus: os.availableParallelism(), ...(await containers.stats(taskId)) }];
  } catch (error) {
    if (hasCode(error, 'not-found') || hasCode(error, 'failed-precondition')) return [];
    throw error;
  }
}

/** A line that breaks has ended as well. */
async function untilEnd({ inputs }: ReachLine): Promise<void> {
  try {
    for await (const _input of inputs);
  } catch (error) {
    workerLog.debug({ error: messageOf(error) }, 'line to an operator has broken');
  }
}
