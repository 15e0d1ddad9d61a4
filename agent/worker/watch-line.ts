// What an operator sees of tasks from outside: what they write, their processes, what they use.

import os from 'node:os';
import { type Clock, sleep } from '../../core/clock.ts';
import { hasCode, messageOf } from '../../core/errors.ts';
import {
  emptyReachEnd,
  type ReachEnd,
  type ReachInput,
  type StatsCommand,
  type TaskStats,
} from '../../proto/generated/reach.ts';
import type { Containers } from '../engine/engine.ts';
import { workerLog } from '../log.ts';
import type { ReachLine } from '../session/reach-lines.ts';

/** Sends what a task writes from now on, until it has ended or the operator leaves. */
export async function runAttach(
  containers: Pick<Containers, 'logs' | 'wait' | 'kill'>,
  containerId: string,
  line: ReachLine,
): Promise<ReachEnd> {
  const left = new AbortController();
  await line.send({ started: true });
  const hear = async ({ signal }: ReachInput) => {
    if (signal !== '') await containers.kill(containerId, signal);
  };
  void untilEnd(line, hear).then(() => left.abort());
  for await (const records of containers.logs(containerId, { tail: 0, follow: true, signal: left.signal }))
    for (const record of records) await line.send({ [record.stream]: Buffer.from(record.line) });
  if (left.signal.aborted) return emptyReachEnd;
  return { ...emptyReachEnd, exitCode: (await containers.wait(containerId)).exitCode };
}

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
async function untilEnd({ inputs }: ReachLine, hear: (input: ReachInput) => Promise<void> = async () => {}) {
  try {
    for await (const input of inputs) await hear(input);
  } catch (error) {
    workerLog.debug({ error: messageOf(error) }, 'line to an operator has broken');
  }
}
