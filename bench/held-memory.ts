// How much memory a manager's tables hold for a task that runs, in a process of its own that collects its garbage first.

import { execFileSync } from 'node:child_process';
import { FakeClock } from '../core/clock.ts';
import { emptyTaskStatus, type Task } from '../core/generated/objects.ts';
import { Store } from '../manager/store/store.ts';
import { MANAGER_V8_FLAGS } from '../node/manager-process.ts';
import { createTasks, rackedNodes } from '../test/support/demanding-services.ts';
import { MemoryLog } from '../test/support/memory-log.ts';

const NODES = 1_000;
const REPLICAS = 200;

/** Bytes for each of so many tasks, on the heap and in buffers. */
export function heldForATask(tasks: number): number {
  const flags = [...process.execArgv, ...MANAGER_V8_FLAGS, '--expose-gc'];
  return Number(execFileSync(process.execPath, [...flags, import.meta.filename, String(tasks)]).toString());
}

async function measure(tasks: number): Promise<number> {
  const store = new Store(new MemoryLog(), new FakeClock());
  await store.open();
  const nodes = rackedNodes(NODES);
  await store.batch(nodes.map((node) => (tx) => tx.create('node', node)));
  const before = bytesUsed();
  await createTasks(store, { services: tasks / REPLICAS, replicas: REPLICAS });
  let number = 0;
  const nodeIds = nodes.map(({ id }) => id);
  await store.batch(
    [...store.view.task.values()].map((task) => {
      const nodeId = nodeIds[number++ % NODES] ?? '';
      return (tx) => tx.update('task', running(task, nodeId, number));
    }),
  );
  return (bytesUsed() - before) / store.view.task.size;
}

/** As its agent tells of it. */
function running(task: Task, nodeId: string, pid: number): Task {
  const timestampMs = 1_700_000_000_000 + pid;
  const container = { containerId: task.id, pid, exitCode: 0 };
  const told = {
    state: 'running',
    message: 'started',
    timestampMs,
    runningAtMs: timestampMs,
    container,
  } as const;
  return { ...task, nodeId, status: { ...emptyTaskStatus, ...told } };
}

function bytesUsed(): number {
  for (let round = 0; round < 2; round++) globalThis.gc?.();
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external;
}

if (process.argv[1] === import.meta.filename)
  process.stdout.write(String(await measure(Number(process.argv[2]))));
