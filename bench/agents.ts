// A cluster as it is used: three managers as their daemons run them, a thousand simulated agents on streams of their own.
// From the creation of services to the last task that runs, then news of tasks, then lists of everything, and meanwhile how
// long the leader takes for a call that reads nothing, which waits for its event loop.

import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { defined } from '../core/assert.ts';
import { defaultClusterSpec } from '../core/defaults.ts';
import { aDemandingSpec, rackLabels } from '../test/support/demanding-services.ts';
import { cpuMs, managerPidOf, statusKib } from '../test/support/process-status.ts';
import { RealCluster } from '../test/support/real-cluster.ts';
import type { RealNode } from '../test/support/real-node.ts';
import { SimulatedAgents } from '../test/support/simulated-agents.ts';
import { Pings, type PingTimes } from './pings.ts';
import { againstFloor, againstLimit, percentile, type Row } from './report.ts';

const MANAGERS = 3;
const CREATIONS_AT_ONCE = 16;
const POLL_MS = 20;
const MB = 2 ** 20;

interface Services {
  readonly services: number;
  readonly replicas: number;
}

export interface AgentsLoad extends Services {
  readonly agents: number;
  readonly updateSeconds: number;
  /** What comes at the end, for the leader's memory of many more tasks. */
  readonly more?: Services;
}

const TASKS_PER_BATCH = 20;
const RUNNING_MIN = 10_000;
const UPDATES_MIN = 30_000;
/** A second: a little more than has to be stored. */
const UPDATES_ASKED = 31_000;
/** How often everything is listed. */
const LISTS = 3;
/** Services that somebody watches. */
const WATCHED = 10;
const UPDATE_P99_MAX_MS = 250;
const LOOP_P999_MAX_MS = 20;
const LOOP_WORST_MAX_MS = 100;
/** For 1,000 tasks. */
const MEMORY_MAX_MB = 0.5;

/** Bars: RUNNING from end to end, durable news of tasks, what the leader's event loop bears. */
export async function agentsRows(load: AgentsLoad): Promise<Row[]> {
  await using cluster = await RealCluster.start('bsa', MANAGERS, { otherHosts: 1 });
  // As clusters have it that nobody has said anything to.
  await cluster.init({ heartbeatPeriodMs: defaultClusterSpec.heartbeatPeriodMs });
  for (let position = 1; position < MANAGERS; position++) await cluster.join(position, 'manager');
  const leader = cluster.node(0);
  const tokens = await leader.control.getJoinTokens({});
  await using agents = await SimulatedAgents.start(defined(cluster.lan.hosts[MANAGERS], 'a host'), {
    token: tokens.worker,
    managers: tokens.addresses,
    labels: rackLabels(load.agents),
  });
  const idleMb = managerMb(leader);
  using pings = new Pings(path.join(leader.runDir, 'manager.sock'));
  const tasks = load.services * load.replicas;
  const meter = new Meter(cluster, agents);
  const { perSecond, serviceIds } = await deploy(leader, agents, load, tasks);
  const perTask = meter.micros(tasks);
  const deployed = await pings.take();
  const usedMb = managerMb(leader) - idleMb;
  const updates = await sendNews(leader, agents, { ...load, watched: serviceIds.slice(0, WATCHED) });
  const perNews = meter.micros(updates.count);
  await listEverything(leader, tasks);
  const updated = await pings.take();
  const memory = [memoryRow(tasks, usedMb)];
  if (load.more !== undefined) {
    const all = tasks + load.more.services * load.more.replicas;
    await deploy(leader, agents, load.more, all);
    memory.push(memoryRow(all, managerMb(leader) - idleMb));
  }
  const what = `${load.services} × ${load.replicas} tasks on ${load.agents} agents`;
  return [
    againstFloor(`${what}, created and RUNNING`, '/s', perSecond, RUNNING_MIN),
    ...cpuRows('a task', perTask),
    againstFloor('news of tasks, stored', '/s', updates.perSecond, UPDATES_MIN),
    ...cpuRows('a piece of news', perNews),
    againstLimit(
      'from the agent to a watcher, p99',
      'ms',
      percentile(updates.latenciesMs, 99),
      UPDATE_P99_MAX_MS,
    ),
    ...loopRows('while tasks start', deployed),
    ...loopRows('while news comes, everything is listed and backed up', updated),
    ...memory,
  ];
}

function loopRows(when: string, { managerMs, idleMs }: PingTimes): Row[] {
  const p999 = (times: readonly number[]) => percentile(times, 99.9);
  const what = `a call that waits for the leader's event loop ${when}`;
  return [
    // The peer is a process that has nothing to do but to answer.
    againstLimit(`${what}, p99.9`, 'ms', p999(managerMs), LOOP_P999_MAX_MS, p999(idleMs)),
    againstLimit('the same, worst', 'ms', Math.max(...managerMs), LOOP_WORST_MAX_MS, Math.max(...idleMs)),
  ];
}

