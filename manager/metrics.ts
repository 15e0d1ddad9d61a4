// What the manager tells Prometheus. Names that Swarm has are Swarm's; ours begin with tsswarm_.

import { Counter, Gauge, Histogram, Registry } from 'prom-client';
import { nodeStateNumbers, type Service } from '../core/generated/objects.ts';
import { TASK_STATES } from '../core/task-state.ts';
import type { NetworkUse } from '../proto/generated/control.ts';
import { tallyNetworks } from './control/network-use.ts';
import { countTasks, runningAway, type TaskCounts } from './control/task-counts.ts';
import type { RaftStatus } from './raft-host/host-options.ts';
import type { Leadership } from './store/replicated-log.ts';
import type { TablesView } from './store/tables.ts';

const LATENCY_BUCKETS_S = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];

/** What is read at the moment of a scrape. */
export interface MetricSources {
  readonly view: () => TablesView;
  readonly leadership: () => Leadership;
  readonly appliedIndex: () => number;
  /** Undefined when the log is not kept by Raft. */
  readonly raft: () => RaftStatus | undefined;
  readonly sessions: () => number;
}

export class ManagerMetrics {
  readonly #registry = new Registry();
  readonly #histograms: Record<string, Histogram> = {};
  readonly #rpc: Histogram<'method' | 'code'>;
  readonly #loopFailures: Counter<'loop'>;
  #withoutSpare: number | undefined;

