// How far an iteration of a job is. Pure: from the service and its tasks to a verdict and to the lines that show it.

import type { Service, Task } from '../../core/generated/objects.ts';
import { taskName } from '../../core/task-name.ts';
import { hasFailed, isTerminal, isWanted } from '../../core/task-state.ts';
import { drawBar, type Verdict } from './progress.ts';

export interface JobProgress {
  readonly total: number;
  readonly completed: number;
  readonly active: number;
  readonly verdict: Verdict;
}

export interface JobInput {
  readonly service: Service;
  readonly tasks: Iterable<Task>;
  /** Completions that it is after. */
  readonly total: number;
}

export function measureJob({ service, tasks, total }: JobInput): JobProgress {
  const current = [...tasks].filter(
    ({ specVersion, desiredState }) => specVersion === service.specVersion && desiredState !== 'remove',
  );
  const completed = current.filter(({ status }) => status.state === 'complete').length;
  const active = current.filter((task) => isWanted(task) && !isTerminal(task.status.state)).length;
  return { total, completed, active, verdict: judge(service, current, completed >= total) };
}

function judge(service: Service, current: readonly Task[], isComplete: boolean): Verdict {
  if (isComplete) return { kind: 'settled' };
  const last = lostTask(service, current);
  if (last === undefined) return { kind: 'waiting' };
  const reason = last.status.error || last.status.state;
  const message = `task ${taskName(service.spec.name, last)} ended (${reason}) and is not restarted: the job cannot complete`;
  return { kind: 'failed', message };
}

/** The last task of a slot that has failed as often as the restart policy lets it. */
function lostTask({ spec }: Service, current: readonly Task[]): Task | undefined {
  const { condition, maxAttempts, windowMs } = spec.task.restart;
  // With a window, attempts are forgotten: only the managers can tell.
  if (condition !== 'none' && (maxAttempts === 0 || windowMs > 0)) return undefined;
  const attemptsMax = condition === 'none' ? 0 : maxAttempts;
  const failed = current.filter(({ status }) => hasFailed(status.state));
  for (const group of Map.groupBy(failed, (task) => taskName('', task)).values())
    if (group.length > attemptsMax) return group.at(-1);
  return undefined;
}

/** "job progress: 3 out of 10 complete" and how many are under way. */
export function formatJob({ total, completed, active }: JobProgress): string[] {
  const part = total === 0 ? 1 : completed / total;
  return [
    `job progress: ${completed} out of ${total} complete ${drawBar(part)} ${Math.floor(part * 100)}%`,
    `active tasks: ${active}`,
  ];
}
