// `service logs`: collects the lines of the tasks asked for, and with follow those of tasks that come later.

import type { Task } from '../../core/generated/objects.ts';
import { isPlaced } from '../../core/task-state.ts';
import type { ServiceLogsRequest, ServiceLogsResponse } from '../../proto/generated/control.ts';
import type { LogBroker, LogReader } from '../log-broker.ts';
import type { Store } from '../store/store.ts';

/** Ends when every task's lines are sent; with follow when the signal aborts. */
export async function* serviceLogs(
  store: Store,
  broker: LogBroker,
  request: ServiceLogsRequest,
  signal: AbortSignal,
): AsyncIterable<ServiceLogsResponse> {
  const reader = broker.subscribe(
    request.options,
    request.resumed ? new Map(Object.entries(request.after)) : undefined,
  );
  const onAbort = () => reader.close();
  signal.addEventListener('abort', onAbort);
  const asked = new Map<string, Task>();
  const isSelected = (task: Task) =>
    request.taskIds.includes(task.id) || request.serviceIds.includes(task.serviceId);
  const selected = [...store.view.task.values()].filter(isSelected);
  // Of these the reader wants as much as he said, of others all that they will say.
  const early = new Set(selected.map(({ id }) => id));
  const unsubscribe = request.options.follow
    ? store.subscribe(({ decisive }) => {
        for (const { kind, object } of decisive)
          if (kind === 'task' && isSelected(object as Task))
            askFor([object as Task], { reader, asked, isNew: !early.has(object.id) });
      })
    : () => {};
  try {
    const { tasks, warnings } = askFor(selected, { reader, asked, isNew: false });
    const known = new Set(tasks.map(({ id }) => id));
    // Who goes on knows already; right after a change of leaders many nodes have no session yet.
    yield { lines: [], warnings: request.resumed ? [] : warnings, tasks };
    if (!request.options.follow) reader.complete();
    for await (const lines of reader) {
      const named = [...new Set(lines.map(({ taskId }) => taskId))].map((id) => asked.get(id));
      const told = named.filter((task) => task !== undefined && !known.has(task.id)) as Task[];
      for (const { id } of told) known.add(id);
      yield { lines, warnings: reader.takeWarnings(), tasks: told };
    }
    const late = reader.takeWarnings();
    if (late.length > 0) yield { lines: [], warnings: late, tasks: [] };
  } finally {
    unsubscribe();
    signal.removeEventListener('abort', onAbort);
    reader.close();
  }
}

/** Announces the tasks that have a node and were not announced before. */
function askFor(
  tasks: readonly Task[],
  { reader, asked, isNew }: { reader: LogReader; asked: Map<string, Task>; isNew: boolean },
): { tasks: Task[]; warnings: string[] } {
  const fresh = tasks.filter(
    ({ id, nodeId, status }) => !asked.has(id) && nodeId !== '' && isPlaced(status.state),
  );
  for (const task of fresh) asked.set(task.id, task);
  const byNode = Map.groupBy(fresh, ({ nodeId }) => nodeId);
  const reached: Task[] = [];
  const warnings: string[] = [];
  for (const [nodeId, group] of byNode) {
    const isReached = reader.add(
      nodeId,
      group.map(({ id }) => id),
      { isNew },
    );
    if (isReached) reached.push(...group);
    else
      warnings.push(
        `incomplete: node ${nodeId} is not connected; the lines of ${group.length} tasks are missing`,
      );
  }
  return { tasks: reached, warnings };
}
