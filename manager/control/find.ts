// Finds what an operator means: by id, name, or a prefix of an id that only one object has.

import { SwarmError } from '../../core/errors.ts';
import type { Config, Network, Node, Secret, Service, Task } from '../../core/generated/objects.ts';
import { taskName } from '../../core/task-name.ts';
import type { TablesView } from '../store/tables.ts';

/** Throws `not-found`, or `invalid-argument` when several services match. */
export function findService(view: TablesView, reference: string): Service {
  const exact = view.service.get(reference) ?? view.byName('service', reference);
  return exact ?? onlyMatch('service', reference, byPrefix(view.service.values(), reference));
}

/** Throws `not-found`, or `invalid-argument` when several networks match. */
export function findNetwork(view: TablesView, reference: string): Network {
  const exact = view.network.get(reference) ?? view.byName('network', reference);
  return exact ?? onlyMatch('network', reference, byPrefix(view.network.values(), reference));
}

/** Throws `not-found`, or `invalid-argument` when several match. */
export function findPayloadSource(
  view: TablesView,
  kind: 'secret' | 'config',
  reference: string,
): Secret | Config {
  const exact = view[kind].get(reference) ?? view.byName(kind, reference);
  return exact ?? onlyMatch(kind, reference, byPrefix<Secret | Config>(view[kind].values(), reference));
}

/** By id, host name or prefix. */
export function findNode(view: TablesView, reference: string): Node {
  const exact = view.node.get(reference);
  if (exact !== undefined) return exact;
  const named = [...view.node.values()].filter((node) => node.description.hostname === reference);
  return onlyMatch('node', reference, named.length > 0 ? named : byPrefix(view.node.values(), reference));
}

/** By id, prefix, SERVICE.SLOT or SERVICE.SLOT.ID, with the node's id for the slot where that is it; undefined when nothing matches. */
export function findTask(view: TablesView, reference: string): Task | undefined {
  const exact = view.task.get(reference);
  if (exact !== undefined) return exact;
  const named = /^(.+?)\.([0-9a-z]+)(?:\.([0-9a-z]+))?$/.exec(reference);
  const service = named && view.byName('service', named[1] ?? '');
  if (named && service) {
    const ofSlot = view.tasksOfService(service.id).filter((task) => isOfSlot(task, named[2]));
    const matching = ofSlot.filter((task) => task.id.startsWith(named[3] ?? ''));
    return matching.sort((a, b) => b.meta.createdAtMs - a.meta.createdAtMs)[0];
  }
  const matches = byPrefix(view.task.values(), reference);
  return matches.length === 0 ? undefined : onlyMatch('task', reference, matches);
}

/**
 * The task that runs, by what `findTask` takes, or by a service that has one only. Throws `not-found`, and
 * `failed-precondition` when it does not run.
 */
export function findRunningTask(view: TablesView, reference: string): Task {
  const isRunning = ({ status }: Task) => status.state === 'running';
  const slot = /^(.+)\.([0-9a-z]+)$/.exec(reference);
  const service = view.byName('service', slot?.[1] ?? reference) ?? view.service.get(reference);
  if (service !== undefined && view.task.get(reference) === undefined) {
    const running = view
      .tasksOfService(service.id)
      .filter((task) => isRunning(task) && (slot === null || isOfSlot(task, slot[2])))
      .sort((a, b) => b.meta.createdAtMs - a.meta.createdAtMs);
    const [task] = running;
    if (task === undefined)
      throw new SwarmError('failed-precondition', `no task of ${reference} is running`, {
        hint: `Run "tsswarm why ${service.spec.name}" to see what is in the way.`,
      });
    if (slot === null && running.length > 1)
      throw new SwarmError('invalid-argument', `service ${reference} has ${running.length} running tasks`, {
        hint: `Name one of them, such as ${taskName(service.spec.name, task)}.`,
      });
    return task;
  }
  const task = findTask(view, reference);
  if (task === undefined) throw new SwarmError('not-found', `task ${reference} not found`);
  if (!isRunning(task))
    throw new SwarmError(
      'failed-precondition',
      `task ${reference} is not running: it is ${task.status.state}`,
    );
  return task;
}

/** By the slot's number, or the id of the node that is the slot. */
function isOfSlot(task: Task, text: string | undefined): boolean {
  return taskName('', task) === `.${text}`;
}

function byPrefix<T extends { readonly id: string }>(objects: Iterable<T>, prefix: string): T[] {
  if (prefix === '') return [];
  return [...objects].filter(({ id }) => id.startsWith(prefix));
}

function onlyMatch<T>(kind: string, reference: string, matches: readonly T[]): T {
  const [match] = matches;
  if (match === undefined) throw new SwarmError('not-found', `${kind} ${reference} not found`);
  if (matches.length > 1)
    throw new SwarmError('invalid-argument', `${kind} ${reference} is ambiguous: ${matches.length} match`);
  return match;
}