  constructor(sources: MetricSources) {
    const registers = [this.#registry];
    for (const [name, help] of [
      ['swarm_store_write_tx_latency_seconds', 'Write transactions, from start to applied.'],
      ['swarm_store_batch_latency_seconds', 'Batches of write transactions.'],
      ['swarm_raft_transaction_latency_seconds', 'Log entries, from proposal to applied.'],
      ['swarm_raft_snapshot_latency_seconds', 'Snapshots of the store.'],
      ['tsswarm_log_fsync_latency_seconds', 'Durable writes of the log.'],
      ['swarm_dispatcher_scheduling_delay_seconds', 'From the creation of a task to its assignment.'],
    ] as const)
      this.#histograms[name] = new Histogram({ name, help, buckets: LATENCY_BUCKETS_S, registers });
    this.#rpc = new Histogram({
      name: 'tsswarm_rpc_latency_seconds',
      help: 'Finished calls to the manager.',
      labelNames: ['method', 'code'],
      buckets: LATENCY_BUCKETS_S,
      registers,
    });
    this.#loopFailures = new Counter({
      name: 'tsswarm_loop_failures_total',
      help: 'Passes of a control loop that failed and were repeated.',
      labelNames: ['loop'],
      registers,
    });
    const spareHelp = 'Services of which tasks would find no place if any one node died; on the leader.';
    gauge(this.#registry, 'tsswarm_services_without_spare', spareHelp, [], (g) => {
      if (this.#withoutSpare !== undefined) g.set(this.#withoutSpare);
    });
    addLogGauges(sources, this.#registry);
    addObjectGauges(sources, this.#registry);
    addServiceGauges(sources, this.#registry);
    addNetworkGauges(sources, this.#registry);
  }

  /** Counts one duration, in milliseconds, into the histogram of this name. */
  observe(name: string, durationMs: number): void {
    this.#histograms[name]?.observe(durationMs / 1000);
  }

  observeCall(path: string, durationMs: number, code: string): void {
    this.#rpc.observe({ method: path, code }, durationMs / 1000);
  }

  /** How many services would not fit if any one node died; undefined: not this manager's to say. */
  noteSpare(services: number | undefined): void {
    this.#withoutSpare = services;
  }

  countLoopFailure(loop: string): void {
    this.#loopFailures.inc({ loop });
  }

  /** Prometheus text format. */
  text(): Promise<string> {
    return this.#registry.metrics();
  }
}

function gauge(
  registry: Registry,
  name: string,
  help: string,
  labelNames: string[],
  collect: (gauge: Gauge) => void,
): void {
  new Gauge({
    name,
    help,
    labelNames,
    registers: [registry],
    collect() {
      this.reset();
      collect(this);
    },
  });
}

function addObjectGauges({ view, sessions }: MetricSources, registry: Registry): void {
  gauge(registry, 'swarm_manager_nodes', 'Nodes by state.', ['state'], (g) => {
    for (const state of Object.keys(nodeStateNumbers)) g.set({ state }, 0);
    for (const node of view().node.values()) g.inc({ state: node.status.state });
  });
  const heldHelp = 'Nodes that are down and whose tasks the brake does not let be replaced yet.';
  gauge(registry, 'tsswarm_nodes_held', heldHelp, [], (g) =>
    g.set([...view().node.values()].filter(({ status }) => status.held === true).length),
  );
  gauge(registry, 'swarm_manager_tasks_total', 'Tasks by state.', ['state'], (g) => {
    for (const state of TASK_STATES) g.set({ state }, 0);
    for (const { state, count } of view().taskStates()) g.inc({ state }, count);
  });
  gauge(registry, 'swarm_manager_services_total', 'Services.', [], (g) => g.set(view().service.size));
  gauge(registry, 'swarm_manager_secrets_total', 'Secrets.', [], (g) => g.set(view().secret.size));
  gauge(registry, 'swarm_manager_configs_total', 'Configs.', [], (g) => g.set(view().config.size));
  gauge(registry, 'tsswarm_dispatcher_sessions', 'Agents connected.', [], (g) => g.set(sessions()));
}

function addLogGauges({ leadership, appliedIndex, raft }: MetricSources, registry: Registry): void {
  gauge(registry, 'swarm_manager_leader', 'Whether this manager is the leader.', [], (g) =>
    g.set(Number(leadership().isLeader)),
  );
  gauge(registry, 'tsswarm_log_index', 'Index of the last applied log entry.', [], (g) =>
    g.set(appliedIndex()),
  );
  const ofRaft = (
    name: string,
    help: string,
    labels: string[],
    read: (g: Gauge, status: RaftStatus) => void,
  ) =>
    gauge(registry, name, help, labels, (g) => {
      const status = raft();
      if (status !== undefined) read(g, status);
    });
  ofRaft('tsswarm_raft_term', 'Term of the consensus group.', [], (g, { term }) => g.set(term));
  ofRaft('tsswarm_raft_commit_index', 'Last committed entry known.', [], (g, { committedIndex }) =>
    g.set(committedIndex),
  );
  ofRaft('tsswarm_raft_snapshot_index', 'Last entry in a snapshot.', [], (g, { snapshotIndex }) =>
    g.set(snapshotIndex),
  );
  ofRaft('tsswarm_log_disk_full', 'Whether the disk of the log has no room.', [], (g, { isDiskFull }) =>
    g.set(Number(isDiskFull)),
  );
  ofRaft('tsswarm_log_disk_low', 'Whether the disk of the log has little room or none.', [], (g, { space }) =>
    g.set(Number(space !== 'ok')),
  );
  ofRaft(
    'tsswarm_raft_verified_index',
    'Last entry after which the state was compared and is that of the majority.',
    [],
    (g, { verifiedIndex }) => g.set(verifiedIndex),
  );
  const handOverHelp = 'How often this manager handed leadership on by itself.';
  ofRaft('tsswarm_raft_hand_overs', handOverHelp, ['reason'], (g, { handOvers }) => {
    for (const [reason, count] of Object.entries(handOvers)) g.set({ reason }, count);
  });
  ofRaft('tsswarm_raft_peer_connected', 'Whether a manager is reached.', ['peer'], (g, { peers }) => {
    for (const { member, isConnected } of peers) g.set({ peer: member.nodeId }, Number(isConnected));
  });
  const lagHelp = 'Entries a manager lacks; on the leader.';
  ofRaft('tsswarm_raft_peer_lag', lagHelp, ['peer'], (g, { peers, committedIndex }) => {
    for (const { member, match } of peers)
      if (match !== undefined) g.set({ peer: member.nodeId }, Math.max(0, committedIndex - match));
  });
}

function addServiceGauges({ view, appliedIndex }: MetricSources, registry: Registry): void {
  const labels = ['service_id', 'service_name'];
  const perService = (name: string, help: string, read: (service: Service) => number) =>
    gauge(registry, name, help, labels, (g) => {
      for (const service of view().service.values())
        g.set({ service_id: service.id, service_name: service.spec.name }, read(service));
    });
  // Several gauges ask for the same in one scrape.
  let counted = {
    index: -1,
    of: new Map<string, TaskCounts>(),
    away: new Map() as ReadonlyMap<string, number>,
  };
  const count = (service: Service): TaskCounts => {
    if (counted.index !== appliedIndex())
      counted = { index: appliedIndex(), of: new Map(), away: runningAway(view()) };
    const counts = counted.of.get(service.id) ?? countTasks(view(), service, counted.away);
    counted.of.set(service.id, counts);
    return counts;
  };
  const desiredHelp = 'Tasks that the service should have running; of a job, that may run at once.';
  perService('tsswarm_service_replicas_desired', desiredHelp, (service) => count(service).desired);
  const runningHelp = 'Tasks of the service that run.';
  perService('tsswarm_service_replicas_running', runningHelp, (service) => count(service).running);
  const completedHelp = 'Completed tasks of the current iteration of a job; 0 of other services.';
  perService('tsswarm_service_job_completed', completedHelp, (service) => count(service).completed);
  const stalledHelp = 'Whether an update of the service has made no progress for as long as its deadline.';
  perService('tsswarm_service_update_stalled', stalledHelp, ({ updateStatus }) =>
    Number(updateStatus?.noProgressSinceMs !== undefined),
  );
  gauge(registry, 'tsswarm_service_tasks', 'Tasks of a service by state.', [...labels, 'state'], (g) => {
    for (const { id, spec } of view().service.values())
      for (const { state, count } of view().taskStates(id))
        g.inc({ service_id: id, service_name: spec.name, state }, count);
  });
}

function addNetworkGauges({ view }: MetricSources, registry: Registry): void {
  const labels = ['network_id', 'network_name'];
  const perNetwork = (name: string, help: string, read: (use: NetworkUse) => number) =>
    gauge(registry, name, help, labels, (g) => {
      for (const [id, { use }] of tallyNetworks(view()))
        g.set({ network_id: id, network_name: view().network.get(id)?.spec.name ?? '' }, read(use));
    });
  perNetwork(
    'tsswarm_network_addresses_used',
    'IPv4 addresses of services and tasks in a network.',
    ({ taskAddresses, serviceAddresses }) => taskAddresses + serviceAddresses,
  );
  perNetwork(
    'tsswarm_network_addresses_capacity',
    'IPv4 addresses that a network can give out.',
    ({ capacity }) => capacity,
  );
}
