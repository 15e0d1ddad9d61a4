// What operators do inside running tasks: finds the task, joins the operator with its agent, and writes down who did what.

import type { Clock } from '../../core/clock.ts';
import { messageOf, SwarmError } from '../../core/errors.ts';
import type { Task } from '../../core/generated/objects.ts';
import type { ReachInput, ReachOutput, ReachRequest } from '../../proto/generated/reach.ts';
import type { CallContext } from '../../rpc/server.ts';
import { auditLog } from '../log.ts';
import type { ReachBroker } from '../reach-broker.ts';
import type { TablesView } from '../store/tables.ts';
import { findRunningTask } from './find.ts';
import { validateReach } from './validate-reach.ts';

interface ReachOptions {
  readonly store: { readonly view: TablesView };
  readonly clock: Clock;
  readonly reach: ReachBroker;
}

/** Throws `not-found` and `failed-precondition` for tasks that are not there or do not run. */
export async function* reach(
  options: ReachOptions,
  inputs: AsyncIterable<ReachInput>,
  context: CallContext,
): AsyncIterable<ReachOutput> {
  const incoming = inputs[Symbol.asyncIterator]();
  const first = await incoming.next();
  const request = first.done ? undefined : first.value.request;
  if (request === undefined) throw new SwarmError('invalid-argument', 'reach begins with "request"');
  validateReach(request);
  const task = findRunningTask(options.store.view, request.task);
  const audit = begin(options, task, request, context);
  const rest = { [Symbol.asyncIterator]: () => incoming };
  try {
    for await (const output of options.reach.open(
      task.nodeId,
      { ...request, task: task.id },
      rest,
      context.signal,
    )) {
      if (output.ended !== undefined) audit.note(output.ended);
      yield output;
    }
  } catch (error) {
    audit.note({ error: messageOf(error) });
    throw error;
  } finally {
    audit.close();
  }
}

interface Ending {
  readonly exitCode?: number;
  readonly error?: string;
}

/** One line in the manager's log when it begins and one when it has ended. */
function begin(
  { store, clock }: ReachOptions,
  task: Task,
  request: ReachRequest,
  { caller, isForwarded }: CallContext,
): { note(ending: Ending): void; close(): void } {
  const startedMs = clock.nowMs();
  const what = {
    'caller.role': isForwarded ? 'manager' : caller.role,
    'caller.node.id': caller.nodeId,
    ...(caller.userId !== undefined && { 'caller.uid': caller.userId }),
    'task.id': task.id,
    'service.name': store.view.service.get(task.serviceId)?.spec.name ?? task.serviceId,
    slot: task.slot,
    'node.id': task.nodeId,
    ...describe(request),
  };
  auditLog.info(what, 'an operator reaches into a task');
  let ending: Ending = { error: 'the operator has left' };
  return {
    note: (noted) => {
      ending = noted;
    },
    close: () => {
      const { exitCode, error } = ending;
      auditLog.info(
        {
          ...what,
          'duration.ms': clock.nowMs() - startedMs,
          ...(exitCode !== undefined && { 'exit.code': exitCode }),
          ...(error && { error }),
        },
        'an operator has left a task',
      );
    },
  };
}

/** Without environment variables: they may be secrets. */
function describe({ exec, attach, top }: ReachRequest): object {
  if (exec === undefined)
    return { action: attach !== undefined ? 'attach' : top !== undefined ? 'top' : 'stats' };
  const { command, user, privileged, tty, detach } = exec;
  return { action: 'exec', command, privileged, tty, detach, ...(user !== '' && { user }) };
}
