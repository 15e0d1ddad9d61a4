// `why`: the causal chain of what does not run, read off the store. Pure. Each step says who found out, what, and
// what would unblock it.

import { hasCode, SwarmError } from '../../core/errors.ts';
import { isRecentFailure, NODE_FAILURES_MAX } from '../../core/failing-node.ts';
import type { Service, Task } from '../../core/generated/objects.ts';
import { isJob } from '../../core/service-mode.ts';
import { isTerminal, isWanted } from '../../core/task-state.ts';
import { type ExplainResponse, emptyExplainStep } from '../../proto/generated/control.ts';
import type { TablesView } from '../store/tables.ts';
import { changeConstraint } from './explain-constraints.ts';
import { explainEndpoint } from './explain-endpoint.ts';
import { explainNode } from './explain-node.ts';
import {
  BRING_NODE,
  type Draft,
  errorOf,
  explainTask,
  explainTroubles,
  isTrouble,
  tasksText,
  titleOf,
} from './explain-task.ts';
import { explainUpdate, explainUpdateStatus } from './explain-update.ts';
import { findNode, findService, findTask } from './find.ts';
import { countTasks } from './task-counts.ts';

export const EXPLAINED_KINDS = ['service', 'task', 'node', 'update'] as const;

interface Question {
  readonly target: string;
  /** Of `EXPLAINED_KINDS`; empty: a service, task or node, whichever has the name. */
  readonly kind: string;
}

/** Throws `not-found` when there is no such thing. */
export function explain(view: TablesView, question: Question, nowMs: number): ExplainResponse {
  return explanationOf(answer(view, question, nowMs));
}

export function explanationOf(drafts: readonly Draft[]): ExplainResponse {
  const steps = drafts.map((draft) => ({ ...emptyExplainStep, ok: true, ...draft }));
  return { ok: steps.every((step) => step.ok), steps };
}

function answer(view: TablesView, { target, kind }: Question, nowMs: number): Draft[] {
  switch (kind) {
    case '':
      return explainAny(view, target, nowMs);
    case 'service':
      return explainService(view, findService(view, target), nowMs);
    case 'update':
      return explainUpdate(view, findService(view, target), nowMs);
    case 'node':
      return explainNode(view, findNode(view, target), nowMs);
    case 'task': {
      const task = findTask(view, target);
      if (task === undefined) throw new SwarmError('not-found', `task ${target} not found`);
      return explainTask(view, task, nowMs, 0);
    }
    default:
      throw new SwarmError('invalid-argument', `kind: "${kind}" must be ${EXPLAINED_KINDS.join(', ')}`);
  }
}

/** Exact names and ids come before prefixes. */
function explainAny(view: TablesView, target: string, nowMs: number): Draft[] {
  const service = view.byName('service', target) ?? view.service.get(target);
  if (service !== undefined) return explainService(view, service, nowMs);
  const isHost = [...view.node.values()].some(({ description: { hostname } }) => hostname === target);
  if (isHost || view.node.get(target) !== undefined) return explainNode(view, findNode(view, target), nowMs);
  const task = findTask(view, target);
  if (task !== undefined) return explainTask(view, task, nowMs, 0);
  const found =
    firstFound(() => explainService(view, findService(view, target), nowMs)) ??
    firstFound(() => explainNode(view, findNode(view, target), nowMs));
  if (found === undefined) throw new SwarmError('not-found', `no service, task or node ${target}`);
  return found;
}

function firstFound<T>(find: () => T): T | undefined {
  try {
    return find();
  } catch (error) {
    if (hasCode(error, 'not-found')) return undefined;
    throw error;
  }
}

