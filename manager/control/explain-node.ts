// The part of `why` about a node: its state and since when, whether it takes tasks, how far its draining is, what keeps
// its tasks from running, and what waits for it. Pure.

import { defaultClusterSpec } from '../../core/defaults.ts';
import type { ClusterSpec, Node, Task } from '../../core/generated/objects.ts';
import { DOWN_PERIODS, giveUpsMax, orphanAfterMs, suspectAfterMs } from '../../core/node-silence.ts';
import { isTerminal, isWanted } from '../../core/task-state.ts';
import { withoutNode } from '../capacity/spare.ts';
import type { TablesView } from '../store/tables.ts';
import { ago, type Draft, explainTroubles, isTrouble, seconds, tasksText } from './explain-task.ts';

const LOOK_THERE =
  'see on that node that tsswarmd runs and reaches the managers: tsswarm doctor; journalctl -u tsswarmd';

export function explainNode(view: TablesView, node: Node, nowMs: number): Draft[] {
  const [cluster] = view.cluster.values();
  const spec = cluster?.spec ?? defaultClusterSpec;
  const tasks = view
    .tasksOnNode(node.id)
    .filter((task) => isWanted(task) && task.status.state !== 'complete');
  return [
    explainState(node, spec, view.node.size, nowMs),
    ...explainAvailability(view, node, nowMs),
    ...explainRole(node),
    ...explainTasks(view, node, tasks, spec, nowMs),
    ...explainSpare(view, node, nowMs),
  ];
}

function explainState(node: Node, spec: ClusterSpec, nodeCount: number, nowMs: number): Draft {
  const { state, message, sinceMs, held } = node.status;
  const since = sinceMs === 0 ? '' : ` since ${ago(sinceMs, nowMs)}`;
  const detail = message === '' ? '' : `: ${message}`;
  const text = `${nameOf(node)} is ${state}${since}${detail}`;
  const failed = (more: string, remedy: string): Draft => ({
    ok: false,
    subject: 'node',
    text: `${text}${more}`,
    remedy,
  });
  switch (state) {
    case 'ready':
      return { subject: 'node', text };
    case 'suspect': {
      const downMs = DOWN_PERIODS * spec.heartbeatPeriodMs - suspectAfterMs(spec);
      return failed(
        `; what it has runs on; it is down in ${seconds(Math.max(0, sinceMs + downMs - nowMs))} if nothing is heard of it`,
        LOOK_THERE,
      );
    }
    case 'down':
      return held
        ? failed(
            '',
            `bring nodes back; or allow more than ${giveUpsMax(spec, nodeCount)} a minute: tsswarm cluster update --reschedule-max 100; or "tsswarm node rm --force ${nameOf(node)}"`,
          )
        : failed(
            '; its tasks are replaced elsewhere',
            `${LOOK_THERE}; or remove it: tsswarm node rm ${nameOf(node)}`,
          );
    case 'unknown':
      return failed('; nodes get time to come back after a change of leader', LOOK_THERE);
    case 'disconnected':
      return failed('', LOOK_THERE);
  }
}

function explainAvailability(view: TablesView, node: Node, nowMs: number): Draft[] {
  const { availability, drainRate = 0, drainDeadlineMs = 0 } = node.spec;
  const remedy = `tsswarm node update --availability active ${nameOf(node)}`;
  if (availability === 'active') return [];
  if (availability === 'pause')
    return [
      {
        ok: false,
        subject: 'availability',
        text: 'it is paused: it keeps what it has and gets no new tasks',
        remedy,
      },
    ];
  const left = view.tasksOnNode(node.id).filter((task) => {
    const isLive = !isTerminal(task.status.state);
    return isLive && isAssigned(task);
  });
  const moving = left.filter((task) => task.eviction !== undefined || !isWanted(task));
  const { drainStartedAtMs = 0 } = node;
  const deadlineAtMs = drainStartedAtMs + drainDeadlineMs;
  const pace = drainRate === 0 ? 'all at once' : `${drainRate} at a time`;
  const until =
    nowMs < deadlineAtMs
      ? `${pace}; in ${seconds(deadlineAtMs - nowMs)} all that is left is stopped`
      : 'all at once';
  const began = drainStartedAtMs === 0 ? '' : ` since ${ago(drainStartedAtMs, nowMs)}`;
  return [
    {
      ok: left.length === 0,
      subject: 'availability',
      text: `it is being drained${began}: ${tasksText(left.length)} left, ${moving.length} of them on the way (${left.length === 0 ? 'done' : until})`,
      remedy,
    },
    ...explainTroubles(view, successorsOf(view, moving), nowMs),
  ];
}

/** Tasks that do not run yet and that others wait for. */
function successorsOf(view: TablesView, moving: readonly Task[]): Task[] {
  return moving.flatMap((task) =>
    view
      .tasksOfService(task.serviceId)
      .filter((other) => other.slot === task.slot && other.slot > 0 && other.id !== task.id)
      .filter((other) => isWanted(other) && other.status.state !== 'running'),
  );
}

function explainRole({ role, spec, roleMessage }: Node): Draft[] {
  if (role === spec.desiredRole) return [];
  return [
    {
      ok: false,
      subject: 'role',
      text: `it is a ${role} and is to become a ${spec.desiredRole}${roleMessage === '' ? '' : `: ${roleMessage}`}`,
    },
  ];
}

function explainTasks(
  view: TablesView,
  node: Node,
  tasks: readonly Task[],
  spec: ClusterSpec,
  nowMs: number,
): Draft[] {
  const running = tasks.filter(({ status }) => status.state === 'running').length;
  const heard = node.status.state === 'down' ? ' when it was heard last' : '';
  const text = `${running} of its ${tasksText(tasks.length)} running${heard}`;
  const steps: Draft[] = [{ subject: 'tasks', text }];
  if (node.status.state === 'down' && !node.status.held) {
    const left = view
      .tasksOnNode(node.id)
      .filter((task) => isAssigned(task) && !isTerminal(task.status.state));
    const atMs = node.status.sinceMs + orphanAfterMs(spec);
    if (left.length > 0)
      steps.push({
        ok: false,
        subject: 'tasks',
        text: `${tasksText(left.length)} may still run there, orphaned in ${seconds(Math.max(0, atMs - nowMs))}: their addresses are free then`,
        remedy: 'sooner: tsswarm cluster update --orphan-after, or remove the node',
      });
  }
  const bound = tasks.filter((task) => !isAssigned(task));
  const troubled = tasks.filter((task) => isAssigned(task) && isTrouble(task.status));
  return [...steps, ...explainTroubles(view, [...troubled, ...bound], nowMs)];
}

/** A warning, not a trouble: what would be if it died. */
function explainSpare(view: TablesView, node: Node, nowMs: number): Draft[] {
  if (node.status.state !== 'ready' || node.spec.availability === 'drain') return [];
  const names = withoutNode(view, node, { nowMs }).misfits.map(
    ({ serviceName, reason }) => `${serviceName} (${reason})`,
  );
  if (names.length === 0) return [];
  return [{ subject: 'capacity', text: `if it died, these services would not fit: ${names.join(', ')}` }];
}

function isAssigned({ status: { state } }: Task): boolean {
  return state !== 'new' && state !== 'pending';
}

function nameOf({ id, description }: Node): string {
  return description.hostname === '' ? id : description.hostname;
}
