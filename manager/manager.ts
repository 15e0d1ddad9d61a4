// One manager: store, control loops, dispatcher and the sockets they are reached by. Starts everything, in the order
// in which each needs the one before, and ends it when told to.

import { randomBytes } from 'node:crypto';
import { mkdir } from 'node:fs/promises';
import path from 'node:path';
import type { Clock, Random } from '../core/clock.ts';
import { defaultClusterSpec } from '../core/defaults.ts';
import { messageOf, SwarmError, toSwarmError } from '../core/errors.ts';
import {
  type ClusterSpec,
  emptyMeta,
  emptyNodeDescription,
  type NodeAvailability,
} from '../core/generated/objects.ts';
import { ControlService, ManagerHealthService } from '../proto/generated/control.ts';
import { DispatcherService } from '../proto/generated/dispatcher.ts';
import { RpcServer } from '../rpc/server.ts';
import { runAllocatorLoop } from './allocator/allocator-loop.ts';
import { controlHandlers } from './control/control-api.ts';
import { Dispatcher } from './dispatcher/dispatcher.ts';
import type { EtcdSettings } from './etcd-log/settings.ts';
import { runWhileLeading } from './lead.ts';
import { managerLog } from './log.ts';
import { LogBroker } from './log-broker.ts';
import { ManagerMetrics } from './metrics.ts';
import { runReaperLoop } from './orchestrator/reaper-loop.ts';
import { runReplicatedLoop } from './orchestrator/replicated-loop.ts';
import { newMemberId } from './raft-host/member-id.ts';
import { noPeers } from './raft-host/peers.ts';
import { RaftHost } from './raft-host/raft-host.ts';
import { RealDisk } from './raft-host/real-disk.ts';
import { runSchedulerLoop } from './scheduler/scheduler-loop.ts';
import type { ReplicatedLog } from './store/replicated-log.ts';
import { Store } from './store/store.ts';

export interface ManagerOptions {
  /** Holds the log. */
  readonly stateDirectory: string;
  /** For operators: mode 0660. */
  readonly controlSocket: string;
  /** For the node and its agent: mode 0600. */
  readonly managerSocket: string;
  readonly nodeId: string;
  readonly clusterId: string;
  readonly advertiseAddress: string;
  /** What `init` asked for; used once, when there is no cluster in the log yet. */
  readonly clusterSpec?: Partial<ClusterSpec>;
  readonly availability?: NodeAvailability;
  /** The other managers are gone for good: goes on alone, once. */
  readonly forceNewCluster?: boolean;
  /** Where the state lies when it does not lie on this manager's disk. */
  readonly etcd?: EtcdSettings;
  readonly clock: Clock;
  readonly random: Random;
}

/** Runs until the signal aborts. Throws when the log cannot be opened or a socket not be had. */
export async function runManager(options: ManagerOptions, signal: AbortSignal): Promise<void> {
  const { clock, random } = options;
  const failed = new AbortController();
  const stop = AbortSignal.any([signal, failed.signal]);
  let metrics: ManagerMetrics | undefined;
  const observe = (name: string, durationMs: number) => metrics?.observe(name, durationMs);
  const onFatal = (error: unknown) => {
    managerLog.fatal({ error: messageOf(error) }, 'the log cannot be written; the manager ends');
    failed.abort(error);
  };
  await using log = await createLog(options, observe, onFatal, signal);
  const store = new Store(log, clock, (operation, durationMs) =>
    observe(`swarm_store_${operation.replace('-', '_')}_latency_seconds`, durationMs),
  );
  await store.open();

  const logBroker = new LogBroker(randomBytes);
  const dispatcher = new Dispatcher({ store, clock, random, randomBytes, logBroker });
  metrics = new ManagerMetrics({
    view: () => store.view,
    leadership: () => log.leadership,
    appliedIndex: () => log.appliedIndex,
    raft: () => (log instanceof RaftHost ? log.status : undefined),
    sessions: () => dispatcher.sessionCount,
  });
  const servers = await listen(options, { store, log, logBroker, dispatcher, metrics });
  const counted = (loop: string) => ({ store, clock, onFailure: () => metrics?.countLoopFailure(loop) });
  managerLog.info({ 'node.id': options.nodeId, 'cluster.id': options.clusterId }, 'manager is ready');
  const lead = async (leading: AbortSignal) => {
    await bootstrap(store, options);
    await Promise.all([
      dispatcher.run(leading),
      runAllocatorLoop(counted('allocator'), leading),
      runSchedulerLoop(
        {
          ...counted('scheduler'),
          onScheduled: (delayMs) => observe('swarm_dispatcher_scheduling_delay_seconds', delayMs),
        },
        leading,
      ),
      runReplicatedLoop({ ...counted('replicated'), randomBytes }, leading),
      runReaperLoop(counted('reaper'), leading),
    ]);
  };
  try {
    await runWhileLeading(log, lead, stop);
  } finally {
    for (const server of servers) server.stop();
  }
  if (failed.signal.aborted) throw failed.signal.reason;
}

