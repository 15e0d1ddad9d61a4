// The scheduler: how fast a million tasks find their nodes among ten thousand, in the planner alone, and how fast what it
// decided is committed by three managers. Then all of it from end to end, with a thousand agents.

import { execFileSync } from 'node:child_process';
import { pathToFileURL } from 'node:url';
import type { Task } from '../core/generated/objects.ts';
import { ClusterBook } from '../manager/placement/cluster-book.ts';
import { planGroup } from '../manager/placement/plan-placement.ts';
import { MANAGER_V8_FLAGS } from '../node/manager-process.ts';
import { aTask, NOW_MS, tablesOf } from '../test/support/builders.ts';
import { aDemandingSpec, rackedNodes, type SchedulingLoad } from '../test/support/demanding-services.ts';
import { RaftCluster } from '../test/support/raft-cluster.ts';
import { freePort } from '../test/support/real-registry.ts';
import { agentsRows } from './agents.ts';
import { heldForATask } from './held-memory.ts';
import type { BenchOptions } from './main.ts';
import { againstFloor, againstLimit, median, type Row } from './report.ts';

const NODES = 10_000;
const TASKS = 1_000_000;
const TASKS_QUICK = 200_000;
/** Services; their replicas make up the tasks. */
const SERVICES = [1, 1_000, 100_000];
const ROUNDS = 3;
const PLACEMENTS_MIN = 1_000_000;
/** Committed by managers: real processes with mutual TLS. */
const MEMBERS = 3;
const COMMITTED = { nodes: 1_000, services: 1_000, replicas: 200 };
const COMMITTED_QUICK = { ...COMMITTED, services: 200 };
const COMMITTED_MIN = 20_000;
/** For 1,000 tasks. */
const HELD_MB_MAX = 0.5;
const AGENTS = {
  agents: 1_000,
  services: 1_000,
  replicas: 200,
  updateSeconds: 30,
  more: { services: 800, replicas: 1_000 },
};
const AGENTS_QUICK = { agents: 100, services: 100, replicas: 100, updateSeconds: 3 };

/** Bars: a million placements a second, whatever the shape; 20,000 committed by three managers; those of `agentsRows`. */
export async function scheduleBench({ isQuick }: BenchOptions): Promise<Row[]> {
  const tasks = isQuick ? TASKS_QUICK : TASKS;
  const planned = SERVICES.map((shape) => {
    const services = isQuick ? Math.min(shape, tasks / 10) : shape;
    const rates = Array.from({ length: isQuick ? 1 : ROUNDS }, () => inAnotherProcess(services, tasks));
    const what = `planner alone, ${services} × ${tasks / services}`;
    return againstFloor(what, '/s', median(rates), PLACEMENTS_MIN);
  });
  const rate = await committedPerSecond(isQuick ? COMMITTED_QUICK : COMMITTED);
  const committed = againstFloor('committed by three managers', '/s', rate, COMMITTED_MIN);
  const heldMb = heldForATask(tasks / 5) / 1000;
  const held = againstLimit('memory of the tables for 1,000 tasks', 'MB', heldMb, HELD_MB_MAX);
  return [...planned, committed, held, ...(await agentsRows(isQuick ? AGENTS_QUICK : AGENTS))];
}

async function committedPerSecond(load: SchedulingLoad): Promise<number> {
  const ports = await Promise.all(Array.from({ length: MEMBERS }, () => freePort()));
  const addresses = ports.map((port) => `127.0.0.1:${port}`);
  await using cluster = await RaftCluster.start({ addresses, state: { hasStore: true } });
  const leader = await cluster.leader();
  const tookMs = await leader.request<number>({ op: 'schedule', load });
  return ((load.services * load.replicas) / tookMs) * 1000;
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

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  const [services, tasks] = process.argv.slice(2).map(Number);
  process.stdout.write(String(placementsPerSecond(services ?? 1, tasks ?? TASKS)));
}
