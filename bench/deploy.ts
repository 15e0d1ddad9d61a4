// How long 50 containers take to come and go, what an idle node holds, and how quick the command line answers: next
// to Docker Swarm with the same image on the same machine, alternating.

import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { buildDemoImage } from '../deploy/demo-image.ts';
import { eventually } from '../test/support/eventually.ts';
import { RealNode, whyNoRealNode } from '../test/support/real-node.ts';
import { Docker } from './docker.ts';
import type { BenchOptions } from './main.ts';
import { againstLimit, againstPeer, median, type Row } from './report.ts';

const REPLICAS = 50;
const IMAGE = 'bench:1';
/** Ends on TERM at once, as a well-behaved service does. */
const COMMAND = ['sh', '-c', 'trap "exit 0" TERM; while :; do sleep 1000 & wait $!; done'];
const ROUNDS = 5;
const ROUNDS_QUICK = 2;
const LIST_RUNS = 15;
const LIMIT_MS = 120_000;
// Slow enough not to take part in the race for two cores.
const POLL_MS = 40;

interface Timings {
  readonly up: number[];
  readonly down: number[];
}

interface Race {
  readonly ours: Timings;
  readonly theirs: Timings;
}

/** Bars: deploy and removal at most a quarter of Swarm's time, on an overlay a sixth; idle memory at most its, `service ls` within 100 ms. */
export async function deployBench({ isQuick }: BenchOptions): Promise<Row[]> {
  const missing = whyNoRealNode();
  if (missing !== undefined) throw new Error(`the bench ${missing}`);
  const image = await buildDemoImage({ name: IMAGE });
  await using node = await RealNode.start();
  await node.init();
  await node.importImage(image.archive);
  await using docker = await Docker.startSwarm();
  await docker.import(image, IMAGE);

  const memory = pssMb(await nodePids(node));
  const dockerMemory = pssMb(docker.pids());
  const rounds = isQuick ? ROUNDS_QUICK : ROUNDS;
  const plain = await race(node, docker, rounds, []);
  const created = await node.cli('network', 'create', '--driver', 'overlay', 'bench');
  if (created.code !== 0) throw new Error(created.stderr);
  await docker.docker('network', 'create', '--driver', 'overlay', 'bench');
  const overlay = await race(node, docker, rounds, ['--network', 'bench']);
  const list = await timeCommand(() => node.cli('service', 'ls'));
  const dockerList = await timeCommand(() => docker.docker('service', 'ls'));
  return [
    againstPeer(`${REPLICAS} containers up`, 's', ...medians(plain, 'up'), 0.25),
    againstPeer(`${REPLICAS} containers gone`, 's', ...medians(plain, 'down'), 0.25),
    againstPeer(`${REPLICAS} up on an overlay`, 's', ...medians(overlay, 'up'), 1 / 6),
    againstPeer(`${REPLICAS} gone from an overlay`, 's', ...medians(overlay, 'down'), 1 / 6),
    againstPeer('idle memory (PSS of daemons)', 'MB', memory, dockerMemory, 1),
    againstPeer('memory after the rounds', 'MB', pssMb(await nodePids(node)), pssMb(docker.pids()), 1),
    againstLimit('service ls, whole process', 'ms', list, 100, dockerList),
  ];
}

/** In turns, so that whatever disturbs the machine disturbs both. */
async function race(node: RealNode, docker: Docker, rounds: number, flags: readonly string[]): Promise<Race> {
  const ours: Timings = { up: [], down: [] };
  const theirs: Timings = { up: [], down: [] };
  for (let round = 1; round <= rounds; round++) {
    await deployOnTsswarm(node, ours, flags);
    await deployOnDocker(docker, theirs, flags);
    process.stderr.write(
      `round ${round} ${flags.join(' ')}: tsswarm ${describe(ours)}, docker ${describe(theirs)}\n`,
    );
  }
  return { ours, theirs };
}

function medians({ ours, theirs }: Race, what: keyof Timings): [ours: number, theirs: number] {
  return [median(ours[what]), median(theirs[what])];
}

async function deployOnTsswarm(node: RealNode, timings: Timings, flags: readonly string[]): Promise<void> {
  const startedMs = performance.now();
  const created = await node.cli(
    'service',
    'create',
    '--detach',
    '--no-resolve-image',
    '--name',
    'bench',
    '--replicas',
    String(REPLICAS),
    ...flags,
    IMAGE,
    ...COMMAND,
  );
  if (created.code !== 0) throw new Error(created.stderr);
  await untilAllRun(node);
  timings.up.push((performance.now() - startedMs) / 1000);
  const removedMs = performance.now();
  const removed = await node.cli('service', 'rm', 'bench');
  if (removed.code !== 0) throw new Error(removed.stderr);
  await node.untilEmpty(LIMIT_MS, POLL_MS);
  timings.down.push((performance.now() - removedMs) / 1000);
}

/** Hears of it when it happens; Docker has no such stream for tasks and is asked every 40 ms. */
async function untilAllRun(node: RealNode): Promise<void> {
  const { service } = await node.control.getService({ service: 'bench' });
  const running = new Set<string>();
  for await (const { tasks } of node.control.watchService(
    { serviceId: service.id },
    { timeoutMs: LIMIT_MS },
  )) {
    for (const { id, status } of tasks) if (status.state === 'running') running.add(id);
    if (running.size >= REPLICAS) return;
  }
}

async function deployOnDocker(docker: Docker, timings: Timings, flags: readonly string[]): Promise<void> {
  const startedMs = performance.now();
  await docker.docker(
    'service',
    'create',
    '--detach',
    '--no-resolve-image',
    '--name',
    'bench',
    '--replicas',
    String(REPLICAS),
    ...flags,
    IMAGE,
    ...COMMAND,
  );
  await eventually(async () => (await docker.runningTasks()) === REPLICAS, LIMIT_MS, POLL_MS);
  timings.up.push((performance.now() - startedMs) / 1000);
  const removedMs = performance.now();
  await docker.docker('service', 'rm', 'bench');
  await eventually(() => docker.isEmpty(), LIMIT_MS, POLL_MS);
  timings.down.push((performance.now() - removedMs) / 1000);
}

/** Daemon, manager and containerd: what runs without any service. */
async function nodePids(node: RealNode): Promise<number[]> {
  const children = execFileSync('ps', ['-o', 'pid=', '--ppid', String(node.daemonPid)], { encoding: 'utf8' });
  return [
    ...new Set([node.daemonPid, ...children.trim().split(/\s+/).map(Number), await node.containerdPid()]),
  ];
}

/** Proportional set size: memory shared between processes counts once. */
function pssMb(pids: readonly number[]): number {
  return pids
    .map(
      (pid) => Number(/^Pss:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8'))?.[1]) / 1024,
    )
    .reduce((sum, value) => sum + value, 0);
}

async function timeCommand(command: () => Promise<unknown>): Promise<number> {
  const times: number[] = [];
  for (let attempt = 0; attempt < LIST_RUNS; attempt++) {
    const startedMs = performance.now();
    await command();
    times.push(performance.now() - startedMs);
  }
  return median(times);
}

function describe({ up, down }: Timings): string {
  return `${up.at(-1)?.toFixed(2)} s up, ${down.at(-1)?.toFixed(2)} s down`;
}