/** The replicated log: in etcd, or on this manager's disk. `onFatal` is told when that has failed. */
async function createLog(
  options: ManagerOptions,
  observe: (name: string, durationMs: number) => void,
  onFatal: (error: unknown) => void,
  signal: AbortSignal,
): Promise<ReplicatedLog> {
  const { etcd, clusterId, nodeId, advertiseAddress, clock } = options;
  if (etcd === undefined) return createRaftLog(options, observe, onFatal);
  // Who keeps the state on the disk need not load a client of etcd.
  const { EtcdLog } = await import('./etcd-log/etcd-log.ts');
  return new EtcdLog({
    settings: etcd,
    clusterId,
    self: { nodeId, address: `${advertiseAddress}:2377` },
    clock,
    defer: setImmediate,
    onFatal,
    observe: (operation, durationMs) => observe(`swarm_raft_${operation}_latency_seconds`, durationMs),
    signal,
  });
}

async function createRaftLog(
  options: ManagerOptions,
  observe: (name: string, durationMs: number) => void,
  onFatal: (error: unknown) => void,
): Promise<RaftHost> {
  const { clock, random, nodeId, clusterId, advertiseAddress, clusterSpec } = options;
  const self = { id: newMemberId(randomBytes), nodeId, address: `${advertiseAddress}:2377` };
  return new RaftHost({
    log: { disk: await RealDisk.open(path.join(options.stateDirectory, 'log')), randomBytes, onFatal },
    clusterId,
    self,
    founders: [self],
    forceNewCluster: options.forceNewCluster ?? false,
    openNetwork: noPeers,
    clock,
    random,
    defer: setImmediate,
    snapshotInterval: clusterSpec?.snapshotInterval || defaultClusterSpec.snapshotInterval,
    observe: (operation, durationMs) =>
      observe(
        operation === 'fsync'
          ? 'tsswarm_log_fsync_latency_seconds'
          : `swarm_raft_${operation}_latency_seconds`,
        durationMs,
      ),
  });
}

interface Parts {
  readonly store: Store;
  readonly log: ReplicatedLog;
  readonly logBroker: LogBroker;
  readonly dispatcher: Dispatcher;
  readonly metrics: ManagerMetrics;
}

async function listen(
  options: ManagerOptions,
  { store, log, logBroker, dispatcher, metrics }: Parts,
): Promise<RpcServer[]> {
  const observeCall = (method: string, durationMs: number, error: unknown) =>
    metrics.observeCall(method, durationMs, error === undefined ? 'ok' : toSwarmError(error).code);
  const control = new RpcServer(observeCall);
  control.add(
    ControlService,
    controlHandlers({ store, clock: options.clock, randomBytes, logBroker, backup: () => backupOf(log) }),
  );
  const internal = new RpcServer(observeCall);
  internal.add(DispatcherService, dispatcher.handlers);
  internal.add(ManagerHealthService, {
    check: () => ({ leader: log.leadership.isLeader }),
    metrics: async () => ({ text: await metrics.text() }),
  });
  const servers = [control, internal];
  try {
    await mkdir(path.dirname(options.controlSocket), { recursive: true });
    await internal.listen(options.managerSocket, 0o600);
    await control.listen(options.controlSocket, 0o660);
  } catch (error) {
    for (const server of servers) server.stop();
    throw error;
  }
  return servers;
}

function backupOf(log: ReplicatedLog): AsyncIterable<Uint8Array> {
  if (log instanceof RaftHost) return log.backup();
  throw new SwarmError('failed-precondition', "backup: the cluster's state is kept in etcd", {
    hint: 'Back up etcd itself, for instance with "etcdctl snapshot save".',
  });
}

/** The first start of a cluster: its own object and its first node. */
async function bootstrap(store: Store, options: ManagerOptions): Promise<void> {
  const { nodeId, clusterId, advertiseAddress } = options;
  await store.update((tx) => {
    if (tx.view.cluster.get(clusterId) === undefined)
      tx.create('cluster', {
        id: clusterId,
        meta: emptyMeta,
        spec: { ...defaultClusterSpec, ...options.clusterSpec },
      });
    if (tx.view.node.get(nodeId) !== undefined) return;
    tx.create('node', {
      id: nodeId,
      meta: emptyMeta,
      spec: { name: '', labels: {}, availability: options.availability ?? 'active', desiredRole: 'manager' },
      description: emptyNodeDescription,
      status: { state: 'unknown', message: 'waiting for its agent', address: advertiseAddress, sinceMs: 0 },
      managerStatus: { leader: true, reachable: true, address: `${advertiseAddress}:2377` },
      role: 'manager',
    });
  });
}