/** What a process has besides its tasks is a smaller part of it the more there are. */
function memoryRow(tasks: number, usedMb: number): Row {
  return againstLimit(
    `memory of the leader for 1,000 of ${tasks} tasks`,
    'MB',
    usedMb / (tasks / 1000),
    MEMORY_MAX_MB,
  );
}

interface Deployed {
  /** Tasks, from the first call until the last RUNNING is stored. */
  readonly perSecond: number;
  readonly serviceIds: readonly string[];
}

/** Until so many tasks run, with those that were there before. */
async function deploy(
  leader: RealNode,
  agents: SimulatedAgents,
  load: Services,
  running: number,
): Promise<Deployed> {
  const tasks = load.services * load.replicas;
  const startedMs = performance.now();
  const serviceIds: string[] = [];
  let next = 0;
  const creator = async () => {
    while (next < load.services) {
      const spec = {
        ...aDemandingSpec(`service-${running}-${next++}`),
        mode: { replicated: { replicas: load.replicas } },
      };
      const { service } = await leader.control.createService({ spec });
      serviceIds.push(service.id);
    }
  };
  await Promise.all(Array.from({ length: CREATIONS_AT_ONCE }, creator));
  while ((await agents.counts()).running < running) await delay(POLL_MS);
  return { perSecond: tasks / ((performance.now() - startedMs) / 1000), serviceIds };
}

interface News {
  readonly perSecond: number;
  readonly count: number;
  readonly latenciesMs: readonly number[];
}

/** As much of it as is asked for, and how long some of it takes to those who watch services, as the command line does. */
async function sendNews(
  leader: RealNode,
  agents: SimulatedAgents,
  { updateSeconds: seconds, watched }: AgentsLoad & { readonly watched: readonly string[] },
): Promise<News> {
  const over = new AbortController();
  const latenciesMs: number[] = [];
  const watch = async (serviceId: string) => {
    const changes = leader.control.watchService({ serviceId }, { signal: over.signal });
    let isFirst = true;
    for await (const { tasks } of changes) {
      const nowMs = Date.now();
      if (!isFirst) for (const { status } of tasks) latenciesMs.push(nowMs - status.timestampMs);
      isFirst = false;
    }
  };
  const watching = Promise.all(watched.map(watch)).catch((error) => {
    if (!over.signal.aborted) throw error;
  });
  const startedMs = performance.now();
  await agents.update({ seconds, tasksPerBatch: TASKS_PER_BATCH, perSecond: UPDATES_ASKED });
  await delay(seconds * 1000);
  const { updated: count } = await agents.counts();
  const perSecond = count / ((performance.now() - startedMs) / 1000);
  over.abort();
  await watching;
  return { perSecond, count, latenciesMs };
}

async function listEverything(leader: RealNode, expected: number): Promise<void> {
  for (let round = 0; round < LISTS; round++) {
    let listed = 0;
    for await (const { tasks } of leader.control.listTasks({ serviceIds: [], nodeIds: [] }))
      listed += tasks.length;
    if (listed < expected) throw new Error(`${listed} tasks of ${expected} were listed`);
    await leader.control.listServices({});
  }
  let bytes = 0;
  for await (const { data } of leader.control.backup({})) bytes += data.length;
  if (bytes === 0) throw new Error('an empty backup');
}

/** Microseconds of processor time. */
interface Micros {
  readonly leader: number;
  readonly others: number;
  readonly agents: number;
}

/** Where the processor time goes: it says more than the clock on a machine that all of them share. */
class Meter {
  readonly #pids: readonly (readonly number[])[];
  #before: readonly number[];

  constructor({ nodes }: RealCluster, { pid }: SimulatedAgents) {
    const [leader, ...others] = nodes.map(({ daemonPid }) => defined(managerPidOf(daemonPid), 'a manager'));
    this.#pids = [[defined(leader, 'a leader')], others, [pid]];
    this.#before = this.#now();
  }

  /** For each of so many things that were done since the last call. */
  micros(count: number): Micros {
    const now = this.#now();
    const [leader = 0, others = 0, agents = 0] = now.map((ms, at) =>
      Math.round(((ms - (this.#before[at] ?? 0)) * 1000) / count),
    );
    this.#before = now;
    return { leader, others, agents };
  }

  #now(): readonly number[] {
    return this.#pids.map((pids) => pids.reduce((sum, pid) => sum + cpuMs(pid), 0));
  }
}

function cpuRows(what: string, { leader, others, agents }: Micros): Row[] {
  return [
    { what: `processor time for ${what}: leader`, value: leader, unit: 'µs' },
    { what: 'the same: both other managers', value: others, unit: 'µs' },
    { what: 'the same: all agents', value: agents, unit: 'µs' },
  ];
}

/** Resident memory of the manager that a daemon has started. */
function managerMb({ daemonPid }: RealNode): number {
  return (statusKib(defined(managerPidOf(daemonPid), 'a manager'), 'VmRSS') * 1024) / MB;
}
