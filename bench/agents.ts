// A cluster as it is used: three managers as their daemons run them, a thousand simulated agents on streams of their own.
// From the creation of services to the last task that runs, then news of tasks without end, and meanwhile how long the
// leader takes for a call that reads nothing, which waits for its event loop.

import { setTimeout as delay } from 'node:timers/promises';
import { defined } from '../core/assert.ts';
import { aDemandingSpec, rackLabels } from '../test/support/demanding-services.ts';
import { managerPidOf, statusKib } from '../test/support/process-status.ts';
import { RealCluster } from '../test/support/real-cluster.ts';
import type { RealNode } from '../test/support/real-node.ts';
import { SimulatedAgents } from '../test/support/simulated-agents.ts';
import { againstFloor, againstLimit, percentile, type Row } from './report.ts';

const MANAGERS = 3;
const CREATIONS_AT_ONCE = 16;
const POLL_MS = 20;
const PING_PAUSE_MS = 2;
const MB = 2 ** 20;

export interface AgentsLoad {
  readonly agents: number;
  readonly services: number;
  readonly replicas: number;
  readonly updateSeconds: number;
}

const TASKS_PER_BATCH = 20;
const RUNNING_MIN = 10_000;
const UPDATES_MIN = 30_000;
const UPDATE_P99_MAX_MS = 250;
const LOOP_P999_MAX_MS = 20;
const LOOP_WORST_MAX_MS = 100;

/** Bars: RUNNING from end to end, durable news of tasks, what the leader's event loop bears. */
export async function agentsRows(load: AgentsLoad): Promise<Row[]> {
  await using cluster = await RealCluster.start('bsa', MANAGERS, { otherHosts: 1 });
  await cluster.init();
  for (let position = 1; position < MANAGERS; position++) await cluster.join(position, 'manager');
  const leader = cluster.node(0);
  const tokens = await leader.control.getJoinTokens({});
  await using agents = await SimulatedAgents.start(defined(cluster.lan.hosts[MANAGERS], 'a host'), {
    token: tokens.worker,
    managers: tokens.addresses,
    labels: rackLabels(load.agents),
  });
  const idleMb = managerMb(leader);
  await using pings = new Pings(leader);
  const running = await deploy(leader, agents, load);
  const tasks = load.services * load.replicas;
  const usedMb = managerMb(leader) - idleMb;
  const updates = await sendNews(leader, agents, load);
  const loop = await pings.stop();
  const what = `${load.services} × ${load.replicas} tasks on ${load.agents} agents`;
  return [
    againstFloor(`${what}, created and RUNNING`, '/s', running, RUNNING_MIN),
    againstFloor('news of tasks, stored', '/s', updates.perSecond, UPDATES_MIN),
    againstLimit(
      'from the agent to a watcher, p99',
      'ms',
      percentile(updates.latenciesMs, 99),
      UPDATE_P99_MAX_MS,
    ),
    againstLimit(
      'a call that waits for the event loop, p99.9',
      'ms',
      percentile(loop, 99.9),
      LOOP_P999_MAX_MS,
    ),
    againstLimit('the same, worst', 'ms', Math.max(...loop), LOOP_WORST_MAX_MS),
    {
      what: 'memory of the leader for 1,000 tasks',
      value: Number((usedMb / (tasks / 1000)).toFixed(2)),
      unit: 'MB',
    },
  ];
}

/** Tasks per second, from the first call until the last RUNNING is stored. */
async function deploy(leader: RealNode, agents: SimulatedAgents, load: AgentsLoad): Promise<number> {
  const tasks = load.services * load.replicas;
  const startedMs = performance.now();
  let next = 0;
  const creator = async () => {
    while (next < load.services) {
      const spec = {
        ...aDemandingSpec(`service-${next++}`),
        mode: { replicated: { replicas: load.replicas } },
      };
      await leader.control.createService({ spec });
    }
  };
  await Promise.all(Array.from({ length: CREATIONS_AT_ONCE }, creator));
  while ((await agents.counts()).running < tasks) await delay(POLL_MS);
  return tasks / ((performance.now() - startedMs) / 1000);
}

interface News {
  readonly perSecond: number;
  readonly latenciesMs: readonly number[];
}

/** A watcher follows one service, as the command line does. */
async function sendNews(leader: RealNode, agents: SimulatedAgents, load: AgentsLoad): Promise<News> {
  const { service } = await leader.control.createService({
    spec: { ...aDemandingSpec('watched'), mode: { replicated: { replicas: 1 } } },
  });
  const over = new AbortController();
  const latenciesMs: number[] = [];
  let last = '';
  const watching = (async () => {
    for await (const { tasks } of leader.control.watchService(
      { serviceId: service.id },
      { signal: over.signal },
    )) {
      const [task] = tasks;
      if (task?.status.state !== 'running' || task.status.message === last) continue;
      last = task.status.message;
      latenciesMs.push(Date.now() - task.status.timestampMs);
    }
  })().catch((error) => {
    if (!over.signal.aborted) throw error;
  });
  while ((await agents.counts()).running <= load.services * load.replicas) await delay(POLL_MS);
  const startedMs = performance.now();
  await agents.update({ seconds: load.updateSeconds, tasksPerBatch: TASKS_PER_BATCH });
  await delay(load.updateSeconds * 1000);
  const { updated } = await agents.counts();
  const seconds = (performance.now() - startedMs) / 1000;
  over.abort();
  await watching;
  return { perSecond: updated / seconds, latenciesMs };
}

/** Asks the leader again and again, and notes how long each answer took. */
class Pings implements AsyncDisposable {
  readonly #tookMs: number[] = [];
  #isStopped = false;
  readonly #pinging: Promise<void>;

  constructor(leader: RealNode) {
    this.#pinging = this.#ping(leader);
  }

  async stop(): Promise<readonly number[]> {
    await this[Symbol.asyncDispose]();
    return this.#tookMs;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isStopped = true;
    await this.#pinging;
  }

  async #ping({ managerHealth }: RealNode): Promise<void> {
    while (!this.#isStopped) {
      const startedMs = performance.now();
      await managerHealth.check({});
      this.#tookMs.push(performance.now() - startedMs);
      await delay(PING_PAUSE_MS);
    }
  }
}

/** Resident memory of the manager that a daemon has started. */
function managerMb({ daemonPid }: RealNode): number {
  return (statusKib(defined(managerPidOf(daemonPid), 'a manager'), 'VmRSS') * 1024) / MB;
}
