// A great many tasks, all different, as a large cluster has them.

import { emptyTask, type Task } from '../../core/generated/objects.ts';
import type { Store } from '../../manager/store/store.ts';

const BATCH = 20_000;

/** Creates `count` running tasks, numbered from `from`. */
export async function createTasks(store: Store, count: number, from = 0): Promise<void> {
  for (let done = 0; done < count; done += BATCH) {
    const size = Math.min(BATCH, count - done);
    await store.batch(
      Array.from({ length: size }, (_, position) => (tx) => tx.create('task', aTask(from + done + position))),
    );
  }
}

function aTask(number: number): Task {
  return {
    ...emptyTask,
    id: `task${String(number).padStart(21, '0')}`,
    serviceId: `service${String(number % 10_000).padStart(18, '0')}`,
    specVersion: 1,
    slot: number,
    nodeId: `node${String(number % 1_000).padStart(21, '0')}`,
    desiredState: 'running',
    status: { ...emptyTask.status, state: 'running', timestampMs: 1_700_000_000_000 },
  };
}
