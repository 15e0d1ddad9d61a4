// How soon a container on one node hears that a task on another has died, or runs: from the kill, and from the moment
// that the agent says, to the first answer of the name server that knows. Part of the network bench; real nodes.

import { setTimeout as delay } from 'node:timers/promises';
import { defined } from '../core/assert.ts';
import type { ServiceSpec, Task } from '../core/generated/objects.ts';
import { CallableProgram, Program } from '../test/network/lab.ts';
import { NetworkCluster } from '../test/support/network-cluster.ts';
import { untilRunning } from '../test/support/services.ts';
import type { BenchOptions } from './main.ts';
import { againstLimit, median, percentile, type Row } from './report.ts';

const TASKS = 6;
const ROUNDS = 30;
const ROUNDS_QUICK = 8;
const LIMIT_MS = 100;
/** Swarm's: with less, tasks beyond a cut of seconds would be replaced. */
const HEARTBEAT_PERIOD_MS = 5_000;
const CUTS_MS = [1_000, 9_000, 1_500, 4_000, 2_000, 6_000, 2_600];
const HEALED_LIMIT_MS = 1_000;
const NAME = 'tasks.web';

/** Bars: answers change within 100 ms of a task's health, and are right within a second after a cut has healed. */
export async function discoveryBench({ isQuick }: BenchOptions): Promise<Row[]> {
  await using world = await NetworkCluster.start('tbd', 2, { heartbeatPeriodMs: HEARTBEAT_PERIOD_MS });
  await world.createNetwork('front');
  const managerId = await world.nodeId(0);
  const started = await world.startEcho('client', { networks: ['front'], change: placed(`!=${managerId}`) });
  const client = defined(started.tasks[0], 'it runs');
  const { service } = await world.startEcho('web', {
    replicas: TASKS,
    networks: ['front'],
    change: placed(`==${managerId}`),
  });
  const program = new Program(`/proc/${pidOf(client)}/ns/net`, 'name-watch.ts', []);
  await program.line();
  const watch = new CallableProgram(program);
  const until = (count: number) => watch.call<number>('untilCount', { name: NAME, count });
  const goneMs: number[] = [];
  const thereMs: number[] = [];
  let running = await untilRunning(world.manager, service.id, TASKS);
  for (let round = 0; round < (isQuick ? ROUNDS_QUICK : ROUNDS); round++) {
    await until(TASKS);
    const victim = defined(running[0], 'some run');
    const killedAtMs = Date.now();
    process.kill(pidOf(victim), 'SIGKILL');
    goneMs.push((await until(TASKS - 1)) - killedAtMs);
    const backAtMs = await until(TASKS);
    running = await untilRunning(world.manager, service.id, TASKS);
    thereMs.push(backAtMs - Math.max(...running.map(({ status }) => status.runningAtMs)));
  }
  const healedMs = await measureCuts(world, until, isQuick ? CUTS_MS.slice(0, 2) : CUTS_MS);
  await program.kill();
  return [
    againstLimit('answers are right after a cut', 'ms', median(healedMs), HEALED_LIMIT_MS),
    againstLimit('the same, worst', 'ms', Math.max(...healedMs), HEALED_LIMIT_MS),
    againstLimit('a killed task is in no answer on another node', 'ms', median(goneMs), LIMIT_MS),
    againstLimit('the same, p95', 'ms', percentile(goneMs, 0.95), LIMIT_MS),
    againstLimit('a task that runs is in the answers there', 'ms', median(thereMs), LIMIT_MS),
    againstLimit('the same, p95', 'ms', percentile(thereMs, 0.95), LIMIT_MS),
  ];
}

function placed(constraint: string): (spec: ServiceSpec) => ServiceSpec {
  return ({ task, ...spec }) => ({
    ...spec,
    task: {
      ...task,
      restart: { ...task.restart, delayMs: 0 },
      placement: { ...task.placement, constraints: [`node.id${constraint}`] },
    },
  });
}

/** Milliseconds from the end of each cut to the right answer: a service was scaled meanwhile. */
async function measureCuts(
  world: NetworkCluster,
  until: (count: number) => Promise<number>,
  cutsMs: readonly number[],
): Promise<number[]> {
  const healedMs: number[] = [];
  for (const [round, cutMs] of cutsMs.entries()) {
    const replicas = TASKS - 1 - (round % 2);
    world.cluster.lan.cut(1, [0]);
    await world.update('web', (spec) => ({ ...spec, mode: { replicated: { replicas } } }));
    await delay(cutMs);
    world.cluster.lan.heal();
    const atMs = Date.now();
    healedMs.push((await until(replicas)) - atMs);
  }
  return healedMs;
}

function pidOf({ status }: Task): number {
  return defined(status.container, 'it runs').pid;
}
