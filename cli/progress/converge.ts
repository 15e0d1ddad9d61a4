// Waits until a service is what its spec asks for, and shows how far it is.

import { setTimeout as delay } from 'node:timers/promises';
import type { Service, ServiceSpec, Task } from '../../core/generated/objects.ts';
import { isJob } from '../../core/service-mode.ts';
import type { WatchServiceResponse } from '../../proto/generated/control.ts';
import type { Control } from '../connection.ts';
import type { Io } from '../io.ts';
import { readTasks, specOf } from '../tasks/task-list.ts';
import { formatJob, measureJob } from './job-progress.ts';
import { formatProgress, measureProgress } from './progress.ts';
import { Screen, silentScreen } from './screen.ts';

export interface ConvergeRequest {
  readonly control: Control;
  readonly serviceId: string;
  readonly io: Io;
  readonly isRollback?: boolean;
  readonly isQuiet?: boolean;
}

// While all tasks run, the countdown moves once a second.
const TICK_MS = 1_000;

/** Returns the exit status: 0 when the service has converged or the operator has detached. */
export async function converge(request: ConvergeRequest): Promise<number> {
  const { control, serviceId, io, isQuiet = false } = request;
  const stopped = new AbortController();
  const interrupted = io.catchInterrupt();
  interrupted.addEventListener('abort', () => stopped.abort(), { once: true });
  const screen = isQuiet ? silentScreen() : new Screen(io);
  try {
    const { specs } = await readTasks(control, { serviceIds: [serviceId] });
    const messages = control.watchService({ serviceId }, { signal: stopped.signal });
    return await follow(messages, specs, screen, request);
  } catch (error) {
    if (!interrupted.aborted) throw error;
    io.err(
      `\nOperation continuing in background.\nUse \`tsswarm service ps ${serviceId}\` to check progress.\n`,
    );
    return 0;
  } finally {
    stopped.abort();
  }
}

async function follow(
  messages: AsyncIterable<WatchServiceResponse>,
  specs: ReadonlyMap<string, ServiceSpec>,
  screen: Screen,
  { io, isRollback = false }: ConvergeRequest,
): Promise<number> {
  const tasks = new Map<string, Task>();
  let service: Service | undefined;
  let desiredTasks = 0;
  let stableSinceMs: number | undefined;
  const iterator = messages[Symbol.asyncIterator]();
  let next = iterator.next();
  for (;;) {
    const timer = new AbortController();
    const tick =
      stableSinceMs === undefined ? undefined : delay(TICK_MS / 10, undefined, { signal: timer.signal });
    // The timer is ended by every message.
    tick?.catch(() => {});
    const message = await (tick === undefined ? next : Promise.race([next, tick]));
    timer.abort();
    if (message !== undefined) {
      next = iterator.next();
      // Kept for the next round, which may come after the stream has failed.
      next.catch(() => {});
      if (message.done || message.value.service === undefined) {
        await screen.end('verify: Service was removed');
        return 1;
      }
      service = message.value.service;
      desiredTasks = message.value.desiredTasks;
      for (const task of message.value.tasks) tasks.set(task.id, task);
      for (const id of message.value.removedTaskIds) tasks.delete(id);
    }
    if (service === undefined) continue;
    if (isJob(service.spec.mode)) {
      const progress = measureJob({ service, tasks: tasks.values(), total: desiredTasks });
      await screen.draw(formatJob(progress));
      if (progress.verdict.kind === 'failed') return fail(progress.verdict.message, screen, io);
      if (progress.verdict.kind === 'waiting') continue;
      await screen.end('job complete');
      return 0;
    }
    const progress = measureProgress({
      service,
      tasks: tasks.values(),
      specOf: (task) => specOf(task, specs),
      isRollback,
      desiredTasks,
    });
    const { verdict } = progress;
    if (verdict.kind === 'failed') {
      await screen.draw(formatProgress(progress));
      return fail(verdict.message, screen, io);
    }
    if (verdict.kind === 'waiting') stableSinceMs = undefined;
    else stableSinceMs ??= io.nowMs();
    const monitorMs = verdict.kind === 'settled' ? 0 : service.spec.update.monitorMs;
    const leftMs =
      stableSinceMs === undefined ? Number.POSITIVE_INFINITY : stableSinceMs + monitorMs - io.nowMs();
    await screen.draw([
      ...headLines(service, isRollback),
      ...formatProgress(progress),
      ...verifyLines(leftMs),
    ]);
    if (leftMs <= 0) {
      await screen.end(`verify: Service ${service.id} converged`);
      return 0;
    }
  }
}

async function fail(message: string, screen: Screen, io: Io): Promise<number> {
  await screen.end('');
  io.err(`${message}\n`);
  return 1;
}

function headLines({ updateStatus }: Service, isRollback: boolean): string[] {
  if (updateStatus?.noProgressSinceMs !== undefined) return [updateStatus.message];
  if (updateStatus?.state !== 'rollback-started' && !isRollback) return [];
  return updateStatus === undefined ? [] : [`rollback: ${updateStatus.message}`];
}

function verifyLines(leftMs: number): string[] {
  if (!Number.isFinite(leftMs) || leftMs <= 0) return [];
  const seconds = Math.ceil(leftMs / 1000);
  return [`verify: Waiting ${seconds} second${seconds === 1 ? '' : 's'} to verify that tasks are stable...`];
}
