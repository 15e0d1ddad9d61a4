// Finds the task that an operator means: by id, by a prefix of one, or by SERVICE.SLOT or SERVICE.NODE, of which it
// is the newest.

import { SwarmError } from '../../core/errors.ts';
import type { ServiceSpec, Task } from '../../core/generated/objects.ts';
import { taskName } from '../../core/task-name.ts';
import type { Control } from '../connection.ts';
import { readTasks, specOf } from './task-list.ts';

export interface FoundTask {
  readonly task: Task;
  /** What it was made from; undefined when nobody has that any more. */
  readonly spec: ServiceSpec | undefined;
}

/** Undefined when there is none. Throws `invalid-argument` when several match. */
export async function findTask(control: Control, name: string): Promise<FoundTask | undefined> {
  const named = /^(.+)\.([0-9a-z]+)$/.exec(name);
  const { services } = named === null ? { services: [] } : await control.listServices({});
  const owner = services.find(({ service }) => service.spec.name === named?.[1])?.service;
  const { tasks, specs } = await readTasks(control, owner === undefined ? {} : { serviceIds: [owner.id] });
  const matches = tasks.filter((task) =>
    owner === undefined ? task.id.startsWith(name) : taskName('', task) === `.${named?.[2]}`,
  );
  if (owner === undefined && matches.length > 1 && !matches.some(({ id }) => id === name))
    throw new SwarmError('invalid-argument', `task ${name} is ambiguous: ${matches.length} match`);
  const [task] = matches.sort((a, b) => b.meta.createdAtMs - a.meta.createdAtMs);
  return task && { task, spec: specOf(task, specs) };
}
