// Tasks with all that a task may have, for property tests.

import fc from 'fast-check';
import { emptyPortConfig, emptyTask, type Task, type TaskStatus } from '../../core/generated/objects.ts';
import { TASK_STATES } from '../../core/task-state.ts';

/** More than a page of the table of tasks. */
export const anyTaskIds = Array.from({ length: 600 }, (_, number) => `task-${number}`);

const time = fc.constantFrom(0, 1, 1_700_000_000_000, Number.MAX_SAFE_INTEGER);
const text = fc.constantFrom('', 'started', 'no suitable node', 'ünïcödé');

const status: fc.Arbitrary<TaskStatus> = fc.record(
  {
    state: fc.constantFrom(...TASK_STATES),
    timestampMs: time,
    message: text,
    error: text,
    ports: fc.constantFrom(
      [],
      [{ ...emptyPortConfig, targetPort: 80, publishedPort: 30_000, publishMode: 'host' }],
    ),
    runningAtMs: time,
    files: fc.constantFrom([], [{ sourceId: 'secret', version: 3 }]),
    container: fc.record(
      {
        pid: fc.constantFrom(0, 4711, 2 ** 31 - 1),
        exitCode: fc.constantFrom(0, -1, 137),
      },
      { noNullPrototype: true },
    ),
  },
  {
    requiredKeys: ['state', 'timestampMs', 'message', 'error', 'ports', 'runningAtMs', 'files'],
    noNullPrototype: true,
  },
) as fc.Arbitrary<TaskStatus>;

export const anyTask: fc.Arbitrary<Task> = fc.record(
  {
    id: fc.constantFrom(...anyTaskIds),
    meta: fc.record({ version: fc.nat(), createdAtMs: time, updatedAtMs: time }, { noNullPrototype: true }),
    serviceId: fc.constantFrom('', 's1', 's2', 's3'),
    specVersion: fc.nat(),
    slot: fc.nat(),
    nodeId: fc.constantFrom('', 'n1', 'n2', 'n3'),
    status,
    desiredState: fc.constantFrom(...TASK_STATES),
    notBeforeMs: time,
    attachments: fc.constantFrom([], [{ networkId: 'net', addresses: ['10.0.0.2'] }]),
    eviction: text,
    genericResources: fc.constantFrom([], [{ kind: 'GPU', count: 1, names: ['g0'] }]),
    leavesLast: fc.boolean(),
  },
  {
    requiredKeys: Object.keys(emptyTask) as (keyof Task)[],
    noNullPrototype: true,
  },
);
