// How many tasks a service has and should have. Pure.

import { placementCheck, takesTasks } from '../../core/eligible-node.ts';
import type { Node, Service, ServiceSpec, Task } from '../../core/generated/objects.ts';
import { wantedReplicas } from '../../core/replicas.ts';
import { isGlobal, isJob } from '../../core/service-mode.ts';
import { isTerminal, isWanted } from '../../core/task-state.ts';
import type { TablesView } from '../store/tables.ts';

export interface TaskCounts {
  readonly running: number;
  /** That should run; of a job, that may run at once. */
  readonly desired: number;
  /** Of a job's iteration; 0 of other services. */
  readonly completed: number;
  readonly completions: number;
}

const noJob = { completed: 0, completions: 0 };

/** `away` is for those that count many services. */
export function countTasks(view: TablesView, service: Service, away = runningAway(view)): TaskCounts {
  const { spec, id } = service;
  const { mode } = spec;
  const running = countRunning(view, service) - (away.get(id) ?? 0);
  if (!isGlobal(mode) && !isJob(mode)) return { running, desired: wantedReplicas(spec), ...noJob };
  const tasks = view.tasksOfService(id).filter(isWanted);
  const total = isGlobal(mode) ? countNodes(view, service, tasks) : wantedReplicas(spec);
  if (!isJob(mode)) return { running, desired: total, ...noJob };
  const completed = tasks.filter((task) => isCompletion(task, service)).length;
  const atOnce = mode.replicatedJob?.maxConcurrent || total;
  return { running, desired: Math.min(atOnce, total), completed, completions: total };
}

/** By service, what would be running if its nodes were not down. */
export function runningAway(view: TablesView): ReadonlyMap<string, number> {
  const counts = new Map<string, number>();
  for (const node of view.node.values()) {
    if (node.status.state !== 'down') continue;
    for (const task of view.tasksOnNode(node.id).filter(isWanted))
      if (task.status.state === 'running') counts.set(task.serviceId, (counts.get(task.serviceId) ?? 0) + 1);
  }
  return counts;
}

function countRunning(view: TablesView, { id }: Service): number {
  let running = 0;
  for (const { state, desiredState, count } of view.taskStates(id))
    if (state === 'running' && isWanted({ desiredState })) running += count;
  return running;
}

/** The task is one of the completions that the job's current iteration is after. */
export function isCompletion(task: Task, { specVersion }: Service): boolean {
  return (
    task.specVersion === specVersion && task.status.state === 'complete' && task.desiredState === 'complete'
  );
}

/** How many tasks are to run under the current spec, or of a job to complete. */
export function countGoal(view: TablesView, service: Service): number {
  if (!isGlobal(service.spec.mode)) return wantedReplicas(service.spec);
  return nodesFor(view, service.spec).length;
}

/** Nodes that are to have a task, whatever they have now. */
export function nodesFor(view: TablesView, spec: ServiceSpec): Node[] {
  if (spec.stopped) return [];
  const fits = placementCheck(spec.task.placement);
  return [...view.node.values()].filter((node) => takesTasks(node) && fits(node));
}

/** Nodes that are to have a task, and those that keep one: paused ones, and those on which a job has completed. */
function countNodes(view: TablesView, service: Service, tasks: readonly Task[]): number {
  const { spec, specVersion } = service;
  if (spec.stopped) return 0;
  const wanted = nodesFor(view, spec);
  const keeping = tasks.filter(
    (task) =>
      isCompletion(task, service) ||
      (!isAway(view, task) &&
        (isJob(spec.mode) ? task.specVersion === specVersion : !isTerminal(task.status.state))),
  );
  return new Set([...wanted.map(({ id }) => id), ...keeping.map(({ nodeId }) => nodeId)]).size;
}

/** Nobody knows whether it runs, and nobody can reach it. */
function isAway(view: TablesView, { nodeId }: Task): boolean {
  return view.node.get(nodeId)?.status.state === 'down';
}