function explainService(view: TablesView, service: Service, nowMs: number): Draft[] {
  const tasks = view.tasksOfService(service.id);
  const wanted = tasks.filter(isWanted);
  const counts = countTasks(view, service);
  const isOfJob = isJob(service.spec.mode);
  const isComplete = isOfJob ? counts.completed >= counts.completions : counts.running >= counts.desired;
  const steps: Draft[] = [
    {
      ok: isComplete,
      subject: 'service',
      text: service.spec.stopped
        ? `${service.spec.name} is stopped: "tsswarm service start ${service.spec.name}" runs it again`
        : isOfJob
          ? `${service.spec.name}: ${counts.completed} of ${counts.completions} tasks have completed, ${counts.running} are running`
          : `${service.spec.name}: ${counts.running} of ${counts.desired} tasks are running`,
    },
  ];
  if (service.updateStatus !== undefined) steps.push(explainUpdateStatus(service, nowMs));
  steps.push(...explainEndpoint(view, service));
  if (counts.desired === 0) steps.push(...explainNowhere(view, service));
  const stuck = wanted.filter(({ status }) => isTrouble(status));
  steps.push(...explainTroubles(view, stuck, nowMs));
  steps.push(...explainFailingNodes(view, service, tasks, nowMs));
  const away = explainAway(view, wanted);
  steps.push(...away);
  if (!isComplete && stuck.length + away.length === 0) steps.push(...explainFinished(service, tasks));
  return steps;
}

/** A service that is to run on every node has none to run on: nobody calls that an error, and few mean it. */
function explainNowhere(view: TablesView, { spec }: Service): Draft[] {
  if (spec.mode.global === undefined || spec.stopped) return [];
  const { constraints } = spec.task.placement;
  const [asked, remedy] =
    constraints.length === 0
      ? ['', BRING_NODE]
      : [` and satisfies ${constraints.join(' and ')}`, changeConstraint(view, spec)];
  return [{ subject: 'scheduler', depth: 1, text: `there is no node that takes tasks${asked}`, remedy }];
}

/** Tasks of which nobody knows whether they run, and that are not replaced: the brake holds their nodes. */
function explainAway(view: TablesView, wanted: readonly Task[]): Draft[] {
  return [...Map.groupBy(wanted, ({ nodeId }) => nodeId)].flatMap(([nodeId, tasks]) => {
    const node = view.node.get(nodeId);
    if (node?.status.state !== 'down') return [];
    const host = node.description.hostname || nodeId;
    const text = `${tasksText(tasks.length)} on ${host}, which is down: ${node.status.message}`;
    return [{ ok: false, subject: 'node', depth: 1, text, remedy: `tsswarm why node ${host}` }];
  });
}

/** Nodes that the scheduler takes last, because the service keeps failing there. */
function explainFailingNodes(
  view: TablesView,
  { specVersion }: Service,
  tasks: readonly Task[],
  nowMs: number,
): Draft[] {
  const failures = tasks.filter((task) => task.specVersion === specVersion && isRecentFailure(task, nowMs));
  return [...Map.groupBy(failures, ({ nodeId }) => nodeId)]
    .filter(([, failed]) => failed.length >= NODE_FAILURES_MAX)
    .map(([nodeId, failed]) => ({
      subject: 'scheduler',
      depth: 1,
      text: `${view.node.get(nodeId)?.description.hostname ?? nodeId} is the last node to be chosen: ${failed.length} tasks failed there in the last minutes`,
    }));
}

/** No task is wanted although replicas are: the restart policy has come to its end. */
function explainFinished(service: Service, tasks: readonly Task[]): Draft[] {
  const ended = tasks.filter((task) => isTerminal(task.status.state));
  const last = ended.sort((a, b) => b.status.timestampMs - a.status.timestampMs)[0];
  if (last === undefined)
    return [{ ok: false, subject: 'orchestrator', depth: 1, text: 'its tasks are about to be created' }];
  const { condition, maxAttempts } = service.spec.task.restart;
  const policy =
    maxAttempts > 0 ? `condition ${condition}, at most ${maxAttempts} attempts` : `condition ${condition}`;
  return [
    {
      ok: false,
      subject: 'restart policy',
      depth: 1,
      text: `${titleOf(service, last)} ended (${last.status.state}${errorOf(last)}) and is not restarted: ${policy}`,
      remedy: `tsswarm service update --force ${service.spec.name}`,
    },
  ];
}
