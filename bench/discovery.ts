// How soon a container on one node hears that a task on another has died, or runs: from the kill, and from the moment
// that the agent says, to the first answer of the name server that knows. Part of the network bench; real nodes.

import { defined } from '../core/assert.ts';
import type { Task } from '../core/generated/objects.ts';
import { CallableProgram, Program } from '../test/network/lab.ts';
import { NetworkCluster } from '../test/support/network-cluster.ts';
import { untilRunning } from '../test/support/services.ts';
import type { BenchOptions } from './main.ts';
import { againstLimit, median, percentile, type Row } from './report.ts';

const TASKS = 6;
const ROUNDS = 30;
const ROUNDS_QUICK = 8;
const LIMIT_MS = 100;
const NAME = 'tasks.web';

/** Bar: answers change within 100 ms of a task's health. */
export async function discoveryBench({ isQuick }: BenchOptions): Promise<Row[]> {
  await using world = await NetworkCluster.start('tbd', 2);
  await world.createNetwork('front');
  const client = defined((await world.startEcho('client', { networks: ['front'] })).tasks[0], 'it runs');
  const { service } = await world.startEcho('web', {
    replicas: TASKS,
    networks: ['front'],
    change: ({ task, ...spec }) => ({
      ...spec,
      task: {
        ...task,
        restart: { ...task.restart, delayMs: 0 },
        placement: { ...task.placement, constraints: [`node.id!=${client.nodeId}`] },
      },
    }),
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
  await program.kill();
  return [
    againstLimit('a killed task is in no answer on another node', 'ms', median(goneMs), LIMIT_MS),
    againstLimit('the same, p95', 'ms', percentile(goneMs, 0.95), LIMIT_MS),
    againstLimit('a task that runs is in the answers there', 'ms', median(thereMs), LIMIT_MS),
    againstLimit('the same, p95', 'ms', percentile(thereMs, 0.95), LIMIT_MS),
  ];
}

function pidOf({ status }: Task): number {
  return defined(status.container, 'it runs').pid;
}
