// The scheduler: how fast a million tasks find their nodes among ten thousand, in the planner alone, and how fast what it
// decided is committed by three managers.

import { execFileSync } from 'node:child_process';
import { pathToFileURL } from 'node:url';
import { newServiceSpec } from '../core/defaults.ts';
import type { Node, ServiceSpec, Task } from '../core/generated/objects.ts';
import { ClusterBook } from '../manager/scheduler/cluster-book.ts';
import { planGroup } from '../manager/scheduler/plan-placement.ts';
import { MANAGER_V8_FLAGS } from '../node/manager-process.ts';
import { aNode, aTask, NOW_MS, tablesOf } from '../test/support/builders.ts';
import type { BenchOptions } from './main.ts';
import { againstFloor, median, type Row } from './report.ts';

const NODES = 10_000;
const TASKS = 1_000_000;
const TASKS_QUICK = 200_000;
/** Services; their replicas make up the tasks. */
const SERVICES = [1, 1_000, 100_000];
const RACKS = 50;
const ROUNDS = 3;
const PLACEMENTS_MIN = 1_000_000;

/** Bar: a million placements a second, whatever the shape. */
export async function scheduleBench({ isQuick }: BenchOptions): Promise<Row[]> {
  const tasks = isQuick ? TASKS_QUICK : TASKS;
  return SERVICES.map((shape) => {
    const services = isQuick ? Math.min(shape, tasks / 10) : shape;
    const rates = Array.from({ length: isQuick ? 1 : ROUNDS }, () => inAnotherProcess(services, tasks));
    const what = `planner alone, ${services} × ${tasks / services}`;
    return againstFloor(what, '/s', median(rates), PLACEMENTS_MIN);
  });
}

/** With nothing left of another round, and with as little memory for new objects as a manager has. */
function inAnotherProcess(services: number, tasks: number): number {
  const program = [...process.execArgv, ...MANAGER_V8_FLAGS, import.meta.filename];
  const output = execFileSync(process.execPath, [...program, String(services), String(tasks)]);
  return Number(output.toString());
}

function placementsPerSecond(services: number, tasks: number): number {
  const book = ClusterBook.of(tablesOf([], [], rackedNodes(NODES)));
  const replicas = tasks / services;
  const prototype = aTask('s', { nodeId: '', state: 'pending' });
  const list: Task[] = Array.from({ length: tasks }, (_, at) => ({ ...prototype, id: `task-${at}` }));
  const groups = Array.from({ length: services }, (_, at) => ({
    serviceId: `service-${at}`,
    specVersion: 1,
    spec: aDemandingSpec(`service-${at}`),
    nodeId: '',
    tasks: list.slice(at * replicas, (at + 1) * replicas),
  }));
  const startedMs = performance.now();
  let placed = 0;
  for (const group of groups) placed += planGroup(group, book, NOW_MS).assign.length;
  const seconds = (performance.now() - startedMs) / 1000;
  if (placed !== tasks) throw new Error(`${tasks - placed} tasks found no node`);
  checkSpread(book, tasks);
  return tasks / seconds;
}

/** What is fast and wrong is not fast. */
function checkSpread(book: ClusterBook, tasks: number): void {
  const counts = book.nodes.filter(({ taskCount }) => taskCount > 0).map(({ taskCount }) => taskCount);
  const eligible = NODES / 2;
  const [least, most] = [Math.min(...counts), Math.max(...counts)];
  if (counts.length !== Math.min(eligible, tasks) || most - least > 1)
    throw new Error(`${counts.length} nodes have from ${least} to ${most} tasks`);
}

/** Half of them have what services ask for. */
function rackedNodes(count: number): Node[] {
  return Array.from({ length: count }, (_, at) =>
    aNode(`node-${String(at).padStart(5, '0')}`, {
      cpus: 1_000,
      memoryBytes: 2 ** 50,
      labels: { disk: at % 2 === 0 ? 'ssd' : 'hdd', rack: `r${(at >> 1) % RACKS}`, zone: 'a' },
    }),
  );
}

/** With resources, two constraints and a preference. */
function aDemandingSpec(name: string): ServiceSpec {
  const spec = newServiceSpec(name, { image: 'busybox' });
  const reservations = { cpuNanos: 1e8, memoryBytes: 2 ** 26 };
  const constraints = ['node.labels.disk==ssd', 'node.role==worker'];
  return {
    ...spec,
    task: {
      ...spec.task,
      resources: { ...spec.task.resources, reservations },
      placement: { ...spec.task.placement, constraints, preferences: ['spread=node.labels.rack'] },
    },
  };
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  const [services, tasks] = process.argv.slice(2).map(Number);
  process.stdout.write(String(placementsPerSecond(services ?? 1, tasks ?? TASKS)));
}
